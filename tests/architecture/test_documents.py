"""Documents that must say what the code says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from app.error_pages import error_classes
from app.examples import EXAMPLES
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


def shown_calls() -> set[tuple[str, str]]:
    """The calls of this service that the page makes with curl, with `{}` where ids are."""
    calls = set()
    for words in re.findall(r"^curl (.+)$", (DOCS / "api.md").read_text(), re.MULTILINE):
        method = re.search(r"-X (\w+)", words)
        sends = re.search(r"--json|-F ", words)
        if path := re.search(r"\$HDB(/[^\s\"?]*)", words):
            verb = method[1] if method else "POST" if sends else "GET"
            calls.add((verb, re.sub(r"[a-z]{3}_\.\.\.", "{}", path[1])))
    return calls


def test_every_call_is_shown_with_curl_and_no_other() -> None:
    assert shown_calls() == {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in OPERATIONS}


def bodies(method: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a call takes and gives as JSON, or as a form."""
    operation = DOCUMENT["paths"][path][method.lower()]
    for name, body in {"request": operation.get("requestBody", {}), **operation["responses"]}.items():
        for media_type, content in body.get("content", {}).items():
            if media_type.endswith("json") or "form" in media_type:
                yield f"{name} {media_type}", content


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_call_has_an_example_of_all_that_it_takes_and_gives(method: str, path: str) -> None:
    for name, content in bodies(method, path):
        schema = content["schema"]
        found = [*content.get("examples", {}).values(), *schema.get("examples", ())]
        if "$ref" in schema:
            found += DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]].get("examples", ())
        assert found or content.get("example"), name


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_example_is_an_example(name: str) -> None:
    schema = {**DOCUMENT["components"]["schemas"][name], "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(EXAMPLES[name])


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_call_documents_what_it_answers(method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method.lower()]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"])
    assert operation["description"]
    for status, response in operation["responses"].items():
        assert response["description"]
        is_error = int(status) >= 400 and path != "/readyz"
        assert not is_error or "application/problem+json" in response["content"], status
