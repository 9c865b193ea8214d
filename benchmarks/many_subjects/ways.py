"""Ways of serving many subjects, behind one shape, so that one clock can time them all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.many_subjects.orders import Order, face, random_adapters, resident_adapters
from benchmarks.many_subjects.settings import Method, Task
from hyperdreambooth.acceleration import choose_attention, compile_blocks
from hyperdreambooth.adapter import Adapter
from hyperdreambooth.attach import attach
from hyperdreambooth.diffusion import encode_tokens, sample, tokenize
from hyperdreambooth.finetune import Samples, draw_samples, fast_finetune
from hyperdreambooth.lidb import GroupedLiDB, LiDB
from hyperdreambooth.personalize import (
    Networks,
    at_rank_of,
    drawn_as,
    examples_of,
    generate,
    personalize_faces,
    predict,
    unpack,
)

Numbers = NDArray[np.float64]
Switch = Callable[[int], AbstractContextManager[object]]  # to a subject
UNPACKED_AT_ONCE = 100


class Way(ABC):
    """One method. What it can't do is not in `tasks`."""

    tasks: ClassVar[Sequence[Task]] = tuple(Task)

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.adapters: dict[int, Adapter] = {}

    def prepare(self, subjects: Sequence[int]) -> None:
        """Make these subjects' adapters, off the clock."""
        missing = sorted(set(subjects) - set(self.adapters))
        if missing:
            self.adapters |= dict(zip(missing, random_adapters(self.networks, missing), strict=True))

    def faces(self, subjects: Sequence[int]) -> list[Image.Image]:
        return [face(subject, size=self.networks.base_model.resolution) for subject in subjects]

    @abstractmethod
    def generate(self, orders: Sequence[Order]) -> list[Image.Image]:
        """One picture for each order."""

    def personalize(self, subjects: Sequence[int]) -> list[Numbers]:
        """Each subject's trained numbers."""
        raise NotImplementedError(f"{type(self).__name__} only draws")

    def finetuned(self, subjects: Sequence[int]) -> list[Numbers]:
        """The same before anything is rounded."""
        return self.personalize(subjects)

    def switches(self) -> Mapping[str, Switch]:
        """Ways to make the base model somebody's for the length of a `with`, and what distinguishes them."""
        return {}

    def filled(self, orders: Sequence[Order]) -> list[str]:
        return [self.networks.config.fill_prompt(order.prompt) for order in orders]


class Ours(Way):
    """The functions that the service calls."""

    def personalize(self, subjects: Sequence[int]) -> list[Numbers]:
        """As stored: rounded to fp16."""
        networks, photos = self.networks, [[portrait] for portrait in self.faces(subjects)]
        outcomes = personalize_faces(
            photos, networks, networks.config, seeds=list(subjects), report=lambda phase, step, total: None
        )
        adapters = [outcome for outcome in outcomes if isinstance(outcome, Adapter)]
        assert len(adapters) == len(subjects), outcomes
        return [np.concatenate([adapter.a_train, adapter.b_train], axis=1).astype(float) for adapter in adapters]

    def generate(self, orders: Sequence[Order]) -> list[Image.Image]:
        adapters = [self.adapters[order.subject] for order in orders]
        prompts, seeds = [order.prompt for order in orders], [order.seed for order in orders]
        return generate(self.networks, adapters, prompts, seeds=seeds, config=self.networks.config.sample)

    def finetuned(self, subjects: Sequence[int]) -> list[Numbers]:
        """What `personalize_faces` has before it packs."""
        networks, config = self.networks, self.networks.config
        photos = [[portrait] for portrait in self.faces(subjects)]
        examples = examples_of(networks.base_model, photos, config, config.finetune, seeds=list(subjects))
        lidb = at_rank_of(config.finetune, predict(networks, examples), examples.generators)
        return rows(fast_finetune(networks.base_model, lidb, examples, config.finetune))

    def keep_resident(self, count: int) -> None:
        """Adapters in memory, as a worker that has served so many."""
        adapters = resident_adapters(self.networks, count)
        self.adapters |= enumerate(adapters)
        for start in range(0, count, UNPACKED_AT_ONCE):
            unpack(self.networks, adapters[start : start + UNPACKED_AT_ONCE])

    def switches(self) -> Mapping[str, Switch]:
        return {"": self._attached, "alone": self._alone}

    def _attached(self, subject: int) -> AbstractContextManager[object]:
        """The base model as this subject's, in a batch that may hold others."""
        return attach(self.networks.base_model, self._unpacked(subject), subject_of_sample=self._nobody_else)

    def _alone(self, subject: int) -> AbstractContextManager[object]:
        """The same where a batch holds nobody else: in the weights, and out again."""
        return drawn_as(self.networks, self._unpacked(subject), self._nobody_else)

    def _unpacked(self, subject: int) -> GroupedLiDB:
        return unpack(self.networks, [self.adapters[subject]])

    @property
    def _nobody_else(self) -> Tensor:
        return torch.zeros(1, dtype=torch.long, device=self.networks.base_model.device)


class Base(Way):
    """Nobody's adapter: what strangers cost, to which the other methods add somebody's weights."""

    def personalize(self, subjects: Sequence[int]) -> list[Numbers]:
        """A finetuning with nothing to learn: each step forth, and back to the faces. The last step's gradients."""
        networks, finetune = self.networks, self.networks.config.finetune
        photos = [[portrait] for portrait in self.faces(subjects)]
        examples = examples_of(networks.base_model, photos, networks.config, finetune, seeds=list(subjects))
        embeddings = encode_tokens(networks.base_model, tokenize(networks.base_model, examples.prompts))
        gradient = examples.latents
        for step in range(finetune.steps):
            samples = draw_samples(networks.base_model, examples, finetune, step=step)
            gradient = self._gradient(samples, embeddings, together=finetune.noise_draws)
        return [own.flatten().double().cpu().numpy() for own in gradient.chunk(len(subjects))]

    def _gradient(self, samples: Samples, embeddings: Tensor, *, together: int) -> Tensor:
        latents, base_model = samples.latents.requires_grad_(), self.networks.base_model

        def of(part: slice) -> Tensor:
            return torch.autograd.grad(samples.losses(base_model, embeddings, part).sum(), latents)[0][part]

        return torch.cat(base_model.seating.in_parts(of, len(latents), latents.device, together=together))

    def generate(self, orders: Sequence[Order]) -> list[Image.Image]:
        networks, seeds = self.networks, [order.seed for order in orders]
        return sample(networks.base_model, self.filled(orders), seeds=seeds, config=networks.config.sample)


def rows(lidb: LiDB) -> list[Numbers]:
    """Each subject's train matrices as one array."""
    return list(torch.cat([lidb.a_train, lidb.b_train], dim=2).double().cpu().numpy())


def make_way(method: Method, networks: Networks, *, compiled: bool = False) -> Way:
    """diffusers and peft are imported for those that use them only."""
    match method:
        case Method.OURS | Method.BASE:
            choose_attention(networks.base_model)  # as the worker does
            if compiled:
                compile_blocks(networks.base_model)
            return Ours(networks) if method is Method.OURS else Base(networks)
        case _:
            from benchmarks.many_subjects.peft_ways import PEFT_WAYS

            return PEFT_WAYS[method](networks)
