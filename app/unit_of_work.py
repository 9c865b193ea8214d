"""One request, one transaction: commit before the answer, ring after the commit (docs/decisions)."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.publisher import Bell, Publisher
from core.tables import Job


class UnitOfWork:
    """The request's session, and the bells to ring once it is committed."""

    def __init__(self, session: AsyncSession, publisher: Publisher) -> None:
        self.session = session
        self._publisher = publisher
        self._bells: list[Bell] = []

    async def add_job(self, job: Job) -> Job:
        """A job whose bell rings after the commit; as the database sees it."""
        self.session.add(job)
        self._bells.append((job.kind, job.base_model))
        await self.session.flush()
        await self.session.refresh(job)
        return job

    async def commit(self) -> None:
        """Commit, then ring; a second call finds nothing to do."""
        await self.session.commit()
        for bell in self._bells:
            self._publisher.publish(*bell)
        self._bells.clear()
