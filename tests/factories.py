"""Rows and pictures for tests: plain functions in which every field has a default."""

import io
from datetime import UTC, datetime, timedelta

from PIL import Image
from sqlalchemy.orm import Session

from core.ids import new_id
from core.lifecycle import JobKind
from core.object_keys import adapter_key, photo_key
from core.tables import Account, Adapter, Generation, Job, Subject

BASE_MODEL = "mini"


def in_future(seconds: float) -> datetime:
    """A time from now, by this machine's clock; negative: in the past."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def make_account(session: Session, **fields: object) -> Account:
    """Somebody who owns subjects."""
    account = Account(**{"id": new_id(), "name": f"account-{new_id()}"} | fields)
    session.add(account)
    session.flush()
    return account


def make_subject(session: Session, account: Account | None = None, **fields: object) -> Subject:
    """A person with a photo."""
    subject_id = new_id()
    defaults = {
        "id": subject_id,
        "account_id": (account or make_account(session)).id,
        "base_model": BASE_MODEL,
        "keep_photo": False,
        "photo_keys": [photo_key(subject_id)],
    }
    subject = Subject(**defaults | fields)
    session.add(subject)
    session.flush()
    return subject


def make_job(session: Session, subject: Subject | None = None, **fields: object) -> Job:
    """A queued `personalize` job."""
    subject = subject or make_subject(session)
    defaults = {
        "id": new_id(),
        "account_id": subject.account_id,
        "subject_id": subject.id,
        "kind": JobKind.PERSONALIZE,
        "base_model": BASE_MODEL,
        "seed": 0,
    }
    job = Job(**defaults | fields)
    session.add(job)
    session.flush()
    session.refresh(job)
    return job


def make_adapter(session: Session, job: Job, **fields: object) -> Adapter:
    """A subject's weights, as a row alone, and the subject's pointer to them."""
    assert job.subject_id is not None
    defaults = {
        "id": new_id(),
        "subject_id": job.subject_id,
        "job_id": job.id,
        "attempt": 1,
        "object_key": adapter_key(job.subject_id, job.id, 1),
        "sha256": "0" * 64,
        "size": 0,
    }
    adapter = Adapter(**defaults | fields)
    session.add(adapter)
    session.flush()
    subject = session.get_one(Subject, job.subject_id)
    subject.adapter_id = adapter.id
    session.flush()
    return adapter


def make_generation(session: Session, subject: Subject, *, prompts: tuple[str, ...] = ("a",), **fields: object) -> Job:
    """A queued `generate` job with its generation."""
    pictures = [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate(prompts)]
    job = make_job(session, subject, kind=JobKind.GENERATE, params={"pictures": pictures})
    defaults = {
        "id": new_id(),
        "account_id": subject.account_id,
        "subject_id": subject.id,
        "job_id": job.id,
        "expires_at": in_future(86_400),
    }
    session.add(Generation(**defaults | fields))
    session.flush()
    return job


def photo_bytes(colour: tuple[int, int, int] = (120, 90, 60)) -> bytes:
    """A photo as the API stores it: PNG without metadata."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(content, "PNG")
    return content.getvalue()
