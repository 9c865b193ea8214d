"""Train the hypernetwork of a base model on faces: `hdb train hypernetwork BASE_MODEL PICTURES`.

    L = alpha ‖ε̂(z_t; W + ΔW(face)) - ε‖² + beta ‖θ(face) - θ_fitted‖²          (paper, section 4.2)

The face predicts weights that have to denoise pictures of the same person; where a person has several, other ones than
the face that was looked at. With beta = 0, the default, nothing has to be fitted beforehand.
"""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperdreambooth.attach import attach, aux_basis
from hyperdreambooth.bank import flatten
from hyperdreambooth.basis import load_learned
from hyperdreambooth.config import load_personalize_config
from hyperdreambooth.diffusion import BaseModel, base_model_folder, encode_tokens, load_base_model, tokenize
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, save_hypernetwork
from hyperdreambooth.lidb import AuxBasis, LiDB
from hyperdreambooth.losses import denoising_loss, stratified_timesteps
from hyperdreambooth.recipes.progress import say
from hyperdreambooth.training.averages import Average
from hyperdreambooth.training.config import HypernetworkRunConfig
from hyperdreambooth.training.fit import fitted_lidb, load_fitted
from hyperdreambooth.training.pictures import NoPictures, Pictures, prepare_pictures
from hyperdreambooth.training.run import Run, open_run, show_sheet
from hyperdreambooth.training.validation import REFERENCE_SIZE, Validation

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class PredictedLoss(nn.Module):
    """The hypernetwork with the loss it is trained on, as one module: what accelerate wraps."""

    def __init__(self, hypernetwork: Hypernetwork, base_model: BaseModel, prompt: str) -> None:
        super().__init__()
        self.hypernetwork = hypernetwork
        self._base_model, self._tokens = base_model, tokenize(base_model, [prompt])

    def forward(
        self, faces: Tensor, latents: Tensor, timesteps: Tensor, noise: Tensor, fitted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Denoising and weight-space loss of each subject: [S], [S]. `fitted` [S, 0] asks for no second one."""
        lidb = self.hypernetwork(faces)  # their latents
        with attach(self._base_model, lidb):
            embeddings = encode_tokens(self._base_model, self._tokens.expand(lidb.subjects, -1))
            embeddings = embeddings.repeat_interleave(len(latents) // lidb.subjects, dim=0)
            losses = denoising_loss(self._base_model, latents, embeddings, timesteps=timesteps, noise=noise)
        return losses.view(lidb.subjects, -1).mean(dim=1), weight_space_loss(lidb, fitted)


def weight_space_loss(lidb: LiDB, fitted: Tensor) -> Tensor:
    """‖θ - θ_fitted‖² / numbers of each subject: [S]; zero where nothing was fitted, `fitted` [S, 0]."""
    if fitted.shape[1] == 0:
        return fitted.new_zeros(lidb.subjects)
    return F.mse_loss(flatten(lidb), fitted, reduction="none").mean(dim=1)


def main(config: HypernetworkRunConfig) -> None:
    """Train, validate and show samples now and then, export the base model's folder with its hypernetwork."""
    run = open_run(config)
    source = base_model_folder(config.base_model)
    wishes = load_personalize_config(source)
    base_model = load_base_model(config.base_model, device=run.accelerator.device, dtype=torch.float32)
    size = min(base_model.resolution, REFERENCE_SIZE)
    with run.accelerator.main_process_first():
        pictures = prepare_pictures(config.pictures, base_model, config.folder / "cache", size=size, faces=True)
    basis = aux_basis(base_model, wishes.lidb, load_learned(source))
    fitted = load_fitted(Path(config.fitted)) if config.beta else {}
    check_people(pictures, fitted, config)
    check_fitted(fitted, config.hypernetwork.rank, basis)
    hypernetwork = Hypernetwork(config.hypernetwork, basis, base_model.latent_shape)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(config.seed))
    hypernetwork.to(base_model.device)
    if fitted:
        hypernetwork.start_from(fitted_lidb([fitted[name] for name, _ in pictures.people[config.held_out :]], basis))
    average = Average(hypernetwork, decay=config.average_decay)
    adam = torch.optim.AdamW(hypernetwork.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    predicted_loss = PredictedLoss(hypernetwork, base_model, wishes.fill_prompt(wishes.instance_prompt))
    network, adam = run.accelerator.prepare(predicted_loss, adam)
    run.accelerator.register_for_checkpointing(average)
    run.resume()
    validation = Validation(base_model, wishes, pictures, slice(config.held_out))

    @torch.no_grad()
    def show(step: int) -> None:
        with average.applied_to(hypernetwork):
            figures, sheet = validation(hypernetwork(validation.latents))
        run.note(**figures)
        show_sheet(run.accelerator, config.folder, "validation", sheet, step=step)
        say("hypernetwork  " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
        (config.folder / "figures.json").write_text(json.dumps({"step": step, **figures}, indent=2) + "\n")

    for _ in run.steps("hypernetwork", show):
        batch = draw_batch(pictures, base_model, fitted, config, run)
        denoising, weight_space = (losses.mean() for losses in network(*batch))
        loss = config.alpha * denoising + config.beta * weight_space
        run.optimize(adam, network, loss)
        average.update(hypernetwork)
        run.log(loss=loss.item(), denoising=denoising.item(), weight_space=weight_space.item())
    if run.is_main:
        with average.applied_to(hypernetwork):
            export(hypernetwork, config)
    run.accelerator.end_training()


def check_people(pictures: Pictures, fitted: dict[str, Tensor], config: HypernetworkRunConfig) -> None:
    """NoPictures where nobody is left to train on, or somebody was not fitted who has to be."""
    people = [name for name, _ in pictures.people[config.held_out :]]
    if not people:
        raise NoPictures(f"{len(pictures.people)} people are too few: {config.held_out} are held out for validation")
    missing = [name for name in people if name not in fitted] if config.beta else []
    if missing:
        raise NoPictures(f"beta > 0, and {config.fitted or 'no folder'} has no fitted weights of {missing[0]}")


def check_fitted(fitted: dict[str, Tensor], rank: int, basis: AuxBasis) -> None:
    """NoPictures where somebody's fitted weights are of another rank, or of other layers, than those predicted."""
    wanted = rank * (basis.table.total_a + basis.table.total_b)
    for name, numbers in fitted.items():
        if len(numbers) != wanted:
            raise NoPictures(f"the fitted weights of {name} are {len(numbers)} numbers; rank {rank} has {wanted}")


def draw_batch(
    pictures: Pictures, base_model: BaseModel, fitted: dict[str, Tensor], config: HypernetworkRunConfig, run: Run
) -> Batch:
    """One process' share of a step: a face of each of some people, and pictures of them to be denoised."""
    generator, device = run.generator(), base_model.device
    people = pictures.people[config.held_out :]
    chosen = [people[place] for place in torch.randint(len(people), (config.batch,), generator=generator).tolist()]
    faces, targets = [], []
    for _, rows in chosen:
        order = torch.randperm(len(rows), generator=generator).tolist()
        others = order[1:] or order
        faces.append(rows[order[0]])
        targets += [rows[others[turn % len(others)]] for turn in range(config.targets)]
    latents = pictures.latent_rows(targets)
    count = base_model.scheduler.config.num_train_timesteps
    timesteps = stratified_timesteps(len(targets), count, generator)[torch.randperm(len(targets), generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    numbers = torch.stack([fitted[name] for name, _ in chosen]) if fitted else torch.zeros(len(chosen), 0)
    parts = (pictures.latent_rows(faces), latents, timesteps, noise, numbers)
    return tuple(part.to(device) for part in parts)  # type: ignore[return-value]  # five in, five out


def export(hypernetwork: Hypernetwork, config: HypernetworkRunConfig) -> Path:
    """The base model's folder with the hypernetwork in it: what `HDB_BASE_MODEL` may point at."""
    target = config.folder / "model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base_model_folder(config.base_model), target, ignore=shutil.ignore_patterns(FOLDER))
    save_hypernetwork(hypernetwork, target / FOLDER)
    say(f"hypernetwork  exported to {target}")
    return target
