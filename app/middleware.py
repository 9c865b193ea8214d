"""Around every request: an id, a trace, a limit on the body, a log line, and an answer for what nobody expected."""

import re
import secrets
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem_response
from app.limits import Quota, RequestLimiter
from app.request_metrics import RequestMetrics
from core.errors import AppError, BodyTooLarge

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
BODILESS = frozenset({"GET", "HEAD"})
NOT_MODIFIED = 304
QUIET_STATUSES = frozenset({200, NOT_MODIFIED})
QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
log = structlog.get_logger()


class RequestContext:
    """Ids in and out, the log line, and the last resort: an unexpected error is a problem of ours, with its id."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, limiter: RequestLimiter) -> None:
        self.app, self.metrics, self.limiter = app, metrics, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers, status = time.perf_counter(), Headers(scope=scope), 0
        state = scope.setdefault("state", {})
        state["request_id"], state["traceparent"] = request_id(headers), traceparent(headers)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=state["request_id"])

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                outgoing = {"x-request-id": state["request_id"], "traceparent": state["traceparent"]}
                outgoing |= self._count(scope, state.get("quota"), status).headers()
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode()) for name, value in outgoing.items()),
                ]
            await send(message)

        try:
            await self.app(scope, receive, send_with_ids)
        except Exception:
            log.exception("request.failed", method=scope["method"], path=scope["path"])
            if status == 0:
                await problem_response(scope, AppError())(scope, receive, send_with_ids)
        finally:
            self._record(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, quota: Quota | None, status: int) -> Quota:
        """What is left to whoever asked. Who gave no key is told what their address has; health is free."""
        if quota is None:
            quota = self.limiter.strangers_quota(scope)
            quota.used += scope["path"] not in QUIET_PATHS
        if status == NOT_MODIFIED:
            quota.give_back()
        return quota

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        self.metrics.observe(scope, status=status, seconds=seconds)
        # A thousand pollers are a number in `/metrics`, not a thousand lines a second.
        is_quiet = scope["path"] in QUIET_PATHS or (scope["method"] == "GET" and status in QUIET_STATUSES)
        if not is_quiet:
            log.info(
                "request.served", method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 1)
            )


def request_id(headers: Headers) -> str:
    """The caller's own id, if it is a tame one."""
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid4().hex


def traceparent(headers: Headers) -> str:
    """The caller's trace with a span of ours, or a trace of ours (W3C Trace Context)."""
    given = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    trace, flags = (given[1], given[3]) if given and given[1].strip("0") else (secrets.token_hex(16), "01")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"


class BodyLimit:
    """Refuse a body that is too large: by its announced length at once, else while it streams in."""

    def __init__(self, app: ASGIApp, *, form_bytes: int, other_bytes: int) -> None:
        self.app, self.form_bytes, self.other_bytes = app, form_bytes, other_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").lower().startswith("multipart/")
        limit = self.form_bytes if is_form and scope["path"] == "/v1/subjects" else self.other_bytes
        refusal = BodyTooLarge(f"The body of this request may have {limit:,} bytes.")
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            await problem_response(scope, refusal)(scope, receive, send)
            return
        await self._run(scope, receive, send, limit=limit, refusal=refusal)

    async def _run(self, scope: Scope, receive: Receive, send: Send, *, limit: int, refusal: AppError) -> None:
        taken, started = 0, False

        async def send_unless_refused(message: Message) -> None:
            nonlocal started
            if taken <= limit or started:
                started = True
                await send(message)

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise refusal
            return message

        try:
            await self.app(scope, receive_some, send_unless_refused)
        except AppError:
            if taken <= limit:
                raise
        if taken > limit and not started:
            await problem_response(scope, refusal)(scope, receive, send)
