"""`/v1/jobs`: watch and cancel."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.answers import conditional, known_version
from app.dependencies import (
    CallerDep,
    IfNoneMatchDep,
    JobIdDep,
    JobIdText,
    PartsDep,
    PreferDep,
    ReaderDep,
    ReadKeyDep,
    SessionDep,
    SubjectFilterDep,
    UnitOfWorkDep,
    admit,
    get_parts,
    given_key,
    typed_id,
)
from app.documented import MADE_BY_JOB, problems
from app.idempotency import replay_headers
from app.jobs import service
from app.jobs.forecast import JobRow, eta_seconds
from app.jobs.poll import poll
from app.jobs.schemas import JobRead
from app.jobs.stream import event_stream
from app.paging import Page, PageDep, next_cursor, next_link
from app.parts import Parts
from app.preferences import retry_after, retry_header, wait_seconds
from core.accounts import Scope
from core.errors import NotCancelable, NotFound
from core.ids import JOB
from core.lifecycle import FINAL, JobKind, JobStatus

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
MAX_EVENT = 2**31 - 1


class JobList(Page):
    """A page of jobs."""

    jobs: list[JobRead]


def progress_headers(job: JobRead, *, waited: int = 0) -> dict[str, str]:
    """When to ask again, and whether we waited as asked."""
    headers = {} if job.status in FINAL else retry_header(job.eta_seconds)
    return headers | ({"Preference-Applied": f"wait={waited}"} if waited else {})


def headers_of_page(jobs: Sequence[JobRead]) -> dict[str, str]:
    """When to ask again for a page of jobs: as soon as for any of them that goes on."""
    soonest = min((retry_after(job.eta_seconds) for job in jobs if job.status not in FINAL), default=None)
    return {} if soonest is None else {"Retry-After": str(soonest)}


async def headers_of_made(parts: Parts, job: JobRow | None) -> dict[str, str]:
    """When to ask again for what the job makes."""
    if job is None or job.status in FINAL:
        return {}
    return retry_header(eta_seconds(job, await parts.forecaster.forecast(job)))


def accepted_headers(job: JobRead, prefer: str | None, *, replayed: bool = False) -> dict[str, str]:
    """What a 202 says beside its body."""
    headers = {"Location": job.links["self"], **progress_headers(job, waited=wait_seconds(prefer))}
    return headers | replay_headers(replayed=replayed)


@router.get("/{job_id}", responses=problems(NotFound, also_304=True), response_model=JobRead)
async def get_job(
    job_id: JobIdText,
    credentials: ReadKeyDep,
    request: Request,
    if_none_match: IfNoneMatchDep = None,
    prefer: PreferDep = None,
) -> Response:
    """A job: status, phase, steps, place in the queue, ETA, result or error. Poll it with `If-None-Match`."""
    # The most frequent call of all: each dependency would cost as much as all that is done here but for the database.
    parts, key, row_id = await get_parts(request), given_key(credentials), typed_id(JOB, job_id)
    caller, job = await poll(parts, key, row_id)
    admit(request, parts, [Scope.READ], caller)
    seconds = wait_seconds(prefer)
    if job and await service.changed(parts, job, seconds=seconds, seen_version=known_version(if_none_match)):
        _, job = await poll(parts, key, row_id)
    if job is None:
        raise NotFound
    described = await service.describe_seen(parts, job)
    headers = progress_headers(described, waited=seconds)
    return conditional(described, if_none_match, headers, version=described.version)


@router.get("", responses=problems(also_304=True) | MADE_BY_JOB, response_model=JobList)
async def list_jobs(
    caller: ReaderDep,
    session: SessionDep,
    parts: PartsDep,
    page: PageDep,
    request: Request,
    *,
    status: Annotated[JobStatus | None, Query()] = None,
    kind: Annotated[JobKind | None, Query()] = None,
    subject_id: SubjectFilterDep = None,
    if_none_match: IfNoneMatchDep = None,
) -> Response:
    """Jobs, newest first. Poll them with `If-None-Match`, as one alone."""
    jobs, ids = await service.list_jobs(
        session, parts.forecaster, caller, page, status=status, kind=kind, subject_id=subject_id
    )
    cursor = next_cursor(ids, page)
    headers = headers_of_page(jobs) | next_link(request, cursor)
    return conditional(JobList(jobs=jobs, next_cursor=cursor), if_none_match, headers)


EXAMPLE_STREAM = """id: 2
event: job
data: {"number": 2, "at": "2026-11-23T08:00:01Z", "status": "running", "phase": null, "attempt": 1}

"""
# `itemSchema` describes one event (OpenAPI 3.2; FastAPI writes it so too).
EVENT_STREAM = {
    "description": "The events, each as JSON",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "required": ["data"],
                "properties": {
                    "id": {"type": "string", "pattern": "^[0-9]+$", "description": "For `Last-Event-ID`."},
                    "event": {"type": "string", "const": "job"},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/EventRead"},
                    },
                },
            },
            "example": EXAMPLE_STREAM,
        }
    },
}


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=problems(NotFound) | {200: EVENT_STREAM})
async def stream_job_events(
    job_id: JobIdText,
    credentials: ReadKeyDep,
    request: Request,
    parts: PartsDep,
    last_event_id: Annotated[int, Header(alias="Last-Event-ID", ge=0, le=MAX_EVENT)] = 0,
) -> StreamingResponse:
    """Every change of the job as Server-Sent Events, the first or those after `Last-Event-ID`, until it has ended."""
    key, row_id = given_key(credentials), typed_id(JOB, job_id)
    caller, job = await poll(parts, key, row_id)
    admit(request, parts, [Scope.READ], caller)
    if job is None:
        raise NotFound
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = event_stream(parts.watcher, row_id, after=last_event_id)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.post("/{job_id}/cancel", responses=problems(NotFound, NotCancelable))
async def cancel_job(
    caller: CallerDep, job_id: JobIdDep, uow: UnitOfWorkDep, parts: PartsDep, response: Response
) -> JobRead:
    """Cancel: a queued job ends at once, a running one within a step, one that has ended stays as it is."""
    job = await service.cancel(uow, caller, job_id, keep=timedelta(days=parts.settings.job_days))
    described = await service.describe(uow.session, parts.forecaster, job)
    response.headers.update(progress_headers(described))
    return described
