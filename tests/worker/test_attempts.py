"""One batch from claim to end, on the real database and bucket, with an engine whose steps the test controls."""

import io
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from PIL import Image
from sqlalchemy import select, update

from core.lifecycle import JobKind, JobStatus, Phase
from core.object_keys import adapter_key, generation_prefix
from core.rescue import Rules, requeue_lost_jobs
from core.schemas import Verdict
from core.statements import cancel_job
from core.storage import ObjectMissing, ObjectStore, StorageUnavailable
from core.tables import Adapter, GeneratedImage, Generation, Job, JobEvent, Subject
from hyperdreambooth.errors import NoFace
from tests.factories import in_future, make_adapter, make_generation, make_job, make_subject
from tests.fakes import fake_adapter
from tests.waiting import eventually
from tests.worker.conftest import Bench
from worker.attempts import OnStep
from worker.personalize import PersonalizeRequest

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (99, 99, 99)


def is_colour(request: object, colour: tuple[int, int, int]) -> bool:
    return isinstance(request, PersonalizeRequest) and request.photos[0].getpixel((0, 0)) == colour


def subject_of(bench: Bench, job: Job) -> Subject:
    with bench.sessions() as session:
        return session.get_one(Subject, job.subject_id)


def adapters_of(bench: Bench, job: Job) -> list[Adapter]:
    with bench.sessions() as session:
        return list(session.scalars(select(Adapter).where(Adapter.job_id == job.id)))


def execute(bench: Bench, statement: object) -> None:
    with bench.sessions.begin() as session:
        session.execute(statement)  # type: ignore[call-overload]  # any statement a test thinks of


def at_step(number: int, act: Callable[[], object]) -> Callable[[int], None]:
    return lambda step: (act(), None)[1] if step == number else None


def test_a_photo_becomes_weights(bench: Bench) -> None:
    job = bench.submit(seed=7)
    assert bench.personalizing().run_one("mini") == 1
    (adapter,) = adapters_of(bench, job)
    assert bench.read(job).status == JobStatus.SUCCEEDED
    assert subject_of(bench, job).adapter_id == adapter.id
    content = bench.store.get(adapter.object_key)
    expected = fake_adapter(PersonalizeRequest((Image.new("RGB", (64, 64), (9, 9, 9)),), 7, method=None))  # type: ignore[arg-type]
    assert (content, adapter.size) == (expected, len(expected))


def test_every_phase_is_an_event_in_order(bench: Bench) -> None:
    job = bench.submit()
    bench.personalizing().run_one("mini")
    with bench.sessions() as session:
        rows = session.execute(
            select(JobEvent.status, JobEvent.phase).where(JobEvent.job_id == job.id).order_by(JobEvent.number)
        )
        told = [phase or status for status, phase in rows]
    assert told == ["queued", "running", "validating", "predicting", "finetuning", "storing", "succeeded"]
    assert bench.read(job).timings.keys() == {"validating", "predicting", "finetuning", "storing"}


def test_a_queue_without_jobs_is_no_work(bench: Bench) -> None:
    assert bench.personalizing().run_one("mini") == 0
    assert bench.engine.batches == []


@pytest.mark.parametrize("keep_photo", [False, True])
def test_the_selfie_goes_with_its_job_unless_it_is_to_be_kept(bench: Bench, keep_photo: bool) -> None:
    job = bench.submit(keep_photo=keep_photo)
    (key,) = subject_of(bench, job).photo_keys
    bench.personalizing().run_one("mini")
    if keep_photo:
        assert bench.store.get(key)
        assert subject_of(bench, job).photo_keys == [key]
    else:
        with pytest.raises(ObjectMissing):
            bench.store.get(key)
        assert subject_of(bench, job).photo_keys == []


