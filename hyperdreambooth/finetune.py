"""Fast finetuning: a few dozen steps on the one face (paper, section 4.3), for a whole batch of subjects at once.

No operator of the UNet mixes samples, so S subjects with their own deltas and a SUMMED loss are S separate runs.
Whatever could couple them is kept apart: noise and timesteps, the gradient's clipping, the optimiser's moments and its
step counts, on a CPU in float32 even the rounding (`rounding.py`). Who is done, or no longer wanted, leaves the batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

from hyperdreambooth.acceleration import is_compiled
from hyperdreambooth.attach import Deltas, attach
from hyperdreambooth.bank import SubjectwiseAdam, clip_each, flatten, unflatten
from hyperdreambooth.config import FinetuneConfig
from hyperdreambooth.diffusion import BaseModel, encode_tokens, tokenize
from hyperdreambooth.layers import LayerKind, LayerTable
from hyperdreambooth.lidb import Factors, LiDB
from hyperdreambooth.losses import denoising_loss, head_weights, stratified_timesteps
from hyperdreambooth.rounding import in_blocks
from hyperdreambooth.seating import EVERYBODY, one_thread, parts_of

LOSS_MEMORY = 0.8  # of the running loss that early stopping looks at
# Called after each step with the step just done and the steps in all; may answer which subjects go on.
OnFinetuneStep = Callable[[int, int], Sequence[bool] | None]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a batch of subjects is finetuned on."""

    latents: Tensor  # [P, c, h, w]: the faces, subject after subject
    prompts: Sequence[str]  # "a photo of a [V] face"
    generators: Sequence[torch.Generator]  # each subject's own, on the CPU
    photo_counts: Sequence[int] = ()  # of each subject; one each if empty

    def chosen(self, *, draws: int, step: int) -> Tensor:
        """Which face each noise draw of a step looks at: [S * draws].

        A subject's photos take turns within a step, and from step to step at each part of the schedule.
        """
        counts = torch.tensor(self.photo_counts or [1] * len(self.prompts))
        turns = (torch.arange(draws) + step) % counts[:, None]
        chosen = (turns + (counts.cumsum(0) - counts)[:, None]).flatten()
        return chosen.to(self.latents.device, non_blocking=True)

    @property
    def faces(self) -> list[Tensor]:
        """Each subject's own [P, c, h, w]."""
        return list(torch.split(self.latents, list(self.photo_counts or [1] * len(self.prompts))))

    def of(self, rows: Sequence[int]) -> "Examples":
        """Some of the subjects."""
        faces = self.faces
        return Examples(
            torch.cat([faces[row] for row in rows]),
            [self.prompts[row] for row in rows],
            [self.generators[row] for row in rows],
            [len(faces[row]) for row in rows],
        )


@dataclass(frozen=True, eq=False)
class Prompts:
    """What each subject's pictures are said to be."""

    tokens: Tensor  # [S, T]
    fixed: Tensor | None  # their embeddings [S, T, d], where the text encoder has no target layers

    @classmethod
    def of(cls, base_model: BaseModel, table: LayerTable, texts: Sequence[str]) -> "Prompts":
        tokens = tokenize(base_model, texts)
        learns = any(LayerKind.of(layer.name) is LayerKind.TEXT for layer in table.layers)
        return cls(tokens, None if learns else encode_tokens(base_model, tokens))

    def rows(self, index: Tensor) -> "Prompts":
        return Prompts(self.tokens[index], None if self.fixed is None else self.fixed[index])

    def embeddings(self, base_model: BaseModel) -> Tensor:
        return encode_tokens(base_model, self.tokens) if self.fixed is None else self.fixed


@dataclass(eq=False)
class Flight:
    """The subjects whose finetuning is not over, with all that belongs to each."""

    places: list[int]  # in the caller's batch
    examples: Examples
    prompts: Prompts
    optimizer: SubjectwiseAdam
    configs: list[FinetuneConfig]
    rates: Tensor  # [steps, S]
    clip_norms: Tensor  # [S]
    running_losses: Tensor  # [S]
    exact: bool  # may nobody's neighbours be felt in the last bit?

    @classmethod
    def of(cls, base_model: BaseModel, lidb: LiDB, examples: Examples, configs: list[FinetuneConfig]) -> "Flight":
        numbers, steps = flatten(lidb), max(config.steps for config in configs)
        rates = [[learning_rate(step, config) for config in configs] for step in range(1, steps + 1)]
        return cls(
            list(range(lidb.subjects)),
            examples,
            Prompts.of(base_model, lidb.basis.table, examples.prompts),
            SubjectwiseAdam(numbers.clone()),
            configs,
            numbers.new_tensor(rates).view(steps, len(configs)),
            numbers.new_tensor([config.clip_norm for config in configs]),
            numbers.new_full((len(configs),), torch.inf),
            is_exact(base_model),
        )

    def keep(self, rows: list[int]) -> None:
        """Only these go on: the others cost nothing any more."""
        index = torch.tensor(rows, device=self.optimizer.numbers.device)
        self.places, self.configs = [self.places[row] for row in rows], [self.configs[row] for row in rows]
        self.examples, self.prompts = self.examples.of(rows), self.prompts.rows(index)
        self.optimizer.keep(index)
        self.rates, self.clip_norms = self.rates[:, index], self.clip_norms[index]
        self.running_losses = self.running_losses[index]

    def going_on(self, step: int, wanted: Sequence[bool] | None) -> list[int]:
        """Which rows still have steps to take, are wanted, and are not good enough yet."""
        rows = range(len(self.places))
        done = [self.configs[row].steps <= step or not (wanted is None or wanted[self.places[row]]) for row in rows]
        if any(config.stop_below for config in self.configs):  # only then: it waits for the GPU
            losses = self.running_losses.tolist()
            done = [done[row] or losses[row] < self.configs[row].stop_below for row in rows]
        return [row for row in rows if not done[row]]


