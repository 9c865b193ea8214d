"""Real, torch-free implementations for tests: an engine whose steps a test controls."""

import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from uuid import UUID

from PIL import Image

from core.lifecycle import Phase
from core.schemas import Verdict
from core.settings import Settings
from worker.attempts import OnStep
from worker.failures import OutOfGpuMemory
from worker.generate import GenerateRequest, Picture
from worker.personalize import PersonalizeRequest
from worker.presence import Serves

FOLDER = "HDB_TEST_FOLDER"  # where an engine in another process leaves its footprints and finds its orders
POLL_SECONDS = 0.02


class FakeEngine:
    """Hashes photos instead of learning them, step by step, and draws what a hash says."""

    def __init__(
        self,
        *,
        steps: int = 4,
        between_steps: Callable[[int], None] = lambda step: None,
        refuse: Callable[[PersonalizeRequest | GenerateRequest], Exception | None] = lambda request: None,
        fits: int = 64,
        judge: Callable[[str], Verdict] = lambda prompt: Verdict.OK,
        batch_size: int = 4,
    ) -> None:
        self.serves = Serves("mini", "f" * 64, has_hypernetwork=True, batch_size=batch_size)
        self.holds: set[UUID] = set()
        self.judge = judge
        self.steps, self.between_steps, self.refuse, self.fits = steps, between_steps, refuse, fits
        self.batches: list[int] = []

    def personalize(self, requests: Sequence[PersonalizeRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        """The hash of photo and seed; the number of steps that a request got decides what is left of it."""
        on_step(Phase.VALIDATING, 0, 1)
        on_step(Phase.PREDICTING, 0, 1)
        self._work(requests, Phase.FINETUNING, on_step)
        return [self.refuse(request) or fake_adapter(request) for request in requests]

    def generate(self, requests: Sequence[GenerateRequest], on_step: OnStep) -> Sequence[Sequence[Picture] | Exception]:
        """One plain picture for each prompt."""
        self.holds |= {request.subject_id for request in requests}
        self._work(requests, Phase.GENERATING, on_step)
        return [self.refuse(request) or self._pictures(request) for request in requests]

    def remembered(self) -> Collection[UUID]:
        """Whoever was drawn."""
        return self.holds

    def forget(self, subjects: Collection[UUID]) -> None:
        """They go, and nobody else."""
        self.holds = self.holds - set(subjects)

    def _pictures(self, request: GenerateRequest) -> list[Picture]:
        prompts = [wanted.prompt for wanted in request.params.pictures]
        colours = (hashlib.sha256(request.adapter + prompt.encode()).digest()[:3] for prompt in prompts)
        images = (Image.new("RGB", (8, 8), tuple(colour)) for colour in colours)
        return [Picture(image, self.judge(prompt)) for prompt, image in zip(prompts, images, strict=True)]

    def _work(
        self, requests: Sequence[PersonalizeRequest] | Sequence[GenerateRequest], phase: Phase, on_step: OnStep
    ) -> None:
        self.batches.append(len(requests))
        if len(requests) > self.fits:
            raise OutOfGpuMemory
        for step in range(self.steps):
            on_step(phase, step, self.steps)
            self.between_steps(step)


def fake_adapter(request: PersonalizeRequest) -> bytes:
    """What the engine makes of a photo: a function of it and the seed alone."""
    pixels = b"".join(photo.tobytes() for photo in request.photos)
    return hashlib.sha256(pixels + request.seed.to_bytes(8, "big", signed=True)).digest()


def load_fake_engine(settings: Settings) -> FakeEngine:
    """For a worker in a process of its own: each step leaves a footprint, and waits while a test says so."""
    folder = Path(os.environ[FOLDER])

    def between_steps(step: int) -> None:
        (folder / f"step-{step}-{os.getpid()}").touch()
        while (folder / f"hold-{step}").exists():
            time.sleep(POLL_SECONDS)

    measured = 4
    batch_size = measured if settings.batch_size == "auto" else settings.batch_size
    return FakeEngine(between_steps=between_steps, batch_size=batch_size)
