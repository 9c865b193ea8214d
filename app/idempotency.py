"""Idempotency-Key: the same key and request give the first answer again; kept in the transaction of what it made."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.links import job_path
from core.errors import IdempotencyInFlight, IdempotencyMismatch
from core.ids import JOB, decode_id
from core.tables import IdempotencyRecord, Job

CREATED, ACCEPTED = 201, 202
LOCK_SPACE = 0x48444249
IN_FLIGHT_RETRY_SECONDS = 1


def fingerprint(*parts: bytes) -> str:
    """The same for two requests only if they are the same; lengths keep the parts apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Replayable:
    """A request that carries a key."""

    account_id: UUID
    key: str
    sha256: str

    async def earlier(self, session: AsyncSession) -> str | None:
        """The path of what the first request made; None if this is the first."""
        record = await session.scalar(
            select(IdempotencyRecord).where(
                IdempotencyRecord.account_id == self.account_id,
                IdempotencyRecord.key == self.key,
                IdempotencyRecord.expires_at > func.now(),
            )
        )
        if record is not None and record.request_sha256 != self.sha256:
            raise IdempotencyMismatch
        return None if record is None else record.location

    async def lock(self, session: AsyncSession) -> None:
        """Hold the key until the transaction ends; whoever comes meanwhile is told to try again."""
        name = f"{self.account_id}/{self.key}"
        got = await session.scalar(select(func.pg_try_advisory_xact_lock(LOCK_SPACE, func.hashtext(name))))
        if not got:
            raise IdempotencyInFlight(retry_after=IN_FLIGHT_RETRY_SECONDS)

    async def remember(self, session: AsyncSession, location: str, *, status: int, keep: timedelta) -> None:
        """Write the record into the request's transaction. An expired one gives way."""
        await session.execute(
            delete(IdempotencyRecord).where(
                IdempotencyRecord.account_id == self.account_id, IdempotencyRecord.key == self.key
            )
        )
        session.add(
            IdempotencyRecord(
                account_id=self.account_id,
                key=self.key,
                request_sha256=self.sha256,
                status=status,
                location=location,
                expires_at=func.now() + keep,
            )
        )


def replay_headers(*, replayed: bool) -> dict[str, str]:
    """How an answer says that it was given before."""
    return {"Idempotency-Replayed": "true"} if replayed else {}


def replayable(caller: Caller, key: str | None, sha256: str) -> Replayable | None:
    """None for a request without a key."""
    return Replayable(account_id=caller.account_id, key=key, sha256=sha256) if key else None


async def earlier_id(session: AsyncSession, replay: Replayable | None, prefix: str) -> UUID | None:
    """The id of what the first request with this key made. From here on the key is ours until the transaction ends."""
    if replay is None:
        return None
    await replay.lock(session)
    location = await replay.earlier(session)
    return decode_id(prefix, location.rsplit("/", 1)[-1]) if location else None


async def earlier_job(session: AsyncSession, replay: Replayable | None) -> Job | None:
    """The job that the first request with this key made; one that is no longer kept is nothing to repeat."""
    location = await replay.earlier(session) if replay else None
    if location is None:
        return None
    job_id = decode_id(JOB, location.rsplit("/", 1)[-1])
    assert job_id is not None
    return await session.get(Job, job_id)


async def remember_job(session: AsyncSession, replay: Replayable, job: Job, *, keep: timedelta) -> None:
    """Next time, this job is the answer."""
    await replay.remember(session, job_path(job.id), status=ACCEPTED, keep=keep)
