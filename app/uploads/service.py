"""Hand out places for photos, and take the photos from there."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from anyio import to_thread
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.dependencies import Repeats
from app.idempotency import CREATED, earlier_id, fingerprint, replayable
from app.links import upload_path
from app.parts import Parts
from app.uploads.schemas import NewUpload, UploadRead, upload_read
from core.errors import NotFound, PhotoTooLarge, UploadMissing, UploadUsed
from core.ids import UPLOAD
from core.object_keys import upload_key
from core.storage import ObjectMissing
from core.tables import Upload

ADDRESS_SECONDS = 300
KEPT = timedelta(hours=1)


async def create_upload(
    parts: Parts, session: AsyncSession, caller: Caller, new: NewUpload, repeats: Repeats
) -> tuple[UploadRead, bool]:
    """A row, and two presigned addresses for its object; whether an earlier request made the row."""
    max_bytes = parts.settings.max_photo_bytes
    if new.size > max_bytes:
        raise PhotoTooLarge(f"A photo has at most {max_bytes:,} bytes.")
    replay = replayable(caller, repeats.key, fingerprint(b"upload", new.model_dump_json().encode()))
    earlier = await earlier_id(session, replay, UPLOAD)
    # One that is over is nothing to repeat: its place in the bucket is gone.
    kept = (Upload.id == earlier) & (Upload.expires_at > func.now())
    if earlier and (known := await session.scalar(select(Upload).where(kept))):
        return _signed(parts, new, known), True
    upload = Upload(account_id=caller.account_id, expires_at=func.now() + KEPT)
    session.add(upload)
    await session.flush()
    if replay:
        await replay.remember(session, upload_path(upload.id), status=CREATED, keep=repeats.keep)
    return _signed(parts, new, upload), False


def _signed(parts: Parts, new: NewUpload, upload: Upload) -> UploadRead:
    """Addresses that work from now on."""
    key, max_bytes = upload_key(upload.id), parts.settings.max_photo_bytes
    form = parts.store.upload_form(
        key, content_type=new.content_type, max_bytes=max_bytes, expires_seconds=ADDRESS_SECONDS
    )
    put = parts.store.upload_put(key, content_type=new.content_type, size=new.size, expires_seconds=ADDRESS_SECONDS)
    return upload_read(upload, form, put, datetime.now(UTC) + timedelta(seconds=ADDRESS_SECONDS))


async def read_upload(parts: Parts, caller: Caller, upload_id: UUID) -> bytes:
    """The bytes that lie there now; what is put there later changes nothing."""
    async with parts.sessions() as session:
        upload = await session.scalar(
            select(Upload).where(Upload.id == upload_id, Upload.account_id == caller.account_id)
        )
    if upload is None:
        raise NotFound("There is no upload by that id, or it has expired.")
    if upload.used_at is not None:
        raise UploadUsed
    key = upload_key(upload_id)
    try:
        return await to_thread.run_sync(lambda: parts.store.get(key, max_bytes=parts.settings.max_photo_bytes))
    except ObjectMissing:
        raise UploadMissing from None
    except OverflowError:
        raise PhotoTooLarge(f"A photo has at most {parts.settings.max_photo_bytes:,} bytes.") from None


async def use_upload(session: AsyncSession, upload_id: UUID) -> None:
    """Once. Then the sweeper may delete what the phone sent."""
    unused = (Upload.id == upload_id) & Upload.used_at.is_(None)
    used = update(Upload).where(unused).values(used_at=func.now(), expires_at=func.now()).returning(Upload.id)
    if await session.scalar(used) is None:
        raise UploadUsed
