"""Documents that must say what the code says."""

import json
import re
from pathlib import Path

import pytest

from app.error_pages import error_classes
from app.main import create_app
from core.errors import FailureCode
from core.lifecycle import JobStatus, Phase
from core.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item]


def test_the_openapi_file_is_what_the_service_serves() -> None:
    assert json.loads((DOCS / "openapi.json").read_text()) == DOCUMENT, "run `make openapi`"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_operators_table(name: str) -> None:
    assert f"`HDB_{name.upper()}`" in (DOCS / "operations.md").read_text()


@pytest.mark.parametrize("code", sorted({*error_classes(), *FailureCode}))
def test_every_error_is_in_the_callers_table(code: str) -> None:
    assert f"| `{code}` |" in (DOCS / "api.md").read_text()


def test_the_callers_table_names_no_error_that_is_not() -> None:
    known = {*error_classes(), *FailureCode}
    table = (DOCS / "api.md").read_text().split("## Errors")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == known


def test_every_state_and_phase_is_explained() -> None:
    text = (DOCS / "api.md").read_text()
    assert [word for word in (*JobStatus, *Phase) if f"`{word}`" not in text] == []


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_call_is_explained(method: str, path: str) -> None:
    assert f"`{method} {path}`" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_call_documents_what_it_answers(method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method.lower()]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"])
    assert operation["description"]
    for status, response in operation["responses"].items():
        assert response["description"]
        is_error = int(status) >= 400 and path != "/readyz"
        assert not is_error or "application/problem+json" in response["content"], status
