"""How much a caller may ask for: requests by key (counted by each API process), jobs and pictures by account."""

import math
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Scope

from core.errors import RateLimited, TooManyImages, TooManyJobs
from core.lifecycle import JobKind, JobStatus
from core.settings import Settings
from core.tables import Job

WINDOW_SECONDS = 60
ONE_DAY = timedelta(days=1)
FULL_RETRY_SECONDS = 10


@dataclass
class Quota:
    """What one key has used of the current minute."""

    limit: int
    resets_at: float
    used: int = 0

    @property
    def seconds_left(self) -> int:
        """Until it begins anew."""
        return max(math.ceil(self.resets_at - time.monotonic()), 1)

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers says."""
        left = max(self.limit - self.used, 0)
        return {
            "ratelimit-policy": f'"requests";q={self.limit};w={WINDOW_SECONDS}',
            "ratelimit": f'"requests";r={left};t={self.seconds_left}',
        }

    def give_back(self) -> None:
        """An answer that says nothing new costs nothing."""
        self.used -= 1


class RequestLimiter:
    """Counts requests by key, or by address without one. Memory: one number for each that was seen in this minute."""

    def __init__(self, *, per_minute: int) -> None:
        self._per_minute = per_minute
        self._resets_at = -math.inf
        self._quotas: dict[UUID | str, Quota] = {}

    def quota(self, whose: UUID | str) -> Quota:
        """What a key, or an address without one, has used of this minute."""
        now = time.monotonic()
        if now >= self._resets_at:
            self._resets_at = now + WINDOW_SECONDS
            self._quotas.clear()
        return self._quotas.setdefault(whose, Quota(limit=self._per_minute, resets_at=self._resets_at))

    def strangers_quota(self, scope: Scope) -> Quota:
        """Of requests without a key that works, from the same address."""
        client = scope.get("client")
        return self.quota(client[0] if client else "")

    @staticmethod
    def take(quota: Quota) -> None:
        """One request more, or RateLimited."""
        quota.used += 1
        if quota.used > quota.limit:
            raise RateLimited(f"At most {quota.limit} requests a minute.", retry_after=quota.seconds_left)


async def check_jobs_in_flight(session: AsyncSession, settings: Settings, account_id: UUID) -> None:
    """TooManyJobs if the account has as many unfinished ones as it may have."""
    unfinished = (Job.account_id == account_id) & Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
    if await _count(session, unfinished) >= settings.max_account_jobs:
        detail = f"At most {settings.max_account_jobs} jobs may be queued or running."
        raise TooManyJobs(detail, retry_after=FULL_RETRY_SECONDS)


async def check_images(session: AsyncSession, settings: Settings, account_id: UUID, *, wanted: int) -> None:
    """TooManyImages if the last 24 hours have no room for so many more."""
    recent = (Job.account_id == account_id) & (Job.created_at > func.now() - ONE_DAY)
    pictures = func.coalesce(func.sum(func.jsonb_array_length(Job.params["pictures"])), 0)
    drawn = await session.scalar(
        select(pictures).where(recent, Job.kind == JobKind.GENERATE, Job.status != JobStatus.CANCELED)
    )
    if (drawn or 0) + wanted > settings.max_account_images:
        detail = f"At most {settings.max_account_images} pictures in 24 hours; {drawn} were asked for."
        raise TooManyImages(detail, retry_after=3600)


async def _count(session: AsyncSession, where: ColumnElement[bool]) -> int:
    return (await session.scalars(select(func.count()).select_from(Job).where(where))).one()
