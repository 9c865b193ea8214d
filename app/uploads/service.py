"""Hand out places for photos, and take the photos from there."""

from datetime import timedelta
from uuid import UUID

from anyio import to_thread
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.parts import Parts
from app.uploads.schemas import NewUpload, UploadRead, upload_read
from core.errors import NotFound, PhotoTooLarge, UploadMissing, UploadUsed
from core.object_keys import upload_key
from core.storage import ObjectMissing
from core.tables import Upload

ADDRESS_SECONDS = 300
KEPT = timedelta(hours=1)


async def create_upload(parts: Parts, session: AsyncSession, caller: Caller, new: NewUpload) -> UploadRead:
    """A row, and two presigned addresses for its object."""
    max_bytes = parts.settings.max_photo_bytes
    if new.size > max_bytes:
        raise PhotoTooLarge(f"A photo has at most {max_bytes:,} bytes.")
    upload = Upload(account_id=caller.account_id, expires_at=func.now() + KEPT)
    session.add(upload)
    await session.flush()
    await session.refresh(upload)
    key = upload_key(upload.id)
    form = parts.store.upload_form(
        key, content_type=new.content_type, max_bytes=max_bytes, expires_seconds=ADDRESS_SECONDS
    )
    put = parts.store.upload_put(key, content_type=new.content_type, size=new.size, expires_seconds=ADDRESS_SECONDS)
    return upload_read(upload, form, put, upload.created_at + timedelta(seconds=ADDRESS_SECONDS))


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
