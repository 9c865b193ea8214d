"""Train the hypernetwork of `mini`: `python -m hyperdreambooth.recipes.train_hypernetwork`.

On weights that were fitted to people (`fit_people.py`), the paper's second loss alone: a face's latents have to predict
where the first steps of its finetuning lead. The denoising loss needs a hundred times as long to teach less of it
(docs/experiments.md, "What a prediction has to be told"). Resumable.
"""

import copy
import math
from dataclasses import dataclass, field
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn

from hyperdreambooth.acceleration import quick_products
from hyperdreambooth.attach import attach, aux_basis
from hyperdreambooth.bank import flatten
from hyperdreambooth.basis import load_learned
from hyperdreambooth.config import HypernetworkConfig, SampleConfig, load_personalize_config
from hyperdreambooth.diffusion import BaseModel, decode_latents, load_base_model, sample
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, load_hypernetwork, save_hypernetwork
from hyperdreambooth.lidb import AuxBasis
from hyperdreambooth.portraits.captions import STYLE_PHRASES
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.fit_people import HELD_OUT, FittedPeople, load_fitted_people
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.sheets import save_sheet
from hyperdreambooth.recipes.stage import StageConfig
from hyperdreambooth.recipes.train_base import update_average
from hyperdreambooth.training.fit import fitted_lidb

SHEET_PEOPLE = 8
SHEET_STYLES = (Style.PHOTO, Style.PHOTO, Style.PENCIL_SKETCH, Style.OIL_PAINTING)


@dataclass(frozen=True, kw_only=True)
class TrainHypernetworkConfig(StageConfig):
    """Steps are what the shipped weights took: with 3 100 people, more explain less of others. Numbers are ours.

    What explains a third of how people differ stays near their mean. The exported prediction goes `gain` times as far
    from it, which shows more of the person at no cost (docs/experiments.md, "How far the teacher goes").
    """

    hypernetwork: HypernetworkConfig = field(default_factory=lambda: HypernetworkConfig(rank=8))
    steps: int = 500
    batch: int = 128
    learning_rate: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    warmup_steps: int = 50
    flat_share: float = 0.1
    average_decay: float = 0.995
    gain: float = 1.5


