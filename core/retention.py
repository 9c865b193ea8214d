"""What must be deleted and when, as statements: photos, pictures, old jobs, and everything of an erased subject."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Update,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.sql.dml import ReturningUpdate

from core.lifecycle import FINAL, JobKind
from core.tables import (
    Adapter,
    ApiKey,
    ErasureReceipt,
    Export,
    GeneratedImage,
    Generation,
    IdempotencyRecord,
    Job,
    Subject,
    Upload,
    WebhookDelivery,
    WorkerProcess,
)

NOW = func.now()
AT_ONCE = 500  # rows in one sweep: the rest waits for the next


def photos_due(subject_id: UUID | None = None) -> Select[UUID, list[str]]:
    """Photos that no job needs any more and that nobody asked to keep."""
    needed = exists().where(Job.subject_id == Subject.id, Job.kind == JobKind.PERSONALIZE, Job.status.not_in(FINAL))
    statement = (
        select(Subject.id, Subject.photo_keys)
        .where(Subject.photo_keys != [], Subject.keep_photo.is_(False), ~needed)
        .limit(AT_ONCE)
    )
    return statement if subject_id is None else statement.where(Subject.id == subject_id)


def forget_photos(subject_id: UUID) -> Update:
    """Their objects are gone."""
    return update(Subject).where(Subject.id == subject_id).values(photo_keys=[])


def uploads_due() -> Select[UUID]:
    """Places for photos that nobody may use any more."""
    return select(Upload.id).where(Upload.expires_at < NOW).limit(AT_ONCE)


def delete_upload(upload_id: UUID) -> Delete:
    """Its object is gone."""
    return delete(Upload).where(Upload.id == upload_id)


def exports_due() -> Select[Export]:
    """Exports whose time is over: whoever asks again gets a new one."""
    return select(Export).where(Export.expires_at < NOW).limit(AT_ONCE)


def delete_export(export_id: UUID) -> Delete:
    """Its object is gone."""
    return delete(Export).where(Export.id == export_id)


def generations_due() -> Select[Generation]:
    """Generations whose time is over, or that their owner deleted, once nobody works on them."""
    return (
        select(Generation)
        .join(Job, Job.id == Generation.job_id)
        .where(or_(Generation.expires_at < NOW, Generation.erased_at.is_not(None)), Job.status.in_(FINAL))
        .limit(AT_ONCE)
    )


def delete_generation(generation_id: UUID) -> tuple[Delete, Delete]:
    """Its pictures' rows, then its own. Their objects are gone."""
    return (
        delete(GeneratedImage).where(GeneratedImage.generation_id == generation_id),
        delete(Generation).where(Generation.id == generation_id),
    )


def delete_old_jobs() -> Delete:
    """Finished jobs and their events, unless something they made is still there."""
    used = or_(exists().where(Adapter.job_id == Job.id), exists().where(Generation.job_id == Job.id))
    return delete(Job).where(Job.status.in_(FINAL), Job.expires_at < NOW, ~used)


def delete_old_idempotency_records() -> Delete:
    """From here on the same key makes something new."""
    return delete(IdempotencyRecord).where(IdempotencyRecord.expires_at < NOW)


def delete_expired_tokens() -> Delete:
    """Phones' tokens that no longer work. Keys of backends stay: `hdb keys list` shows what became of them."""
    return delete(ApiKey).where(ApiKey.one_subject, ApiKey.expires_at < NOW)


def delete_old_deliveries(*, older_than: timedelta) -> Delete:
    """Messages that were sent, or given up, long ago."""
    return delete(WebhookDelivery).where(
        WebhookDelivery.created_at < NOW - older_than, WebhookDelivery.next_attempt_at.is_(None)
    )


def delete_silent_workers(*, silent_for: timedelta) -> Delete:
    """Processes that ended without saying so."""
    return delete(WorkerProcess).where(WorkerProcess.seen_at < NOW - silent_for)


def hide_subject(subject_id: UUID) -> Update:
    """From here on no result is recorded for it: see `point_subject_at`."""
    return (
        update(Subject)
        .where(Subject.id == subject_id)
        .values(erased_at=func.coalesce(Subject.erased_at, NOW), adapter_id=None)
    )


def erased_among(subject_ids: Collection[UUID]) -> Select[UUID]:
    """Who of them is gone."""
    return select(Subject.id).where(Subject.id.in_(list(subject_ids)), Subject.erased_at.is_not(None))


def erase_rows(subject_id: UUID) -> tuple[Delete | Update, ...]:
    """Everything that says something about the person. What stays are ids, times, states and seeds."""
    theirs = select(Generation.id).where(Generation.subject_id == subject_id)
    return (
        delete(GeneratedImage).where(GeneratedImage.generation_id.in_(theirs)),
        delete(Generation).where(Generation.subject_id == subject_id),
        delete(Adapter).where(Adapter.subject_id == subject_id),
        update(Job).where(Job.subject_id == subject_id).values(params=_counted(), client_reference=None, error=None),
        update(Subject)
        .where(Subject.id == subject_id)
        .values(name=None, client_reference=None, photo_keys=[], adapter_id=None),
    )


def _counted() -> ColumnElement[Any]:
    """Of a generation's parameters, a seed for each picture: how many there were counts for the account's limit."""
    seeds = func.jsonb_path_query_array(Job.params, cast("$.pictures[*].seed", JSONPATH))
    pictures = func.jsonb_build_object("pictures", seeds)
    return case((Job.kind == JobKind.GENERATE, pictures), else_=literal({}, Job.params.type))


def complete_receipt(subject_id: UUID, *, objects: int) -> ReturningUpdate[UUID]:
    """Rows and objects are gone. No row back: nobody asked for a receipt."""
    return (
        update(ErasureReceipt)
        .where(ErasureReceipt.subject_id == subject_id, ErasureReceipt.erased_at.is_(None))
        .values(erased_at=NOW, objects=objects)
        .returning(ErasureReceipt.id)
    )


def receipts_to_verify(*, after: timedelta) -> Select[ErasureReceipt]:
    """Erasures so old that no worker can still be writing: look once more."""
    return (
        select(ErasureReceipt)
        .where(ErasureReceipt.verified_at.is_(None), ErasureReceipt.erased_at < NOW - after)
        .limit(AT_ONCE)
    )


def verify_receipt(receipt_id: UUID, *, objects: int) -> Update:
    """Nothing is left; `objects` had turned up late."""
    return (
        update(ErasureReceipt)
        .where(ErasureReceipt.id == receipt_id)
        .values(verified_at=NOW, objects=ErasureReceipt.objects + objects)
    )
