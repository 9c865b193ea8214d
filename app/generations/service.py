"""Ask for pictures, fetch them, throw them away."""

import secrets
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from anyio import to_thread
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.admission import admit
from app.auth import Caller
from app.dependencies import Submission
from app.generations.schemas import MAX_SEED, GenerationRead, NewGeneration, generation_read, image_read
from app.idempotency import earlier_job, fingerprint, remember_job, replayable
from app.limits import check_images
from app.paging import PageRequest
from app.parts import Parts
from app.subjects.service import load_subject
from app.unit_of_work import UnitOfWork
from core.errors import NotFound, SubjectNotReady
from core.ids import IMAGE, encode_id
from core.lifecycle import JobKind
from core.prompts import clean_prompt, clean_subject_prompt
from core.schemas import GenerateParams, PictureRequest
from core.statements import cancel_job
from core.storage import ObjectStore
from core.tables import GeneratedImage, Generation, Job, Subject


async def create_generation(
    parts: Parts, uow: UnitOfWork, caller: Caller, subject_id: UUID, request: NewGeneration, submission: Submission
) -> tuple[Job, bool]:
    """The job that draws the pictures, and whether an earlier request made it."""
    digest = fingerprint(b"generation", subject_id.bytes, request.model_dump_json().encode())
    replay = replayable(caller, submission.key, digest)
    if replay:
        await replay.lock(uow.session)
        if job := await earlier_job(uow.session, replay):
            return job, True
    subject = await load_subject(uow.session, caller, subject_id, kept=True)
    if subject.adapter_id is None:
        raise SubjectNotReady
    params = picture_requests(request)
    await admit(uow.session, parts.settings, caller, subject.base_model)
    await check_images(uow.session, parts.settings, caller.account_id, wanted=len(params.pictures))
    job = await _add_job(uow, subject, request, params, submission.traceparent)
    await _add_generation(uow, job, keep=timedelta(days=parts.settings.picture_days))
    if replay:
        await remember_job(uow.session, replay, job, keep=timedelta(hours=parts.settings.idempotency_hours))
    return job, False


def picture_requests(request: NewGeneration) -> GenerateParams:
    """Each picture's own prompt and seed."""
    seed = secrets.randbelow(MAX_SEED) if request.seed is None else request.seed
    return GenerateParams(
        pictures=[
            PictureRequest(prompt=clean_subject_prompt(prompt), seed=(seed + number) % (MAX_SEED + 1))
            for prompt in request.all_prompts
            for number in range(request.count)
        ],
        negative_prompt=clean_prompt(request.negative_prompt),
        steps=request.steps,
        guidance=request.guidance,
        format=request.format,
        width=request.width,
        height=request.height,
    )


async def _add_job(
    uow: UnitOfWork, subject: Subject, request: NewGeneration, params: GenerateParams, traceparent: str
) -> Job:
    deadline = request.deadline_seconds
    job = Job(
        account_id=subject.account_id,
        subject_id=subject.id,
        kind=JobKind.GENERATE,
        base_model=subject.base_model,
        params=params.model_dump(mode="json"),
        seed=params.pictures[0].seed,
        traceparent=traceparent,
        client_reference=request.client_reference,
        deadline_at=None if deadline is None else func.now() + timedelta(seconds=deadline),
    )
    return await uow.add_job(job)


async def _add_generation(uow: UnitOfWork, job: Job, *, keep: timedelta) -> None:
    assert job.subject_id is not None
    uow.session.add(
        Generation(account_id=job.account_id, subject_id=job.subject_id, job_id=job.id, expires_at=func.now() + keep)
    )
    await uow.session.flush()


def visible(caller: Caller) -> ColumnElement[bool]:
    """The caller's generations that are still kept."""
    kept = (Generation.expires_at > func.now()) & Generation.erased_at.is_(None) & Subject.erased_at.is_(None)
    return caller.owns(Generation) & kept


async def load_generation(session: AsyncSession, caller: Caller, generation_id: UUID) -> Generation:
    """The caller's generation."""
    mine = select(Generation).join(Subject, Subject.id == Generation.subject_id)
    generation = await session.scalar(mine.where(Generation.id == generation_id, visible(caller)))
    if generation is None:
        raise NotFound
    return generation


async def generation_of(session: AsyncSession, caller: Caller, job: Job) -> Generation:
    """What a job of kind `generate` draws; NotFound if it was deleted since the request that is repeated."""
    mine = select(Generation).join(Subject, Subject.id == Generation.subject_id)
    generation = await session.scalar(mine.where(Generation.job_id == job.id, visible(caller)))
    if generation is None:
        raise NotFound
    return generation


async def list_generations(
    session: AsyncSession, store: ObjectStore, caller: Caller, page: PageRequest, *, subject_id: UUID | None
) -> tuple[list[GenerationRead], list[UUID]]:
    """A page of generations, newest first, and their ids with the one after."""
    asked = select(Generation).join(Subject, Subject.id == Generation.subject_id).where(visible(caller))
    if subject_id is not None:
        asked = asked.where(Generation.subject_id == subject_id)
    if page.before is not None:
        asked = asked.where(Generation.id < page.before)
    rows = list((await session.scalars(asked.order_by(Generation.id.desc()).limit(page.limit + 1))).all())
    return await describe(session, store, rows[: page.limit]), [row.id for row in rows]


async def describe(session: AsyncSession, store: ObjectStore, generations: list[Generation]) -> list[GenerationRead]:
    """The generations with fresh links to their pictures."""
    return await _with_pictures(session, store, generations, await _jobs_of(session, generations))


async def describe_one(session: AsyncSession, store: ObjectStore, generation: Generation) -> tuple[GenerationRead, Job]:
    """The generation and the job that draws it."""
    jobs = await _jobs_of(session, [generation])
    return (await _with_pictures(session, store, [generation], jobs))[0], jobs[generation.job_id]


async def _jobs_of(session: AsyncSession, generations: list[Generation]) -> dict[UUID, Job]:
    jobs = await session.scalars(select(Job).where(Job.id.in_([each.job_id for each in generations])))
    return {job.id: job for job in jobs}


async def _with_pictures(
    session: AsyncSession, store: ObjectStore, generations: list[Generation], jobs: Mapping[UUID, Job]
) -> list[GenerationRead]:
    asked = select(GeneratedImage).where(GeneratedImage.generation_id.in_([each.id for each in generations]))
    images: dict[UUID, list[GeneratedImage]] = defaultdict(list)
    for image in await session.scalars(asked.order_by(GeneratedImage.position)):
        images[image.generation_id].append(image)
    # Signing is arithmetic, but a page of it would hold the event loop for long.
    return await to_thread.run_sync(
        lambda: [
            generation_read(
                each, jobs[each.job_id], [image_read(image, _link(store, image)) for image in images[each.id]]
            )
            for each in generations
        ]
    )


def _link(store: ObjectStore, image: GeneratedImage) -> str | None:
    if image.object_key is None:
        return None
    return store.link(image.object_key, filename=f"{encode_id(IMAGE, image.id)}{image.format.suffix}")


async def delete_generation(session: AsyncSession, caller: Caller, generation_id: UUID, *, keep: timedelta) -> None:
    """Gone for callers now; the sweeper removes the pictures."""
    generation = await load_generation(session, caller, generation_id)
    generation.expires_at = func.now()
    await session.execute(cancel_job(generation.job_id, keep=keep))
