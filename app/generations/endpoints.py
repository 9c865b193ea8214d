"""`/v1/generations`: pictures of a subject."""

from datetime import timedelta

from fastapi import APIRouter, Request, Response

from app.dependencies import (
    GenerationIdDep,
    GenerationWriterDep,
    PartsDep,
    ReaderDep,
    SessionDep,
    SubjectFilterDep,
    SubjectIdDep,
    SubmissionDep,
    UnitOfWorkDep,
)
from app.documented import JOB_HEADERS, MADE_BY_JOB, problems
from app.generations import service
from app.generations.schemas import GenerationAndJob, GenerationList, GenerationRead, NewGeneration
from app.jobs.endpoints import accepted_headers, headers_of_made
from app.jobs.service import describe_new
from app.paging import PageDep, next_cursor, next_link
from core.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    NotFound,
    PromptRejected,
    QueueFull,
    SubjectNotReady,
    TooManyImages,
    TooManyJobs,
)

router = APIRouter(prefix="/v1", tags=["generations"])
REFUSALS = {202: {"headers": JOB_HEADERS}} | problems(
    IdempotencyInFlight,
    IdempotencyMismatch,
    NotFound,
    PromptRejected,
    QueueFull,
    SubjectNotReady,
    TooManyImages,
    TooManyJobs,
)


@router.post("/subjects/{subject_id}/generations", status_code=202, responses=REFUSALS)
async def create_generation(
    caller: GenerationWriterDep,
    subject_id: SubjectIdDep,
    new: NewGeneration,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    submission: SubmissionDep,
    response: Response,
) -> GenerationAndJob:
    """Ask for pictures of a subject in any scene or style."""
    job, replayed = await service.create_generation(parts, uow, caller, subject_id, new, submission)
    described = await describe_new(parts, uow, caller, job, prefer=submission.prefer)
    response.headers.update(accepted_headers(described, submission.prefer, replayed=replayed))
    generation = await service.generation_of(uow.session, caller, job)
    await uow.session.refresh(job)
    return GenerationAndJob(
        generation=(await service.describe(uow.session, parts.store, [generation]))[0], job=described
    )


@router.get("/generations", responses=problems())
async def list_generations(
    caller: ReaderDep,
    session: SessionDep,
    parts: PartsDep,
    page: PageDep,
    request: Request,
    response: Response,
    *,
    subject_id: SubjectFilterDep = None,
) -> GenerationList:
    """Generations, newest first."""
    generations, ids = await service.list_generations(session, parts.store, caller, page, subject_id=subject_id)
    cursor = next_cursor(ids, page)
    response.headers.update(next_link(request, cursor))
    return GenerationList(generations=generations, next_cursor=cursor)


@router.get("/generations/{generation_id}", responses=MADE_BY_JOB | problems(NotFound))
async def get_generation(
    caller: ReaderDep, generation_id: GenerationIdDep, session: SessionDep, parts: PartsDep, response: Response
) -> GenerationRead:
    """A generation; its pictures, once drawn, as links that work for a few minutes."""
    generation = await service.load_generation(session, caller, generation_id)
    described, job = await service.describe_one(session, parts.store, generation)
    await session.close()  # the forecast has a connection of its own
    response.headers.update(await headers_of_made(parts, job))
    return described


@router.delete("/generations/{generation_id}", status_code=204, responses=problems(NotFound))
async def delete_generation(
    caller: GenerationWriterDep, generation_id: GenerationIdDep, uow: UnitOfWorkDep, parts: PartsDep
) -> None:
    """Throw pictures away before their time."""
    keep = timedelta(days=parts.settings.job_days)
    await service.delete_generation(uow.session, caller, generation_id, keep=keep)
