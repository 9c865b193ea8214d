"""The worker as it is deployed, on a tiny random Stable Diffusion: a photo in, weights and pictures out."""

import io
from pathlib import Path

import pytest
import redis
from PIL import Image
from skimage import data
from sqlalchemy import select

from core.lifecycle import JobKind, JobStatus
from core.queue import ring
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import GeneratedImage, Subject
from hyperdreambooth.adapter import Adapter
from tests.crew import crew_of
from tests.factories import make_generation
from tests.hyperdreambooth.conftest import write_tiny_folder

SECONDS = 500  # torch takes its time to start, and the machine may be busy


def selfie() -> bytes:
    content = io.BytesIO()
    Image.fromarray(data.astronaut()).save(content, "PNG")  # type: ignore[no-untyped-call]  # scikit-image has no types
    return content.getvalue()


@pytest.mark.slow
def test_a_photo_becomes_weights_and_those_become_pictures(
    settings: Settings, clean_slate: None, broker: redis.Redis, store: ObjectStore, tmp_path: Path
) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="epsilon")
    here = settings.model_copy(update={"base_model": str(tmp_path / "tiny")})
    with crew_of(here, store, tmp_path) as crew:
        crew.start(module="worker.main")
        job = crew.submit(selfie(), seed=5)
        assert ring(JobKind.PERSONALIZE, "tiny")
        crew.becomes(job, JobStatus.SUCCEEDED, within=SECONDS)
        with crew.sessions.begin() as session:
            drawing = make_generation(session, session.get_one(Subject, job.subject_id), prompts=("{subject}",) * 2)
            drawing.base_model = "tiny"
        assert ring(JobKind.GENERATE, "tiny")
        crew.becomes(drawing, JobStatus.SUCCEEDED, within=SECONDS)
        with crew.sessions() as session:
            images = session.scalars(select(GeneratedImage)).all()
        done = crew.read(job)
    assert done.timings.keys() == {"validating", "predicting", "finetuning", "storing"}
    assert [Image.open(io.BytesIO(store.get(image.object_key))).size for image in images if image.object_key] == [
        (16, 16)
    ] * 2
    weights = store.get(f"subjects/{job.subject_id}/adapters/{job.id}/1.safetensors")
    assert Adapter.from_bytes(weights).provenance.seed == 5
