"""Make, read, rename and erase subjects."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

from anyio import to_thread
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from app.admission import admit
from app.auth import Caller
from app.dependencies import Submission
from app.errors import pointing_at
from app.idempotency import Replayable, earlier_job, remember_job, replayable
from app.paging import PageRequest
from app.parts import Parts
from app.subjects.form import NewSubject
from app.subjects.schemas import SubjectFields, SubjectRead, subject_read
from app.unit_of_work import UnitOfWork
from app.uploads.service import read_upload, use_upload
from core.errors import Forbidden, NotFound, UploadMissing, UploadUsed
from core.ids import new_id
from core.lifecycle import JobKind
from core.object_keys import photo_key, subject_prefix
from core.photos import Photo
from core.schemas import PersonalizeParams
from core.statements import cancel_jobs_of
from core.storage import StorageUnavailable
from core.tables import Adapter, ApiKey, Consent, ErasureReceipt, Job, Subject

SEED_BITS = 32
ONE_ALREADY = "This token has made its subject already."


async def create_subject(
    parts: Parts, uow: UnitOfWork, caller: Caller, request: NewSubject, submission: Submission
) -> tuple[Job, bool]:
    """The job that personalises a new subject, and whether an earlier request made it."""
    replay = replayable(caller, submission.key, request.sha256)
    if job := await _made_before(uow.session, caller, replay):
        return job, True
    base_model = await _admitted(parts, uow.session, caller, request.fields)
    await uow.session.close()  # no connection is held while photos are decoded and put into the bucket
    try:
        photos = await _read_photos(parts, caller, request)
    except (NotFound, UploadMissing, UploadUsed):
        # The first request with this key may have used them meanwhile.
        if job := await _made_before(uow.session, caller, replay):
            return job, True
        raise
    subject = _subject(caller, request.fields, base_model, photos=len(photos))
    async with _stored(parts, uow.session, subject, photos) as keep:
        if replay:
            await replay.lock(uow.session)
            if job := await _made_before(uow.session, caller, replay):
                return job, True
        job = await _make(uow, caller, request, submission, subject)
        if replay:
            await remember_job(uow.session, replay, job, keep=timedelta(hours=parts.settings.idempotency_hours))
        keep()
    return job, False


async def _make(uow: UnitOfWork, caller: Caller, request: NewSubject, submission: Submission, subject: Subject) -> Job:
    for pointer, upload_id in request.uploads():
        with pointing_at(pointer):
            await use_upload(uow.session, upload_id)
    await _bind_token(uow.session, caller, subject.id)
    await _add_subject(uow, subject, request.fields)
    return await _add_job(uow, subject, request.fields, submission.traceparent)


async def _admitted(parts: Parts, session: AsyncSession, caller: Caller, fields: SubjectFields) -> str:
    """The base model that the caller may personalise now."""
    if caller.one_subject and caller.subject_id is not None:
        raise Forbidden(ONE_ALREADY)
    base_model = fields.base_model or parts.settings.model_name
    await admit(session, parts.settings, caller, base_model, method=fields.method)
    return base_model


async def _read_photos(parts: Parts, caller: Caller, request: NewSubject) -> list[Photo]:
    """One after the other: of what was sent, one photo at a time is in memory."""
    photos = []
    for pointer, sent in request.photos.items():
        with pointing_at(pointer):
            content = await (read_upload(parts, caller, sent) if isinstance(sent, UUID) else sent.read())
            photos.append(await to_thread.run_sync(parts.photos.read, content, limiter=parts.decoding))
    return photos


async def _made_before(session: AsyncSession, caller: Caller, replay: Replayable | None) -> Job | None:
    """The job of the first request with this key. A phone whose token was renewed since then watches it with the new
    one; Forbidden for a token that has another subject.
    """
    job = await earlier_job(session, replay)
    if job is not None and job.subject_id is not None:
        await _bind_token(session, caller, job.subject_id)
    return job


def _subject(caller: Caller, fields: SubjectFields, base_model: str, *, photos: int) -> Subject:
    subject = Subject(
        id=new_id(),
        account_id=caller.account_id,
        name=fields.name,
        base_model=base_model,
        client_reference=fields.client_reference,
        keep_photo=fields.keep_photo,
    )
    subject.photo_keys = [photo_key(subject.id, position) for position in range(photos)]
    return subject


@asynccontextmanager
async def _stored(
    parts: Parts, session: AsyncSession, subject: Subject, photos: list[Photo]
) -> AsyncIterator[Callable[[], None]]:
    """Photos before the rows: an object without a row is swept later, a row without its object would fail.

    They are deleted at once unless the block says that they are to be kept; where the bucket is away, by the sweeper.
    """
    kept: list[bool] = []
    delete = partial(to_thread.run_sync, parts.store.delete_prefix, subject_prefix(subject.id))
    try:
        for key, photo in zip(subject.photo_keys, photos, strict=True):
            await to_thread.run_sync(partial(parts.store.put, key, photo.content, content_type=photo.content_type))
        yield lambda: kept.append(True)
    except StorageUnavailable:
        raise
    except Exception:
        await session.close()  # no connection is held for the bucket
        with suppress(StorageUnavailable):
            await delete()
        raise
    if not kept:
        with suppress(StorageUnavailable):
            await delete()


async def _add_subject(uow: UnitOfWork, subject: Subject, fields: SubjectFields) -> None:
    uow.session.add(subject)
    uow.session.add(
        Consent(
            account_id=subject.account_id,
            subject_id=subject.id,
            whose=fields.consent,
            text_version=fields.consent_text,
        )
    )
    await uow.session.flush()


async def _add_job(uow: UnitOfWork, subject: Subject, fields: SubjectFields, traceparent: str) -> Job:
    deadline = fields.deadline_seconds
    job = Job(
        account_id=subject.account_id,
        subject_id=subject.id,
        kind=JobKind.PERSONALIZE,
        base_model=subject.base_model,
        params=PersonalizeParams(method=fields.method).model_dump(mode="json"),
        seed=secrets.randbits(SEED_BITS),
        traceparent=traceparent,
        client_reference=fields.client_reference,
        deadline_at=None if deadline is None else func.now() + timedelta(seconds=deadline),
    )
    return await uow.add_job(job)


async def _bind_token(session: AsyncSession, caller: Caller, subject_id: UUID) -> None:
    """A phone's token makes one subject, and from then on is that subject's."""
    if not caller.one_subject:
        return
    free = (ApiKey.id == caller.key_id) & (ApiKey.subject_id.is_(None) | (ApiKey.subject_id == subject_id))
    bound = await session.scalar(update(ApiKey).where(free).values(subject_id=subject_id).returning(ApiKey.id))
    if bound is None:
        raise Forbidden(ONE_ALREADY)


async def load_subject(session: AsyncSession, caller: Caller, subject_id: UUID, *, kept: bool = False) -> Subject:
    """The caller's subject, unless it is erased. `kept`: nor is it before the transaction's end."""
    mine = select(Subject).where(Subject.id == subject_id, caller.owns(Subject), Subject.erased_at.is_(None))
    subject = await session.scalar(mine.with_for_update(read=True) if kept else mine)
    if subject is None:
        raise NotFound
    return subject


async def list_subjects(
    session: AsyncSession, caller: Caller, page: PageRequest, *, client_reference: str | None
) -> tuple[list[SubjectRead], list[UUID]]:
    """A page of subjects, newest first, and their ids with the one after."""
    asked = select(Subject).where(caller.owns(Subject), Subject.erased_at.is_(None))
    if page.before is not None:
        asked = asked.where(Subject.id < page.before)
    if client_reference is not None:
        asked = asked.where(Subject.client_reference == client_reference)
    subjects = list((await session.scalars(asked.order_by(Subject.id.desc()).limit(page.limit + 1))).all())
    return await describe(session, subjects[: page.limit]), [subject.id for subject in subjects]


async def describe(session: AsyncSession, subjects: list[Subject]) -> list[SubjectRead]:
    """The subjects with their weights and latest jobs."""
    return await _with_weights(session, subjects, await _latest_jobs(session, subjects))


async def describe_one(session: AsyncSession, subject: Subject) -> tuple[SubjectRead, Job | None]:
    """The subject and the job that personalises it."""
    jobs = await _latest_jobs(session, [subject])
    return (await _with_weights(session, [subject], jobs))[0], jobs.get(subject.id)


async def _latest_jobs(session: AsyncSession, subjects: list[Subject]) -> dict[UUID | None, Job]:
    latest = (
        select(Job)
        .ext(distinct_on(Job.subject_id))
        .where(Job.subject_id.in_([subject.id for subject in subjects]), Job.kind == JobKind.PERSONALIZE)
        .order_by(Job.subject_id, Job.id.desc())
    )
    return {job.subject_id: job for job in await session.scalars(latest)}


async def _with_weights(
    session: AsyncSession, subjects: list[Subject], jobs: Mapping[UUID | None, Job]
) -> list[SubjectRead]:
    adapter_ids = [subject.adapter_id for subject in subjects if subject.adapter_id]
    rows = (await session.scalars(select(Adapter).where(Adapter.id.in_(adapter_ids)))).all() if adapter_ids else []
    adapters: dict[UUID | None, Adapter] = {row.id: row for row in rows}
    return [subject_read(each, adapters.get(each.adapter_id), jobs.get(each.id)) for each in subjects]


async def rename(session: AsyncSession, caller: Caller, subject_id: UUID, name: str | None) -> SubjectRead:
    """Give it another name."""
    subject = await load_subject(session, caller, subject_id)
    subject.name = name
    await session.flush()
    return (await describe(session, [subject]))[0]


async def erase(uow: UnitOfWork, caller: Caller, subject_id: UUID, *, keep: timedelta, traceparent: str) -> Job:
    """From now on the subject is gone for callers; housekeeping removes rows and objects and writes the receipt."""
    subject = await load_subject(uow.session, caller, subject_id)
    # Jobs before their subject, in the workers' order: else each might wait for the other.
    await uow.session.execute(cancel_jobs_of(subject_id, keep=keep))
    hidden = update(Subject).where(Subject.id == subject_id, Subject.erased_at.is_(None)).values(erased_at=func.now())
    if await uow.session.scalar(hidden.returning(Subject.id)) is None:
        raise NotFound  # another request was quicker
    uow.session.add(ErasureReceipt(account_id=caller.account_id, subject_id=subject_id))
    job = Job(
        account_id=caller.account_id,
        subject_id=subject_id,
        kind=JobKind.ERASE,
        base_model=subject.base_model,
        seed=0,
        traceparent=traceparent,
    )
    return await uow.add_job(job)
