"""The networks of a GPU process, loaded once. The only file here that imports torch, and that names CUDA."""

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TypeVar
from uuid import UUID

import structlog
import torch
from PIL import Image

from core.lifecycle import Phase
from core.schemas import Method, Verdict
from core.settings import Acceleration, Settings
from hyperdreambooth.acceleration import choose_attention, compile_blocks, quick_dtype
from hyperdreambooth.adapter import Adapter
from hyperdreambooth.batch_size import find_batch_size
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import base_model_folder, latent_shape, tokenize
from hyperdreambooth.errors import AdapterError, PersonalizeError, UnsuitableSize
from hyperdreambooth.personalize import Networks, check_fits, generate, load_networks, personalize
from hyperdreambooth.resident import RecentFiles
from hyperdreambooth.safety import SafetyChecker, load_safety_checker
from worker.attempts import OnStep
from worker.failures import OutOfGpuMemory, PromptTooLong
from worker.generate import GenerateRequest, Picture
from worker.model_source import model_source
from worker.personalize import PersonalizeRequest
from worker.presence import Serves

PICTURES_AT_ONCE = 16

Key = TypeVar("Key")
Item = TypeVar("Item")
log = structlog.get_logger()


@dataclass(frozen=True)
class Order:
    """One picture of somebody's generation."""

    owner: int  # which request of the batch
    place: int  # which of its pictures
    adapter: Adapter
    prompt: str
    seed: int
    config: SampleConfig

    @property
    def likeness(self) -> tuple[int, int, int]:
        """Orders of neighbouring likeness waste least of each other's denoising loop: size, then steps."""
        return (self.config.width or 0, self.config.height or 0, self.config.steps)