def test_a_refused_photo_leaves_its_neighbours_alone(bench: Bench) -> None:
    refused, fine = bench.submit(colour=RED), bench.submit(colour=GREEN)
    error = NoFace("no face to be seen", boxes=[(1.2, 2, 3, 4)])
    bench.engine.refuse = lambda request: error if is_colour(request, RED) else None
    assert bench.personalizing().run_one("mini") == 2
    ended = bench.read(refused)
    assert ended.status == JobStatus.REJECTED
    assert ended.error == {
        "code": "no_face",
        "detail": "no face to be seen",
        "retryable": False,
        "boxes": [[1, 2, 3, 4]],
        "photo": 0,
    }
    assert bench.read(fine).status == JobStatus.SUCCEEDED
    assert bench.engine.batches == [2]


def test_a_missing_photo_fails_its_own_job_alone(bench: Bench) -> None:
    lost, fine = bench.submit(), bench.submit()
    key = subject_of(bench, lost).photo_keys[0]
    bench.store.delete(key)
    bench.personalizing().run_one("mini")
    assert bench.read(lost).status == JobStatus.FAILED
    assert bench.read(fine).status == JobStatus.SUCCEEDED


def test_what_breaks_a_batch_is_found_by_halving(bench: Bench) -> None:
    colours = (RED, GREEN, BLUE, GREY)
    jobs = [bench.submit(colour=colour, attempt=7) for colour in colours]  # one attempt left of eight

    def run(requests: Sequence[PersonalizeRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        if any(is_colour(request, BLUE) for request in requests):
            raise ZeroDivisionError
        return well(requests, on_step)

    well = bench.engine.personalize
    bench.engine.personalize = run  # type: ignore[method-assign]
    bench.personalizing().run_one("mini")
    assert [bench.read(job).status for job in jobs] == ["succeeded", "succeeded", "failed", "succeeded"]
    assert bench.read(jobs[2]).error == {
        "code": "internal",
        "detail": "Something went wrong on our side",
        "retryable": True,
    }


def test_a_job_that_broke_something_gets_another_attempt(bench: Bench) -> None:
    job = bench.submit()
    bench.engine.refuse = lambda request: ZeroDivisionError()
    batches = bench.personalizing()
    batches.run_one("mini")
    assert (bench.read(job).status, bench.read(job).strikes, batches.released) == (JobStatus.QUEUED, 0, 1)
    bench.engine.refuse = lambda request: None
    batches.run_one("mini")
    assert (bench.read(job).status, bench.read(job).attempt, batches.released) == (JobStatus.SUCCEEDED, 2, 0)


def test_out_of_memory_halves_the_batch_and_the_next_ones(bench: Bench) -> None:
    jobs = [bench.submit() for _ in range(5)]
    bench.engine.fits = 2
    batches = bench.personalizing()
    assert (batches.run_one("mini"), batches.size) == (4, 2)
    batches.run_one("mini")
    assert bench.engine.batches == [4, 2, 2, 1]
    assert {bench.read(job).status for job in jobs} == {JobStatus.SUCCEEDED}


def test_a_cancelled_job_stops_between_steps_and_its_neighbour_goes_on(bench: Bench) -> None:
    canceled, fine = bench.submit(), bench.submit()
    bench.engine.steps = 300

    def step(number: int) -> None:
        if number == 1:
            execute(bench, cancel_job(canceled.id, keep=timedelta(days=1)))
            eventually(lambda: bench.look(lambda session: session.get_one(Job, canceled.id).cancel_requested))
        bench.stopping.wait(0.01)  # a step takes its time

    bench.engine.between_steps = step
    bench.personalizing().run_one("mini")
    assert (bench.read(canceled).status, adapters_of(bench, canceled)) == (JobStatus.CANCELED, [])
    assert bench.read(fine).status == JobStatus.SUCCEEDED


def test_a_batch_that_nobody_wants_any_more_ends_at_once(bench: Bench) -> None:
    job = bench.submit()
    bench.engine.steps = 100_000
    seen: list[int] = []

    def step(number: int) -> None:
        seen.append(number)
        if number == 1:
            execute(bench, cancel_job(job.id, keep=timedelta(days=1)))
        bench.stopping.wait(0.01)

    bench.engine.between_steps = step
    bench.personalizing().run_one("mini")
    assert bench.read(job).status == JobStatus.CANCELED
    assert len(seen) < 1000


def test_an_attempt_that_lost_its_job_writes_nothing(bench: Bench) -> None:
    job = bench.submit()
    taken = update(Job).where(Job.id == job.id).values(attempt=2, lease_expires_at=in_future(60), worker="other")
    bench.engine.between_steps = at_step(1, lambda: execute(bench, taken))
    bench.personalizing().run_one("mini")
    now = bench.read(job)
    assert (now.status, now.attempt, now.worker) == (JobStatus.RUNNING, 2, "other")
    assert adapters_of(bench, job) == []
    assert subject_of(bench, job).photo_keys


def test_a_process_that_is_to_end_hands_its_jobs_back(bench: Bench) -> None:
    jobs = [bench.submit() for _ in range(2)]
    bench.engine.between_steps = at_step(1, bench.stopping.set)
    batches = bench.personalizing()
    batches.run_one("mini")
    after = [bench.read(job) for job in jobs]
    assert [(job.status, job.strikes, job.attempt) for job in after] == [(JobStatus.QUEUED, 0, 1)] * 2
    assert batches.released == 2


def test_a_job_that_runs_too_long_is_failed(bench: Bench) -> None:
    job = bench.submit()
    bench.settings = bench.settings.model_copy(update={"max_running_seconds": 0.2})
    bench.engine.steps = 100_000
    bench.engine.between_steps = lambda step: (bench.stopping.wait(0.01), None)[1]
    bench.personalizing().run_one("mini")
    error = bench.read(job).error
    assert error is not None
    assert (bench.read(job).status, error["code"]) == (JobStatus.FAILED, "timed_out")


def test_an_erased_person_gets_no_weights(bench: Bench) -> None:
    job = bench.submit()
    erased = update(Subject).where(Subject.id == job.subject_id).values(erased_at=in_future(0))
    bench.engine.between_steps = at_step(1, lambda: execute(bench, erased))
    bench.personalizing().run_one("mini")
    assert (bench.read(job).status, adapters_of(bench, job)) == (JobStatus.CANCELED, [])


class FlakyStore(ObjectStore):
    """A bucket that refuses the next few writes."""

    refusals = 0

    def put(self, key: str, content: bytes, *, content_type: str) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise StorageUnavailable
        super().put(key, content, content_type=content_type)


def test_a_bucket_that_comes_back_is_waited_for_inside_the_attempt(bench: Bench) -> None:
    job = bench.submit()
    bench.store = store = FlakyStore(bench.settings)
    store.refusals = 2
    bench.personalizing().run_one("mini")
    assert (bench.read(job).status, bench.read(job).attempt) == (JobStatus.SUCCEEDED, 1)


def test_a_bucket_that_stays_away_sends_the_job_back_however_often(bench: Bench) -> None:
    job = bench.submit(attempt=20)
    bench.store = store = FlakyStore(bench.settings)
    store.refusals = 1000
    bench.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign]  # time flies
    batches = bench.personalizing()
    batches.run_one("mini")
    error = bench.read(job).error
    assert error is not None
    assert (bench.read(job).status, error["code"], batches.released) == (JobStatus.QUEUED, "storage_unavailable", 1)


def test_progress_can_be_read_while_the_job_runs(bench: Bench) -> None:
    job = bench.submit()

    def is_told() -> bool:
        row = bench.read(job)
        return (row.phase, row.step, row.total_steps) == (Phase.FINETUNING, 2, 4)

    bench.engine.between_steps = lambda step: (eventually(is_told), None)[1] if step == 2 else None
    bench.personalizing().run_one("mini")
    assert bench.read(job).status == JobStatus.SUCCEEDED


def test_a_lease_is_renewed_while_steps_advance(bench: Bench) -> None:
    job = bench.submit()
    first_end = in_future(bench.settings.lease_seconds + 0.5)

    def is_renewed() -> bool:
        lease_ends = bench.read(job).lease_expires_at
        return lease_ends is not None and lease_ends > first_end

    bench.engine.between_steps = lambda step: (eventually(is_renewed), None)[1] if step == 0 else None
    bench.personalizing().run_one("mini")
    assert bench.read(job).status == JobStatus.SUCCEEDED


def test_a_standstill_ends_the_renewals_and_then_the_process(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"lease_seconds": 0.3, "max_step_seconds": 0.3})
    job = bench.submit()
    rules = Rules(timedelta(milliseconds=1), max_strikes=3)

    def stand_still() -> None:
        bench.stalled.wait(30)
        execute(bench, requeue_lost_jobs(rules))  # the sweeper judges

    bench.engine.between_steps = at_step(1, stand_still)
    bench.personalizing().run_one("mini")
    now = bench.read(job)
    assert bench.stalled.is_set()
    assert (now.status, now.strikes, adapters_of(bench, job)) == (JobStatus.QUEUED, 1, [])