def main(config: TrainHypernetworkConfig) -> None:
    """Train, and export into the base model's folder now and then, and at the end."""
    folder = config.folder / config.base
    base_model = load_base_model(str(folder), device=config.device, dtype=torch.float32)
    everybody = load_fitted_people(config)
    if len(everybody.numbers) <= HELD_OUT:
        raise ValueError(f"{len(everybody.numbers)} fitted people are too few: {HELD_OUT} are held out")
    people, held_out = everybody.rows(slice(HELD_OUT, None)), everybody.rows(slice(HELD_OUT))
    basis = aux_basis(base_model, load_personalize_config(folder).lidb, load_learned(folder))
    hypernetwork = untrained(config, base_model, basis, people)
    averaged = copy.deepcopy(hypernetwork)
    adam = torch.optim.AdamW(
        hypernetwork.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    # Named after the base model's weights: a hypernetwork half trained for others is no start.
    path = config.folder / f"hypernetwork-{base_model.weights_hash[:12]}.pt"
    checkpoint = Checkpoint(path, networks=[hypernetwork, averaged], optimizers=[adam])
    budget = config.budget()
    budget.resume(checkpoint.load())
    progress = Progress(FOLDER, total=config.steps, every=30, done=budget.steps)
    gradients = Gradients(list(hypernetwork.parameters()), threads=config.threads)
    loss_of = partial(_part_loss, hypernetwork)
    smooth = float("nan")
    while budget.left():
        set_learning_rate([adam], budget.factor())
        loss = gradients(loss_of, config.parts(random_batch(people, config, budget.generator(config.seed))))
        nn.utils.clip_grad_norm_(hypernetwork.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
        budget.advance()
        progress.advance(loss=smooth)
        update_average([averaged], [hypernetwork], min(config.average_decay, budget.steps / (budget.steps + 20)))
        if budget.every(minutes=4):
            checkpoint.save(budget.state())
            report(base_model, averaged, held_out, config)
    checkpoint.save(budget.state())
    report(base_model, averaged, held_out, config)
    budget.check_spent()


def untrained(
    config: TrainHypernetworkConfig, base_model: BaseModel, basis: AuxBasis, people: FittedPeople
) -> Hypernetwork:
    """As it is before the first step: another's weights, or random ones that speak of what these people differ in."""
    if config.start and (config.start / FOLDER).exists():
        started = load_hypernetwork(config.start / FOLDER, basis).train().requires_grad_(True)
        started.unit.div_(config.gain)
        return started
    hypernetwork = Hypernetwork(config.hypernetwork, basis, base_model.latent_shape).to(config.device)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(config.seed))
    hypernetwork.start_from(fitted_lidb(people.numbers, basis))
    return hypernetwork


def random_batch(
    people: FittedPeople, config: TrainHypernetworkConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some people's latents, of the photo or its mirror image, and their numbers."""
    rows = torch.randint(len(people.numbers), (config.batch,), generator=generator)
    mirrored = torch.randint(people.latents.shape[1], (config.batch,), generator=generator)
    return people.latents[rows, mirrored].float(), people.numbers[rows].float()


def unexplained(hypernetwork: Hypernetwork, latents: Tensor, numbers: Tensor) -> Tensor:
    """‖θ_k - θ_fitted‖² after each pass k, averaged over subjects and numbers, in units of how far people differ: [k].

    1 is a prediction that says the same of everybody, 0 a finetuning that nobody needs any more.
    """
    with quick_products(latents.device):
        passes = torch.stack([flatten(lidb) for lidb in hypernetwork.each_pass(latents)])
    return (passes.float() - numbers).square().mean(dim=(1, 2)) / hypernetwork.unit**2


def _part_loss(hypernetwork: Hypernetwork, part: tuple[Tensor, ...]) -> Tensor:
    return unexplained(hypernetwork, *part).mean()


@torch.no_grad()
def report(
    base_model: BaseModel, hypernetwork: Hypernetwork, held_out: FittedPeople, config: TrainHypernetworkConfig
) -> None:
    """Export; print how much it explains of held-out people after each pass; draw a sheet of them."""
    further = copy.deepcopy(hypernetwork)
    further.unit.mul_(config.gain)
    save_hypernetwork(further, config.folder / config.base / FOLDER)
    latents, numbers = held_out.latents[:, 0].float().to(config.device), held_out.numbers.float().to(config.device)
    explained = "  ".join(f"{1 - share:.3f}" for share in unexplained(hypernetwork, latents, numbers).tolist())
    say(f"{FOLDER}  explains of the fitted weights of held-out people, after each pass: {explained}")
    sheet = draw_sheet(base_model, further, latents[:SHEET_PEOPLE])
    save_sheet(sheet, config.folder / "hypernetwork.png", columns=SHEET_PEOPLE)


def draw_sheet(base_model: BaseModel, hypernetwork: Hypernetwork, latents: Tensor) -> list[Image.Image]:
    """Some people, row by row: the photo through the autoencoder, then as drawn with the prediction."""
    sheet = decode_latents(base_model, latents)
    # Guidance doubles the batch: the halves repeat the people, they don't continue them.
    with attach(base_model, hypernetwork(latents), subject_of_sample=torch.arange(len(latents), device=latents.device)):
        for row, style in enumerate(SHEET_STYLES):
            seeds = range(100 * row, 100 * row + len(latents))
            prompts = [STYLE_PHRASES[style][0].format("a [V] face")] * len(latents)
            sheet += sample(base_model, prompts, seeds=seeds, config=SampleConfig(guidance=2.5))
    return sheet


if __name__ == "__main__":
    main(TrainHypernetworkConfig())
