"""The shipped model, job after job: afterwards the memory is what it was before."""

import io
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
import torch
from PIL import Image
from skimage import data

from core.ids import new_id
from core.lifecycle import JobKind, JobStatus
from core.queue import ring
from core.schemas import GenerateParams, Method, PictureRequest
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Job, Subject
from tests.crew import Crew, crew_of
from tests.factories import make_generation
from worker.engine import load_engine
from worker.generate import GenerateRequest
from worker.personalize import PersonalizeRequest

PROMPTS = ("a photo of a {subject}", "a pencil sketch of a {subject}")
ROUNDS = 2
SECONDS = 500  # torch takes its time to start, and the machine may be busy
# Seen over seven rounds: 20 MiB up and down again. One more UNet would be 80 MiB.
SLACK_BYTES = 40 * 2**20


@pytest.fixture
def crew(
    settings: Settings, clean_slate: None, broker: redis.Redis, store: ObjectStore, tmp_path: Path
) -> Iterator[Crew]:
    with crew_of(settings.model_copy(update={"base_model": "mini"}), store, tmp_path) as crew:
        yield crew


def personalize(crew: Crew, *, seed: int) -> Job:
    content = io.BytesIO()
    Image.fromarray(data.astronaut()).save(content, "PNG")  # type: ignore[no-untyped-call]  # scikit-image has no types
    job = crew.submit(content.getvalue(), seed=seed)
    assert ring(JobKind.PERSONALIZE, "mini")
    return crew.becomes(job, JobStatus.SUCCEEDED, within=SECONDS)


def generate(crew: Crew, personalized: Job) -> None:
    with crew.sessions.begin() as session:
        drawing = make_generation(session, session.get_one(Subject, personalized.subject_id), prompts=PROMPTS)
    assert ring(JobKind.GENERATE, "mini")
    crew.becomes(drawing, JobStatus.SUCCEEDED, within=SECONDS)


@pytest.mark.slow
def test_the_memory_of_a_worker_returns_after_each_job(crew: Crew) -> None:
    worker = crew.start(module="worker.main")
    generate(crew, personalize(crew, seed=0))  # what is loaded and cached once
    pool = [one for one in psutil.Process(worker.pid).children() if "--billiard-fork" in one.cmdline()]
    seen = [pool[0].memory_info().rss]
    for seed in range(1, ROUNDS + 1):
        job = personalize(crew, seed=seed)
        seen.append(pool[0].memory_info().rss)
        generate(crew, job)
        seen.append(pool[0].memory_info().rss)
    assert max(seen) < seen[0] + SLACK_BYTES, [round(rss / 2**20) for rss in seen]


@pytest.mark.gpu
def test_the_memory_of_the_gpu_returns_after_each_job() -> None:
    engine = load_engine(Settings(base_model="mini", device="cuda"))
    selfie = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]  # scikit-image has no types
    pictures = [PictureRequest(prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    seen = []
    for seed in range(ROUNDS + 1):
        (adapter,) = engine.personalize([PersonalizeRequest((selfie,), seed, Method.AUTO)], lambda *_: [True])
        assert isinstance(adapter, bytes)
        seen.append(torch.cuda.memory_allocated())
        engine.generate([GenerateRequest(new_id(), adapter, GenerateParams(pictures=pictures))], lambda *_: [True])
        seen.append(torch.cuda.memory_allocated())
    assert max(seen[2:]) <= max(seen[:2]), seen
