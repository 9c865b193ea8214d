from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from app.error_pages import error_classes
from app.errors import MEDIA_TYPE, Problem, add_error_responses
from app.limits import RequestLimiter
from app.middleware import RequestContext
from app.request_metrics import RequestMetrics
from core.errors import FAILURE_TITLES, AppError, FailureCode
from tests.app.conftest import TLS, serving

ERRORS = error_classes()


@pytest.fixture(scope="module")
async def failing() -> AsyncIterator[httpx.AsyncClient]:
    """An application with our error rendering, and a path for each error."""
    service, router = FastAPI(), APIRouter()

    @router.get("/raise/{code}")
    async def fail(code: str) -> None:
        raise ERRORS[code]

    @router.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret detail")

    service.include_router(router)
    add_error_responses(service)
    service.state.limiter = RequestLimiter(per_minute=100)
    service.add_middleware(RequestContext, metrics=RequestMetrics(), limiter=service.state.limiter)
    async with serving(service) as address, httpx.AsyncClient(base_url=address, verify=TLS) as client:
        yield client


def all_subclasses(error: type[AppError]) -> set[type[AppError]]:
    """Also those of subclasses."""
    return {error}.union(*(all_subclasses(each) for each in error.__subclasses__()))


def test_no_two_errors_share_a_code_unless_one_is_the_others_kind() -> None:
    for error in all_subclasses(AppError):
        assert issubclass(error, ERRORS[error.code]), error


@pytest.mark.parametrize("code", sorted(ERRORS))
async def test_every_error_has_one_shape(failing: httpx.AsyncClient, code: str) -> None:
    error = ERRORS[code]
    answer = await failing.get(f"/raise/{code}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (error.status, MEDIA_TYPE)
    problem = Problem.model_validate(answer.json(), extra="forbid")
    assert (problem.code, problem.title, problem.retryable) == (code, error.title, error.retryable)
    assert (problem.instance, problem.status) == (f"/raise/{code}", error.status)
    assert problem.request_id == answer.headers["X-Request-Id"]
    assert ("Retry-After" in answer.headers) == error.retryable


@pytest.mark.parametrize("code", sorted({*ERRORS, *FailureCode}))
async def test_every_code_has_a_page(client: httpx.AsyncClient, code: str) -> None:
    page = await client.get(f"/docs/errors/{code}", headers={"Authorization": ""})
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert code in page.text
    assert code in (await client.get("/docs/errors")).text


def test_every_failure_has_a_title() -> None:
    assert set(FAILURE_TITLES) == set(FailureCode)


async def test_a_bug_is_a_problem_that_tells_nothing(failing: httpx.AsyncClient) -> None:
    answer = await failing.get("/bug", headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal", "mine")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/docs/errors/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/job_nonsense", 404, "not_found"),
        ("GET", "/v1/jobs/sub_01m8398gmne0a84bdbs8wn5qd6", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_request"),
        ("GET", "/v1/jobs?limit=many", 422, "invalid_request"),
    ],
)
async def test_the_frameworks_own_errors_look_the_same(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    Problem.model_validate(answer.json(), extra="forbid")
    assert ("Allow" in answer.headers) == (status == 405)


async def test_ids_come_back_if_they_are_tame(client: httpx.AsyncClient) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await client.get("/livez", headers={"X-Request-Id": "order-7", "Traceparent": trace})
    assert answer.headers["X-Request-Id"] == "order-7"
    assert answer.headers["Traceparent"].split("-")[1] == trace.split("-")[1]
    assert answer.headers["Traceparent"] != trace
    wild = await client.get("/livez", headers={"X-Request-Id": "a b;c", "Traceparent": "00-zz"})
    assert wild.headers["X-Request-Id"] != "a b;c"
    assert len(wild.headers["Traceparent"]) == len(trace)