def test_prompts_become_pictures_that_say_what_they_are(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        subject = make_subject(session)
        personalized = make_job(session, subject, status=JobStatus.SUCCEEDED)
        make_adapter(session, personalized)
        job = make_generation(session, subject, prompts=("a secret garden", "on the moon"))
    bench.store.put(adapter_key(subject.id, personalized.id, 1), b"weights", content_type="application/octet-stream")
    assert bench.generating().run_one("mini") == 1
    assert bench.read(job).status == JobStatus.SUCCEEDED
    with bench.sessions() as session:
        images = session.scalars(select(GeneratedImage).order_by(GeneratedImage.position)).all()
    assert [(image.prompt, image.seed, image.verdict) for image in images] == [
        ("a secret garden", 0, "ok"),
        ("on the moon", 1, "ok"),
    ]
    assert images[0].object_key is not None
    content = bench.store.get(images[0].object_key)
    assert Image.open(io.BytesIO(content)).size == (images[0].width, images[0].height)
    assert b"trainedAlgorithmicMedia" in content
    assert b"garden" not in content


def test_a_blocked_picture_is_a_row_without_an_object(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        subject = make_subject(session)
        personalized = make_job(session, subject, status=JobStatus.SUCCEEDED)
        make_adapter(session, personalized)
        job = make_generation(session, subject, prompts=("fine", "not for showing"))
    bench.store.put(adapter_key(subject.id, personalized.id, 1), b"weights", content_type="application/octet-stream")
    bench.engine.judge = lambda prompt: Verdict.OK if prompt == "fine" else Verdict.BLOCKED
    bench.generating().run_one("mini")
    assert bench.read(job).status == JobStatus.SUCCEEDED
    with bench.sessions() as session:
        shown, blocked = session.scalars(select(GeneratedImage).order_by(GeneratedImage.position)).all()
        generation = session.scalars(select(Generation)).one()
    assert (blocked.verdict, blocked.object_key, blocked.size, blocked.width) == ("blocked", None, 0, 8)
    prefix = generation_prefix(subject.id, generation.id)
    assert list(bench.store.keys(prefix)) == [shown.object_key]


def test_pictures_need_weights_that_are_there(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        subject = make_subject(session)
        make_adapter(session, make_job(session, subject, status=JobStatus.SUCCEEDED))
        job = make_generation(session, subject)
    bench.generating().run_one("mini")
    error = bench.read(job).error
    assert error is not None
    assert (bench.read(job).status, error["code"]) == (JobStatus.FAILED, "adapter_unreadable")


def test_a_claim_takes_no_other_kind(bench: Bench) -> None:
    job = bench.submit()
    assert bench.generating().run_one("mini") == 0
    assert (bench.read(job).status, bench.read(job).kind) == (JobStatus.QUEUED, JobKind.PERSONALIZE)


def test_an_erasure_is_tried_again_until_it_succeeds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.sessions.begin() as session:
        job = make_job(session, make_subject(session), kind=JobKind.ERASE, attempt=bench.settings.max_attempts)
    erasing = bench.erasing()
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "delete_prefix", lambda prefix: 1 / 0)
        assert (erasing.run_one("mini"), erasing.released) == (1, 1)
    assert bench.read(job).status == JobStatus.QUEUED
    erasing.run_one("mini")
    assert bench.read(job).status == JobStatus.SUCCEEDED
