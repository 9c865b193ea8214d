"""Who may import whom (the contracts are in pyproject.toml), and what the API's image does without."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "cli", "core", "hyperdreambooth", "migrations", "worker")
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "onnxruntime"}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after the statement."""
    script = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_contracts_are_kept() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["app.main", "worker.attempts", "worker.sweeper", "cli.main"])
def test_what_needs_no_gpu_loads_no_torch(module: str) -> None:
    assert not modules_after(f"import {module}") & HEAVY


def test_the_algorithm_loads_no_service() -> None:
    loaded = modules_after("import hyperdreambooth.config, hyperdreambooth.adapter, hyperdreambooth.basis")
    assert not loaded & {"fastapi", "celery", "sqlalchemy", "boto3", "torch"}


def test_packages_run_nothing_when_imported() -> None:
    filled = [path for name in PACKAGES for path in (ROOT / name).rglob("__init__.py") if path.read_text().strip()]
    assert filled == []
