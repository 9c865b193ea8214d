"""Find a subject's weights."""

from uuid import UUID

from anyio import to_thread
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.parts import Parts
from app.subjects.service import load_subject
from core.errors import SubjectNotReady
from core.tables import Adapter


async def stored_weights(parts: Parts, session: AsyncSession, caller: Caller, subject_id: UUID) -> Adapter:
    """The subject's adapter, or SubjectNotReady."""
    subject = await load_subject(session, caller, subject_id)
    if subject.adapter_id is None:
        raise SubjectNotReady
    return await session.get_one(Adapter, subject.adapter_id)


async def read_weights(parts: Parts, adapter: Adapter) -> bytes:
    """The file, byte for byte as the worker stored it."""
    return await to_thread.run_sync(parts.store.get, adapter.object_key)
