"""The OpenAPI document: what FastAPI finds out by itself, and what every endpoint shares: errors, headers, examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.documented import add_headers, add_problem, shared_headers
from app.errors import FieldError, Problem
from app.examples import EXAMPLES
from app.jobs.watch import EventRead
from app.subjects.schemas import SubjectFields, UploadedSubject
from core.errors import AppError, BodyTooLarge, Forbidden, InvalidRequest, RateLimited, Unauthorized, Unavailable

DESCRIPTION = """One photo of a person in, personal weights out, pictures on demand.

Upload a photo (`POST /v1/subjects`), poll the job that `Location` names (with `If-None-Match` or `Prefer: wait=20`),
then ask for pictures (`POST /v1/subjects/{id}/generations`) or download the weights.
"""
HEALTH = ("/livez", "/readyz", "/metrics")
# What FastAPI doesn't see, since we read or write it by hand.
READ_BY_HAND = (Problem, FieldError, SubjectFields, UploadedSubject, EventRead)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="HyperDreamBooth Service",
            version=app.version,
            description=DESCRIPTION,
            routes=app.routes,
            webhooks=app.webhooks.routes,
        )
        _complete_schemas(document["components"]["schemas"])
        document["components"]["headers"] = shared_headers()
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if path not in HEALTH:
                    _add_shared_errors(operation, has_body=method in {"post", "patch"})
                add_headers(operation)
        for item in document.get("webhooks", {}).values():
            del item["post"]["responses"]["422"]  # it is the receiver who answers
        app.openapi_schema = document
    return app.openapi_schema


def _complete_schemas(schemas: dict[str, Any]) -> None:
    for model in READ_BY_HAND:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]


def _add_shared_errors(operation: dict[str, Any], *, has_body: bool) -> None:
    responses = operation["responses"]
    if "422" in responses and "application/json" in responses["422"].get("content", {}):
        del responses["422"]
    shared: list[type[AppError]] = [Unauthorized, Forbidden, InvalidRequest, RateLimited, Unavailable, AppError]
    for error in [*shared, BodyTooLarge] if has_body else shared:
        add_problem(responses, error, as_text=True)
