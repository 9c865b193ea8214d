"""From an error to `application/problem+json` (RFC 9457): the only place that renders one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.limits import RequestLimiter
from core.errors import (
    AppError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
log = structlog.get_logger()


class FieldError(BaseModel):
    """Which part of the request is wrong, and how."""

    pointer: str = Field(description="`#/name` in the body (RFC 6901), `?name` in the query, or a header's name.")
    detail: str


class Problem(BaseModel):
    """What every error looks like. Branch on `code`; `type` is a page about it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/docs/errors/not_found",
                    "title": "There is nothing here by that id",
                    "status": 404,
                    "detail": "There is nothing here by that id",
                    "instance": "/v1/jobs/job_01m8398gmne0a84bdbs8wn5qd6",
                    "code": "not_found",
                    "errors": [],
                    "retryable": False,
                    "request_id": "4f1c1c1be3c44b3f9c0a4f9b0a7d6c55",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    retryable: bool
    request_id: str


def problem_response(scope: Scope, error: AppError) -> JSONResponse:
    """The answer for an error, with the headers that belong to it."""
    problem = Problem(
        type=problem_type(error.code),
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=scope["path"],
        code=error.code,
        errors=error.extra.pop("errors", []),
        retryable=error.retryable,
        request_id=scope.get("state", {}).get("request_id", ""),
    )
    return JSONResponse(
        {**error.extra, **problem.model_dump()},
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=_headers(error),
    )


def problem_type(code: str) -> str:
    """The page about an error, relative to this service."""
    return f"/docs/errors/{code}"


def _headers(error: AppError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None or error.retryable:
        headers["Retry-After"] = str(error.retry_after or RETRY_SECONDS)
    headers |= error.headers
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="hdb"'
    return headers


def add_error_responses(app: FastAPI) -> None:
    """Have every error rendered here. What nobody expected is caught by `app/middleware.py`."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(Unauthorized, _unauthorized)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)
    for lost in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(lost, _database_lost)


async def _unauthorized(request: Request, error: Exception) -> JSONResponse:
    """A stranger, who may try only so often."""
    limiter: RequestLimiter = request.app.state.limiter
    request.state.quota = limiter.strangers_quota(request.scope)
    try:
        limiter.take(request.state.quota)
    except RateLimited as limited:
        error = limited
    return await _app_error(request, error)


async def _app_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AppError)
    return problem_response(request.scope, error)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem_response(request.scope, InvalidRequest(errors=field_errors(error.errors())))


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    """The framework's own: no such route, wrong method, a body that can't be parsed."""
    assert isinstance(error, HTTPException)
    ours: AppError
    if error.status_code == 404:
        ours = NotFound("There is no such path.")
    elif error.status_code == 405:
        ours = MethodNotAllowed(f"This path does not take {request.method}.")
    else:
        ours = InvalidRequest(str(error.detail))
    response = problem_response(request.scope, ours)
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(allowed_methods(request)))
    return response


def allowed_methods(request: Request) -> set[str]:
    """Every method of the path: the framework names those of its first route."""
    routes = [route for route in request.app.state.routes if route.path_regex.match(request.scope["path"])]
    return {method for route in routes for method in route.methods}


async def _database_lost(request: Request, error: Exception) -> JSONResponse:
    log.warning("database.unreachable", error=str(error.orig if isinstance(error, DBAPIError) else error))
    return problem_response(request.scope, Unavailable("The database is not reachable.", retry_after=RETRY_SECONDS))


@contextmanager
def pointing_at(pointer: str) -> Iterator[None]:
    """A refusal inside is about this part of the request."""
    try:
        yield
    except AppError as error:
        if error.status < 500:
            error.extra.setdefault("errors", [{"pointer": pointer, "detail": error.detail}])
        raise


def field_errors(errors: list[Any] | Any) -> list[dict[str, str]]:  # noqa: ANN401 - Pydantic's own shape
    """Pydantic's findings as pointers and sentences. The refused value itself is not repeated."""
    return [{"pointer": _pointer(error["loc"]), "detail": error["msg"]} for error in errors]


def _pointer(loc: tuple[str | int, ...]) -> str:
    match loc:
        case ("query", *rest):
            return "?" + ".".join(map(str, rest))
        case ("header", name, *_):
            return str(name)
        case ("body", *rest):
            return body_pointer(*rest)
        case _:
            return body_pointer(*loc)


def body_pointer(*parts: str | int) -> str:
    """Into the body, as RFC 6901 writes it in a fragment."""
    escaped = (quote(str(part).replace("~", "~0").replace("/", "~1"), safe="~", errors="replace") for part in parts)
    return "".join(["#", *(f"/{part}" for part in escaped)])
