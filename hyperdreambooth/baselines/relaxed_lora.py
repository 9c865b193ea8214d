"""The paper's own form of rank relaxation (section 4.3): the prediction merged into W, a fresh LoRA trained on top.

Ours (`lidb.relax_rank`) stays inside the aux basis; this one costs r (n + m) numbers a layer instead of r (a + b).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperdreambooth.attach import attach
from hyperdreambooth.bank import SubjectwiseAdam, clip_each
from hyperdreambooth.baselines.personalized import file_size
from hyperdreambooth.config import FinetuneConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.finetune import Examples, Prompts, draw_samples, learning_rate, subject_losses
from hyperdreambooth.lidb import Factors, LiDB, to_taps


@dataclass(frozen=True, eq=False)
class RelaxedLora:
    """ΔW = prediction + up^T down, both low-rank: merging adds the same numbers, but would change W."""

    prediction: LiDB
    fresh: Factors  # by layer: up [S, r, n] and down [S, r, m]
    subject: str

    @property
    def subjects(self) -> int:
        return self.prediction.subjects

    def factors(self, dtype: torch.dtype | None = None) -> Factors:
        wanted = dtype or self.prediction.a_train.dtype
        return {
            name: (
                torch.cat([up, self.fresh[name][0]], dim=1).to(wanted),
                torch.cat([down, self.fresh[name][1]], dim=1).to(wanted),
            )
            for name, (up, down) in self.prediction.factors().items()
        }

    @property
    def stored_bytes(self) -> int:
        ups = {f"{name}.up": up for name, (up, _) in self.fresh.items()}
        downs = {f"{name}.down": down for name, (_, down) in self.fresh.items()}
        return file_size({**ups, **downs, "a_train": self.prediction.a_train, "b_train": self.prediction.b_train})

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return attach(base_model, self)


def relaxed_lora(
    base_model: BaseModel, prediction: LiDB, examples: Examples, config: FinetuneConfig, *, subject: str
) -> RelaxedLora:
    """`fast_finetune` on fresh factors, all in one flat tensor [S, numbers]."""
    prompts = Prompts.of(base_model, prediction.basis.table, examples.prompts)
    numbers = _start(prediction, config.rank, examples.generators).requires_grad_()
    optimizer = SubjectwiseAdam(numbers)
    everybody = numbers.new_ones(prediction.subjects)
    for step in range(1, config.steps + 1):
        deltas = RelaxedLora(prediction, _factors(numbers, prediction, config.rank), subject)
        losses = subject_losses(base_model, deltas, draw_samples(base_model, examples, config, step=step), prompts)
        gradient = clip_each(torch.autograd.grad(losses.sum(), numbers)[0], config.clip_norm * everybody)
        optimizer.step(gradient, learning_rates=learning_rate(step, config) * everybody)
    return RelaxedLora(prediction, _factors(numbers.detach(), prediction, config.rank), subject)


def _start(prediction: LiDB, rank: int, generators: Sequence[torch.Generator]) -> Tensor:
    """up = 0 and down as LoRA has it (uniform, Kaiming), so that ΔW starts as the prediction. Layer after layer."""
    subjects = []
    for generator in generators:
        parts = []
        for layer in prediction.basis.table.layers:
            down = (torch.rand(rank, layer.m, generator=generator) * 2 - 1) * layer.m**-0.5
            parts += [torch.zeros(rank * layer.n), (to_taps(down) if layer.is_convolution else down).flatten()]
        subjects.append(torch.cat(parts))
    return torch.stack(subjects).to(prediction.a_train)


def _factors(numbers: Tensor, prediction: LiDB, rank: int) -> Factors:
    layers, start, factors = prediction.basis.table.layers, 0, {}
    for layer in layers:
        middle, stop = start + rank * layer.n, start + rank * (layer.n + layer.m)
        up, down = numbers[:, start:middle], numbers[:, middle:stop]
        factors[layer.name] = (up.view(-1, rank, layer.n), down.view(-1, rank, layer.m))
        start = stop
    return factors
