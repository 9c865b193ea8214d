"""How endpoints say in the OpenAPI document which errors and headers they answer with."""

from typing import Any

from app.errors import MEDIA_TYPE
from core.errors import AppError

PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
JOB_REF = {"$ref": "#/components/schemas/JobRead"}
Responses = dict[int | str, dict[str, Any]]
# On every answer.
SHARED_HEADERS = {
    "X-Request-Id": "Yours, if you sent a tame one.",
    "Traceparent": "W3C Trace Context: your trace, with a span of ours.",
    "RateLimit-Policy": "How many requests a minute: of your key, or of your address without one.",
    "RateLimit": "How many are left, and for how many seconds.",
}
# On answers to requests that could have had that header or query field, if there is something to say.
ANSWERS_TO = {
    "Idempotency-Key": ("Idempotency-Replayed", "`true`: an earlier request made this."),
    "Prefer": ("Preference-Applied", "For how long the answer was held at most."),
    "cursor": ("Link", 'The next page: `<...>; rel="next"`.'),
}


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


def add_headers(operation: dict[str, Any]) -> None:
    """The headers of each answer, by what the operation reads and by what it answers."""
    reads = {parameter["name"] for parameter in operation.get("parameters", ())}
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in SHARED_HEADERS}
        if status < "300":
            found = (ANSWERS_TO[name] for name in ANSWERS_TO if name in reads)
            headers |= {name: header(text, required=False) for name, text in found}
        if response.get("content", {}).get("application/json", {}).get("schema") == JOB_REF and status < "300":
            headers.setdefault("Retry-After", RETRY_AFTER)
        if "If-None-Match" in reads and status in {"200", "206", "304"}:
            headers["ETag"] = header("Send it back as `If-None-Match`.")
        if status == "401":
            headers["WWW-Authenticate"] = header("Which keys are taken.")
        if status in {"429", "503"}:
            headers["Retry-After"] = header("Seconds.", kind="integer")


def shared_headers() -> dict[str, Any]:
    """What `add_headers` refers to."""
    return {name: header(text) for name, text in SHARED_HEADERS.items()}


def header(text: str, *, required: bool = True, kind: str = "string") -> dict[str, Any]:
    """A header of an answer."""
    return {"description": text, "required": required, "schema": {"type": kind}}


RETRY_AFTER = header("Seconds until it is worth asking again, while the job goes on.", required=False, kind="integer")
# Of a 202 that names a job.
JOB_HEADERS = {"Location": header("The job to watch."), "Retry-After": RETRY_AFTER}
# Of what a job makes, and of jobs.
MADE_BY_JOB: Responses = {200: {"headers": {"Retry-After": RETRY_AFTER}}}
