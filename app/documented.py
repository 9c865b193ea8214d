"""How endpoints say in the OpenAPI document which errors they answer with."""

from typing import Any

from app.errors import MEDIA_TYPE
from core.errors import AppError

PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
Responses = dict[int | str, dict[str, Any]]


def problems(*errors: type[AppError], also_304: bool = False) -> Responses:
    """The errors of an endpoint, beside those that every endpoint has (see `app/openapi.py`)."""
    responses: Responses = {304: {"description": "What the client has is still true"}} if also_304 else {}
    for error in errors:
        add_problem(responses, error)
    return responses


def add_problem(responses: dict[Any, dict[str, Any]], error: type[AppError], *, as_text: bool = False) -> None:
    """One more error; several may share a status."""
    status = str(error.status) if as_text else error.status
    response = responses.setdefault(status, {"description": error.title, "content": {}})
    content = response["content"].setdefault(MEDIA_TYPE, {"schema": PROBLEM_REF, "examples": {}})
    content["examples"][error.code] = {"summary": error.title, "value": problem_example(error)}
    response["description"] = "; ".join(example["summary"] for example in content["examples"].values())


def problem_example(error: type[AppError]) -> dict[str, Any]:
    """What the error looks like."""
    return {
        "type": f"/docs/errors/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.title,
        "instance": "/v1/...",
        "code": error.code,
        "errors": [],
        "retryable": error.retryable,
        "request_id": "4f1c1c1be3c44b3f9c0a4f9b0a7d6c55",
    }
