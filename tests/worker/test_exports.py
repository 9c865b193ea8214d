"""Jobs of kind `export`, on the real servers."""

import hashlib
from datetime import timedelta

import pytest
import safetensors.numpy
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.lifecycle import JobKind, JobStatus
from core.storage import ObjectMissing
from core.tables import Export, Job
from tests.factories import in_future, make_adapter, make_job
from tests.hyperdreambooth.test_adapter import make_adapter as make_weights
from tests.worker.conftest import Bench
from worker.attempts import Batches
from worker.exports import Exporting, ExportRequest
from worker.sweeper import Sweeper


def exporting(bench: Bench) -> Batches[ExportRequest, bytes]:
    work = Exporting(bench.sessions, bench.store, bench.settings)
    return Batches(work, bench.ledger(), bench.limits(), size=4)


def submit(session: Session, bench: Bench, layout: str, weights: bytes) -> Job:
    """A subject with weights, and an export of them that waits."""
    made_by = make_job(session)
    session.execute(update(Job).where(Job.id == made_by.id).values(status=JobStatus.SUCCEEDED))
    adapter = make_adapter(session, made_by, sha256=hashlib.sha256(weights).hexdigest(), size=len(weights))
    bench.store.put(adapter.object_key, weights, content_type="application/octet-stream")
    params = {"adapter_id": str(adapter.id), "format": layout}
    return make_job(
        session, subject_id=made_by.subject_id, account_id=made_by.account_id, kind=JobKind.EXPORT, params=params
    )


@pytest.mark.parametrize(("layout", "suffix"), [("diffusers", ".lora_A.weight"), ("kohya", ".lora_down.weight")])
def test_weights_are_folded_and_stored(bench: Bench, layout: str, suffix: str) -> None:
    with bench.sessions.begin() as session:
        job = submit(session, bench, layout, make_weights().to_bytes())
    assert exporting(bench).run_one("mini") == 1

    assert bench.read(job).status is JobStatus.SUCCEEDED
    with bench.sessions() as session:
        export = session.scalars(select(Export)).one()
    content = bench.store.get(export.object_key)
    assert (export.format, export.size, export.sha256) == (layout, len(content), hashlib.sha256(content).hexdigest())
    assert export.expires_at - export.created_at == timedelta(hours=24)
    assert any(key.endswith(suffix) for key in safetensors.numpy.load(content))


def test_weights_whose_aux_matrices_are_not_here_fail_with_a_reason(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        job = submit(session, bench, "diffusers", make_weights(aux_sha256="ef" * 32).to_bytes())
    assert exporting(bench).run_one("mini") == 1
    failed = bench.read(job)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "adapter_unreadable"
    assert "efefefefefef" in failed.error["detail"]


def test_a_damaged_file_fails_alone(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        jobs = [submit(session, bench, "kohya", weights) for weights in (make_weights().to_bytes(), b"damaged")]
    assert exporting(bench).run_one("mini") == 2
    good, bad = (bench.read(job) for job in jobs)
    assert (good.status, bad.status) == (JobStatus.SUCCEEDED, JobStatus.FAILED)
    assert bad.error is not None
    assert bad.error["code"] == "adapter_unreadable"


def test_an_export_goes_when_its_time_is_over(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        submit(session, bench, "kohya", make_weights().to_bytes())
    exporting(bench).run_one("mini")
    with bench.sessions.begin() as session:
        key = session.scalars(select(Export.object_key)).one()
        session.execute(update(Export).values(expires_at=in_future(-1)))
    Sweeper(bench.sessions, bench.store, bench.settings, ring=lambda kind, model, jobs: None).sweep()
    with bench.sessions() as session:
        assert session.scalars(select(Export)).all() == []
    with pytest.raises(ObjectMissing):
        bench.store.get(key)