class Engine:
    """Personalises and draws for a batch of requests; each gets its own result or error."""

    def __init__(
        self, networks: Networks, *, base_model: str, batch_size: int, safety_checker: SafetyChecker | None = None
    ) -> None:
        self._networks, self._safety_checker = networks, safety_checker
        self._prompt_tokens = tokenize(networks.base_model, [""]).shape[1]
        self._pictures_at_once = PICTURES_AT_ONCE
        self._adapters = RecentFiles[UUID](networks.resident)
        has_hypernetwork = networks.hypernetwork is not None
        self.serves = Serves(base_model, networks.base_model.weights_hash, has_hypernetwork, batch_size)

    def personalize(self, requests: Sequence[PersonalizeRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        """Photos to adapter files. Requests of one method are one batch."""
        results: dict[int, bytes | Exception] = {}
        for method, members in grouped([request.method for request in requests]).items():
            own_results = self._personalize([requests[index] for index in members], method, among(on_step, members))
            results |= zip(members, own_results, strict=True)
        return [results[index] for index in range(len(requests))]

    def generate(self, requests: Sequence[GenerateRequest], on_step: OnStep) -> Sequence[Sequence[Picture] | Exception]:
        """Adapters and prompts to pictures. What does not fit into memory is drawn again, fewer at once."""
        while True:
            try:
                return self._generate(requests, on_step)
            except OutOfGpuMemory:
                if self._pictures_at_once == 1:
                    raise
                self._pictures_at_once //= 2
                log.warning("engine.pictures_halved", at_once=self._pictures_at_once)

    def remembered(self) -> Collection[UUID]:
        """Whose weights are on the device, ready for the next drawing."""
        return self._adapters.owners()

    def forget(self, subjects: Collection[UUID]) -> None:
        """Theirs go, and those that nobody asked for lately."""
        self._adapters.forget(subjects)

    def _generate(
        self, requests: Sequence[GenerateRequest], on_step: OnStep
    ) -> Sequence[Sequence[Picture] | Exception]:
        """All pictures are one queue, whoever is in them and however they are drawn."""
        refused: dict[int, Exception] = {}
        orders: list[Order] = []
        for owner, request in enumerate(requests):
            try:
                orders += self._orders(request, owner)
            except (AdapterError, PromptTooLong, UnsuitableSize) as error:
                refused[owner] = error
        pictures = dict(self._draw_all(sorted(orders, key=lambda order: order.likeness), on_step))
        in_order = [order for order in orders if order in pictures]
        drawn = grouped([order.owner for order in in_order])
        return [
            refused.get(owner) or [pictures[in_order[index]] for index in drawn.get(owner, ())]
            for owner in range(len(requests))
        ]

    def _personalize(
        self, requests: Sequence[PersonalizeRequest], method: Method, on_step: OnStep
    ) -> list[bytes | Exception]:
        networks = self._networks
        if method is Method.LIDB:
            networks = replace(networks, hypernetwork=None, hypernetwork_hash=None)
        with memory_watched():
            outcomes = personalize(
                [request.photos for request in requests],
                networks,
                networks.config,
                seeds=[request.seed for request in requests],
                on_progress=lambda phase, step, total: on_step(Phase(phase), step, total),
            )
        return [outcome if isinstance(outcome, PersonalizeError) else outcome.to_bytes() for outcome in outcomes]

    def _orders(self, request: GenerateRequest, owner: int) -> list[Order]:
        """What is to be drawn, and how; AdapterError, PromptTooLong or UnsuitableSize if it can't be."""
        networks, params = self._networks, request.params
        adapter = self._adapters.read(request.adapter, request.subject_id)
        check_fits(networks, adapter)
        own = networks.config.sample
        config = SampleConfig(
            steps=params.steps or own.steps,
            guidance=own.guidance if params.guidance is None else params.guidance,
            negative_prompt=params.negative_prompt or own.negative_prompt,
            width=params.width or own.width,
            height=params.height or own.height,
        )
        latent_shape(networks.base_model, config)
        prompts = (networks.config.fill_prompt(wanted.prompt) for wanted in params.pictures)
        for prompt in (config.negative_prompt, *prompts):
            self._check_length(prompt)
        return [
            Order(owner, place, adapter, wanted.prompt, wanted.seed, config)
            for place, wanted in enumerate(params.pictures)
        ]

    def _check_length(self, prompt: str) -> None:
        tokens = len(self._networks.base_model.tokenizer(prompt).input_ids)
        if tokens > self._prompt_tokens:
            raise PromptTooLong(f"{tokens} tokens, and the text encoder reads {self._prompt_tokens} of them at most")

    def _draw_all(self, orders: Sequence[Order], on_step: OnStep) -> Iterator[tuple[Order, Picture]]:
        """A few pictures at once; whose pictures nobody wants any more are left out."""
        parts = in_parts(orders, self._pictures_at_once)
        lengths = [loop_steps(part) for part in parts]
        for part, done in zip(parts, accumulate(lengths, initial=0), strict=False):
            wanted = on_step(Phase.GENERATING, done, sum(lengths))
            still_wanted = [order for order in part if wanted[order.owner]]
            yield from self._draw(still_wanted, partial(report_step, on_step, done, sum(lengths)))

    def _draw(self, orders: Sequence[Order], on_step: Callable[[int, int], None]) -> Iterator[tuple[Order, Picture]]:
        if not orders:
            return
        with memory_watched():
            images = generate(
                self._networks,
                [order.adapter for order in orders],
                [order.prompt for order in orders],
                seeds=[order.seed for order in orders],
                config=[order.config for order in orders],
                on_step=on_step,
            )
            blocked = self._safety_checker(images) if self._safety_checker else [False] * len(images)
        for order, image, is_blocked in zip(orders, images, blocked, strict=True):
            yield order, Picture(image, Verdict.BLOCKED if is_blocked else self._look(image))

    def _look(self, image: Image.Image) -> Verdict:
        return Verdict.OK if self._networks.face_detector(image) else Verdict.NO_FACE


def load_engine(settings: Settings) -> Engine:
    """Everything that the process needs to work, on its device."""
    device = pick_device(settings.device)
    # bfloat16 has float32's range: nothing overflows, and what is trained stays in float32.
    in_bfloat16 = device.type == "cuda" or settings.acceleration is Acceleration.BFLOAT16
    dtype = torch.bfloat16 if in_bfloat16 else torch.float32
    if in_bfloat16 and quick_dtype(device) is not torch.bfloat16:
        log.warning(
            "engine.bfloat16_is_slow",
            reason="this processor is not known to have instructions for it: float32 may be faster",
        )
    source = model_source(settings)
    log.info("engine.loading", base_model=source, device=str(device))
    networks = load_networks(source, device=device, dtype=dtype)
    choose_attention(networks.base_model)
    safety_checker = load_safety_checker(base_model_folder(source), device=device)
    batch_size = measured_batch_size(networks) if settings.batch_size == "auto" else settings.batch_size
    if settings.acceleration is Acceleration.COMPILE:
        if device.type == "cuda":
            compile_blocks(networks.base_model)  # last: no batch of the measuring is worth compiling for
        else:
            log.warning("engine.not_compiled", reason="compiled blocks gain nothing on a processor")
    log.info("engine.loaded", safety_checker=safety_checker is not None, batch_size=batch_size)
    return Engine(networks, base_model=settings.model_name, batch_size=batch_size, safety_checker=safety_checker)


def measured_batch_size(networks: Networks) -> int:
    """How many jobs are best run together here; the log says why."""
    began, found = time.monotonic(), find_batch_size(networks)
    measured = [
        {"subjects": one.subjects, "seconds": round(one.seconds, 4), "megabytes": round(one.memory / 2**20)}
        for one in found.measured
    ]
    seconds = round(time.monotonic() - began, 3)
    log.info("engine.batch_size", batch_size=found.batch_size, end=found.end, seconds=seconds, measured=measured)
    return found.batch_size


def pick_device(wanted: str) -> torch.device:
    """`auto` takes a GPU if there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


@contextmanager
def memory_watched() -> Iterator[None]:
    """Torch's out-of-memory becomes ours, once the memory of what failed is free again."""
    try:
        yield
    except torch.OutOfMemoryError:
        is_out = True
    else:
        is_out = False
    if is_out:
        gc.collect()
        torch.cuda.empty_cache()
        raise OutOfGpuMemory


def loop_steps(orders: Sequence[Order]) -> int:
    """What `generate` will count to, or nearly: some schedulers take a step more than they are asked for."""
    sizes: dict[tuple[int, int], int] = {}
    for order in orders:
        width, height, steps = order.likeness
        sizes[width, height] = max(steps, sizes.get((width, height), 0))
    return sum(sizes.values())


def report_step(on_step: OnStep, done: int, total: int, step: int, _: int) -> None:
    """One batch's step as a step of all of them."""
    on_step(Phase.GENERATING, min(done + step, total), total)


def among(on_step: OnStep, members: Sequence[int]) -> OnStep:
    """The same question for some of a batch."""

    def ask(phase: Phase, step: int, total: int) -> Sequence[bool]:
        wanted = on_step(phase, step, total)
        return [wanted[index] for index in members]

    return ask


def grouped(keys: Sequence[Key]) -> dict[Key, list[int]]:
    """Which places hold which key."""
    places: dict[Key, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        places[key].append(index)
    return places


def in_parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """As many as fit, and the rest."""
    return [items[start : start + size] for start in range(0, len(items), size)]
