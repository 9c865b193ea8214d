import psycopg
import pytest
from alembic import command
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.database import Sessions
from core.lifecycle import FINAL, JobStatus, Phase
from core.settings import Settings
from core.tables import Job, JobEvent
from migrations.upgrade import alembic_config
from tests.factories import make_job


def events(session: Session, job: Job) -> list[tuple[int, JobStatus, Phase | None]]:
    """The job's story, in order."""
    told = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.number)
    return [(event.number, event.status, event.phase) for event in session.scalars(told)]


def move(session: Session, job: Job, **values: object) -> None:
    """Without any guard of ours."""
    session.execute(update(Job).where(Job.id == job.id).values(**values))
    session.refresh(job)


def test_every_change_of_status_or_phase_is_an_event(sync_session: Session) -> None:
    job = make_job(sync_session)
    move(sync_session, job, status=JobStatus.RUNNING, attempt=1)
    move(sync_session, job, phase=Phase.PREDICTING)
    move(sync_session, job, step=3)
    move(sync_session, job, status=JobStatus.SUCCEEDED, phase=None)
    assert events(sync_session, job) == [
        (1, JobStatus.QUEUED, None),
        (2, JobStatus.RUNNING, None),
        (3, JobStatus.RUNNING, Phase.PREDICTING),
        (4, JobStatus.SUCCEEDED, None),
    ]
    assert job.event_count == 4


def test_nobody_can_forge_the_number_of_events(sync_session: Session) -> None:
    job = make_job(sync_session, event_count=40)
    move(sync_session, job, event_count=99)
    assert job.event_count == 1


@pytest.mark.parametrize("final", sorted(FINAL))
def test_a_final_status_stays(sync_session: Session, final: JobStatus) -> None:
    job = make_job(sync_session)
    move(sync_session, job, status=final)
    for other in set(JobStatus) - {final}:
        with pytest.raises(IntegrityError), sync_session.begin_nested():
            move(sync_session, job, status=other)
    move(sync_session, job, error={"code": "internal"})
    assert job.status is final


def test_listeners_are_told_after_the_commit(sync_sessions: Sessions, settings: Settings) -> None:
    url = settings.database_url.get_secret_value().replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute("LISTEN job_events")
        with sync_sessions() as session:
            job = make_job(session)
            assert list(listener.notifies(timeout=0.05)) == []
            session.commit()
        note = next(listener.notifies(timeout=5))
    assert note.payload == str(job.id)


def test_tables_and_migrations_agree(settings: Settings) -> None:
    command.check(alembic_config(settings.database_url.get_secret_value()))
