"""`/v1/subjects`: a person and their photo."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.answers import conditional
from app.dependencies import (
    IfNoneMatchDep,
    KeyHolderWriterDep,
    PartsDep,
    ReaderDep,
    SessionDep,
    SubjectIdDep,
    SubjectWriterDep,
    SubmissionDep,
    UnitOfWorkDep,
)
from app.documented import JOB_HEADERS, MADE_BY_JOB, problems
from app.jobs.endpoints import accepted_headers, headers_of_made
from app.jobs.schemas import JobRead
from app.jobs.service import describe_new
from app.paging import PageDep, next_cursor, next_link
from app.subjects import service
from app.subjects.form import NewSubjectDep
from app.subjects.schemas import SubjectAndJob, SubjectChange, SubjectList, SubjectRead, request_body
from app.texts import SearchText
from core.errors import (
    ConsentRequired,
    IdempotencyInFlight,
    IdempotencyMismatch,
    NoHypernetwork,
    NotFound,
    PhotoTooLarge,
    PhotoTooManyPixels,
    PhotoUnreadable,
    PhotoUnsupported,
    QueueFull,
    TooManyJobs,
    UnknownBaseModel,
    UnsupportedMediaType,
    UploadMissing,
    UploadUsed,
)

router = APIRouter(prefix="/v1/subjects", tags=["subjects"])
REFUSALS = {202: {"headers": JOB_HEADERS}} | problems(
    ConsentRequired,
    IdempotencyInFlight,
    IdempotencyMismatch,
    NoHypernetwork,
    NotFound,
    PhotoTooLarge,
    PhotoTooManyPixels,
    PhotoUnreadable,
    PhotoUnsupported,
    QueueFull,
    TooManyJobs,
    UnknownBaseModel,
    UnsupportedMediaType,
    UploadMissing,
    UploadUsed,
)
READS = MADE_BY_JOB | problems(NotFound, also_304=True)


@router.post("", status_code=202, responses=REFUSALS, openapi_extra={"requestBody": request_body()})
async def create_subject(
    new: NewSubjectDep,
    caller: SubjectWriterDep,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    submission: SubmissionDep,
    response: Response,
) -> SubjectAndJob:
    """Upload photos of one person; personalisation starts in the background. Watch the job that `Location` names."""
    job, replayed = await service.create_subject(parts, uow, caller, new, submission)
    described = await describe_new(parts, uow, caller, job, prefer=submission.prefer)
    response.headers.update(accepted_headers(described, submission.prefer, replayed=replayed))
    assert job.subject_id is not None
    subject = await service.load_subject(uow.session, caller.bound_to(job.subject_id), job.subject_id)
    return SubjectAndJob(subject=(await service.describe(uow.session, [subject]))[0], job=described)


@router.get("", responses=problems())
async def list_subjects(
    caller: ReaderDep,
    session: SessionDep,
    page: PageDep,
    request: Request,
    response: Response,
    *,
    client_reference: Annotated[SearchText | None, Query()] = None,
) -> SubjectList:
    """Subjects, newest first."""
    subjects, ids = await service.list_subjects(session, caller, page, client_reference=client_reference)
    cursor = next_cursor(ids, page)
    response.headers.update(next_link(request, cursor))
    return SubjectList(subjects=subjects, next_cursor=cursor)


@router.get("/{subject_id}", responses=READS, response_model=SubjectRead)
async def get_subject(
    caller: ReaderDep,
    subject_id: SubjectIdDep,
    session: SessionDep,
    parts: PartsDep,
    if_none_match: IfNoneMatchDep = None,
) -> Response:
    """A subject, with its weights once there are some."""
    subject = await service.load_subject(session, caller, subject_id)
    described, job = await service.describe_one(session, subject)
    await session.close()  # the forecast has a connection of its own
    return conditional(described, if_none_match, await headers_of_made(parts, job))


@router.patch("/{subject_id}", responses=problems(NotFound))
async def rename_subject(
    caller: KeyHolderWriterDep, subject_id: SubjectIdDep, change: SubjectChange, uow: UnitOfWorkDep
) -> SubjectRead:
    """Give a subject another name."""
    return await service.rename(uow.session, caller, subject_id, change.name)


@router.delete("/{subject_id}", status_code=202, responses=problems(NotFound) | {202: {"headers": JOB_HEADERS}})
async def erase_subject(
    caller: KeyHolderWriterDep,
    subject_id: SubjectIdDep,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    request: Request,
    response: Response,
) -> JobRead:
    """Erase a person: gone for callers at once; the job's result is the receipt for rows and objects."""
    keep = timedelta(days=parts.settings.job_days)
    job = await service.erase(uow, caller, subject_id, keep=keep, traceparent=request.state.traceparent)
    described = await describe_new(parts, uow, caller, job, prefer=None)
    response.headers.update(accepted_headers(described, None))
    return described
