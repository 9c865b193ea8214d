"""A key for a phone: for minutes, it makes one subject and watches it. So no service key sits in an app."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller, token_prefix
from app.dependencies import Repeats
from app.idempotency import CREATED, earlier_id, fingerprint, replayable
from app.links import token_path
from app.subjects.service import load_subject
from core.accounts import TOKEN_SCOPES, hash_key, key_hint, new_key
from core.ids import API_KEY
from core.settings import Environment
from core.tables import ApiKey


async def create_token(
    session: AsyncSession,
    caller: Caller,
    subject_id: UUID | None,
    repeats: Repeats,
    *,
    seconds: int,
    environment: Environment,
) -> tuple[ApiKey, str | None]:
    """The token's row and its text; no text if an earlier request made it."""
    if subject_id is not None:
        await load_subject(session, caller, subject_id)
    asked = fingerprint(b"token", subject_id.bytes if subject_id else b"", str(seconds).encode())
    replay = replayable(caller, repeats.key, asked)
    earlier = await earlier_id(session, replay, API_KEY)
    # One that is over is nothing to repeat.
    works = (ApiKey.id == earlier) & (ApiKey.expires_at > func.now()) & ApiKey.revoked_at.is_(None)
    if earlier and (known := await session.scalar(select(ApiKey).where(works))):
        return known, None
    prefix = token_prefix(environment)
    text = new_key(prefix)
    token = ApiKey(
        account_id=caller.account_id,
        sha256=hash_key(text),
        hint=key_hint(text, prefix),
        scopes=list(TOKEN_SCOPES),
        one_subject=True,
        subject_id=subject_id,
        expires_at=func.now() + timedelta(seconds=seconds),
    )
    session.add(token)
    await session.flush()
    if replay:
        await replay.remember(session, token_path(token.id), status=CREATED, keep=repeats.keep)
    await session.refresh(token)
    return token, text