def fast_finetune(
    base_model: BaseModel,
    lidb: LiDB,
    examples: Examples,
    config: FinetuneConfig | Sequence[FinetuneConfig],
    *,
    on_step: OnFinetuneStep | None = None,
) -> LiDB:
    """Train nothing but the train matrices. A subject's result depends on its own face, prompt and generator alone, to
    the precision that decision 11 tells.

    Configs may differ between subjects in all but what a step looks at: `noise_draws` and `background_weight`.
    """
    configs = [config] * lidb.subjects if isinstance(config, FinetuneConfig) else list(config)
    assert len({(own.noise_draws, own.background_weight) for own in configs}) == 1, configs
    finished, total = flatten(lidb), max(own.steps for own in configs)
    with each_by_itself(base_model, draws=configs[0].noise_draws):
        flight = Flight.of(base_model, lidb, examples, configs)
        for step in range(1, total + 1):
            losses = take_step(base_model, flight, lidb, step)
            flight.running_losses = torch.where(
                flight.running_losses.isinf(), losses, torch.lerp(losses, flight.running_losses, LOSS_MEMORY)
            )
            rows = flight.going_on(step, on_step(step, total) if on_step is not None else None)
            if len(rows) < len(flight.places):
                finished[flight.places] = flight.optimizer.numbers.detach()
                if not rows:
                    break
                flight.keep(rows)
    return unflatten(finished, lidb)


