"""The OpenAPI document: what FastAPI finds out by itself, and the errors that every endpoint shares."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.documented import add_problem
from app.errors import FieldError, Problem
from app.subjects.schemas import SubjectFields
from core.errors import AppError, BodyTooLarge, Forbidden, InvalidRequest, RateLimited, Unauthorized, Unavailable

DESCRIPTION = """One photo of a person in, personal weights out, pictures on demand.

Upload a photo (`POST /v1/subjects`), poll the job that `Location` names (with `If-None-Match` or `Prefer: wait=20`),
then ask for pictures (`POST /v1/subjects/{id}/generations`) or download the weights.
"""
METHODS = ("get", "post", "put", "patch", "delete")
HEALTH = ("/livez", "/readyz", "/metrics")


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
        schemas = document["components"]["schemas"]
        for model in (Problem, FieldError, SubjectFields):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item and path not in HEALTH:
                    _add_shared_errors(item[method], has_body=method in {"post", "patch"})
        for item in document.get("webhooks", {}).values():
            del item["post"]["responses"]["422"]  # it is the receiver who answers
        app.openapi_schema = document
    return app.openapi_schema


def _add_shared_errors(operation: dict[str, Any], *, has_body: bool) -> None:
    responses = operation["responses"]
    if "422" in responses and "application/json" in responses["422"].get("content", {}):
        del responses["422"]
    shared: list[type[AppError]] = [Unauthorized, Forbidden, InvalidRequest, RateLimited, Unavailable, AppError]
    for error in [*shared, BodyTooLarge] if has_body else shared:
        add_problem(responses, error, as_text=True)