@contextmanager
def each_by_itself(base_model: BaseModel, *, draws: int) -> Iterator[None]:
    """On a CPU a subject's rows have in each layer the bits that they have without the others.

    Not in bfloat16, which is asked for to be fast, nor in compiled blocks, which have kernels of their own.
    """
    if not is_exact(base_model):
        yield
        return
    with in_blocks(base_model.unet, draws // teams_of(draws)), in_blocks(base_model.text_encoder, 1):
        yield


def is_exact(base_model: BaseModel) -> bool:
    """Whether nobody's neighbours may be felt in the last bit."""
    return base_model.device.type == "cpu" and base_model.dtype != torch.bfloat16 and not is_compiled(base_model)


def teams_of(draws: int) -> int:
    """Into how many teams a subject's noise draws are cut, each computed by one thread: two cores for one subject.

    In a batch as alone, since a sum over two teams has other bits than one over all. One row alone is no team: some
    kernels treat it in another way.
    """
    return 2 if draws % 2 == 0 and draws > 2 else 1


def take_step(base_model: BaseModel, flight: Flight, like: LiDB, step: int) -> Tensor:
    """One step of everybody in flight; their losses [S] before it."""
    numbers, config = flight.optimizer.numbers.requires_grad_(), flight.configs[0]
    samples = draw_samples(base_model, flight.examples, config, step=step)
    in_parts = parts_of(len(samples.latents), numbers.device, together=config.noise_draws) > 1
    if in_parts or flight.exact:
        losses, gradient = gradients_in_parts(base_model, numbers, like, samples, flight.prompts, exact=flight.exact)
    else:
        losses, gradient = gradients(base_model, numbers, like, samples, flight.prompts)
    flight.optimizer.step(clip_each(gradient, flight.clip_norms), learning_rates=flight.rates[step - 1])
    return losses


@dataclass(frozen=True, eq=False)
class Samples:
    """The noisy faces of one step, subject after subject."""

    latents: Tensor  # [B, c, h, w]
    noise: Tensor
    timesteps: Tensor  # [B]
    weights: Tensor  # [h, w]

    def losses(self, base_model: BaseModel, embeddings: Tensor, part: slice = EVERYBODY) -> Tensor:
        """The denoising loss of each: [B]. `embeddings` [S, T, d] of each subject's prompt."""
        embeddings = embeddings.repeat_interleave(len(self.latents) // len(embeddings), dim=0)
        return denoising_loss(
            base_model,
            self.latents[part],
            embeddings[part],
            timesteps=self.timesteps[part],
            noise=self.noise[part],
            weights=self.weights,
        )


def draw_samples(base_model: BaseModel, examples: Examples, config: FinetuneConfig, *, step: int) -> Samples:
    """Each subject's faces, timesteps and noise, from its own generator."""
    generators, draws, device = examples.generators, config.noise_draws, examples.latents.device
    latents = examples.latents.index_select(0, examples.chosen(draws=draws, step=step))
    timestep_count = base_model.scheduler.config.num_train_timesteps
    timesteps = torch.cat([stratified_timesteps(draws, timestep_count, generator) for generator in generators])
    shape = (draws, *latents.shape[1:])
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    weights = head_weights(latents, background=config.background_weight)
    # Without waiting for the GPU: it still works on the step before.
    noise = noise.to(device, latents.dtype, non_blocking=True)
    return Samples(latents, noise, timesteps.to(device, non_blocking=True), weights)


def subject_losses(base_model: BaseModel, deltas: Deltas, samples: Samples, prompts: Prompts) -> Tensor:
    """The denoising loss of each subject, averaged over its own noise draws: [S]."""
    with attach(base_model, deltas):
        losses = samples.losses(base_model, prompts.embeddings(base_model))
    return losses.view(deltas.subjects, -1).mean(dim=1)


@dataclass(frozen=True, eq=False)
class Expanded:
    """Deltas whose factors are there already, in the base model's dtype."""

    subjects: int
    by_layer: Factors

    def factors(self, dtype: torch.dtype | None = None) -> Factors:
        return self.by_layer


def gradients(
    base_model: BaseModel, numbers: Tensor, like: LiDB, samples: Samples, prompts: Prompts
) -> tuple[Tensor, Tensor]:
    """Each subject's loss [S] and gradient [S, numbers], not exact."""
    losses = subject_losses(base_model, unflatten(numbers, like), samples, prompts)
    return losses.detach(), torch.autograd.grad(losses.sum(), numbers)[0]


def gradients_in_parts(
    base_model: BaseModel, numbers: Tensor, like: LiDB, samples: Samples, prompts: Prompts, *, exact: bool
) -> tuple[Tensor, Tensor]:
    """The same, with parts of the batch on cores of their own; `exact` as `is_exact` has it.

    The factors of all layers are expanded once, and so are the prompts; each part differentiates the UNet down to
    these, and their gradients go the rest of the way together. Each team of a subject's noise draws has a copy
    of both.
    """
    subjects, batch = numbers.shape[0], len(samples.latents)
    draws = batch // subjects
    teams = teams_of(draws) if exact else 1
    factors = unflatten(numbers, like).factors(base_model.dtype)
    with attach(base_model, Expanded(subjects, factors)):
        embeddings = prompts.embeddings(base_model)
    inside = {name: pair for name, pair in factors.items() if name.startswith("unet.")}
    own = {name: (_from_here(up, teams), _from_here(down, teams)) for name, (up, down) in inside.items()}
    ends, starts = list(chain(*inside.values())), list(chain(*own.values()))
    if embeddings.requires_grad:  # else the text encoder has no target layers
        ends, embeddings = [*ends, embeddings], _from_here(embeddings, teams)
        starts.append(embeddings)

    def of(part: slice) -> tuple[Tensor, Sequence[Tensor]]:
        losses, own_teams = samples.losses(base_model, embeddings, part), base_model.seating.subjects
        everybodys = torch.autograd.grad(losses.sum() / draws, starts)
        return losses.detach(), [gradient[own_teams] for gradient in everybodys]  # the others' are zero

    exact_alone = one_thread() if exact and batch == draws // teams else nullcontext()
    with attach(base_model, Expanded(subjects * teams, own)), exact_alone:
        parts = base_model.seating.in_parts(of, batch, numbers.device, together=draws // teams)
        losses, of_parts = zip(*parts, strict=True)
    by_team = [torch.cat(pieces) for pieces in zip(*of_parts, strict=True)]
    if teams > 1:
        by_team = [own.view(subjects, teams, *own.shape[1:]).sum(dim=1) for own in by_team]
    (gradient,) = torch.autograd.grad(ends, numbers, by_team)
    return torch.cat(losses).view(subjects, -1).mean(dim=1), gradient


def _from_here(numbers: Tensor, copies: int) -> Tensor:
    """The same numbers [S * copies, ...], as the beginning of a graph of their own."""
    return numbers.detach().repeat_interleave(copies, dim=0).requires_grad_()


class Schedule(Protocol):
    """What a learning rate depends on beside the step."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def final_learning_rate(self) -> float: ...  # a share of the peak
    @property
    def warmup_steps(self) -> int: ...


def learning_rate(step: int, config: Schedule) -> float:
    """Linear warm-up, then a cosine down to a share of the peak. Steps count from 1."""
    warmup = min(1.0, step / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * (step - 1) / config.steps))
    return config.learning_rate * warmup * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)
