"""Train the hypernetwork of a base model: `python -m hyperdreambooth.recipes.train_hypernetwork`.

End to end on the denoising loss: the predicted LiDB is attached to the frozen base model, which then has to denoise
other pictures of the same person, in other views and styles. What differs between them can't be predicted, so what is
learned is the person. No weights are fitted beforehand (the paper's second loss has beta = 0 here). Resumable.
"""

import copy
import math
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hyperdreambooth.attach import attach, aux_basis
from hyperdreambooth.basis import load_learned
from hyperdreambooth.config import HypernetworkConfig, SampleConfig, load_personalize_config
from hyperdreambooth.diffusion import BaseModel, decode_latents, encode_tokens, load_base_model, sample, tokenize
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, load_hypernetwork, save_hypernetwork
from hyperdreambooth.lidb import AuxBasis, LiDB
from hyperdreambooth.losses import denoising_loss, head_weights, stratified_timesteps
from hyperdreambooth.portraits.captions import STYLE_PHRASES
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.augmentation import jittered
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.pictures import load_pictures
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.sheets import save_sheet
from hyperdreambooth.recipes.stage import StageConfig
from hyperdreambooth.recipes.train_base import update_average
from hyperdreambooth.recipes.train_face_encoder import load_face_encoder

STYLES = tuple(Style)
PHRASES_EACH = 5
SHEET_PEOPLE = 8
BACKGROUND_WEIGHT = 0.1  # what is around the head changes from picture to picture: nobody can predict it
SHEET_STYLES = (Style.PHOTO, Style.PHOTO, Style.PENCIL_SKETCH, Style.OIL_PAINTING)


@dataclass(frozen=True, kw_only=True)
class TrainHypernetworkConfig(StageConfig):
    """Steps are what the shipped weights took. Numbers are ours: the paper gives none for this training."""

    base: str = "base"  # the base model, in the work folder
    hypernetwork: HypernetworkConfig = field(default_factory=lambda: HypernetworkConfig(rank=2))
    steps: int = 2499
    batch: int = 16  # subjects in a batch, over all threads
    targets: int = 3  # pictures of each: the hypernetwork costs as much as the UNet, so one prediction serves several
    photo_share: float = 0.5  # of the targets; the others are in another style
    learning_rate: float = 1.5e-4  # 3e-4 diverged after 1 000 steps
    weight_decay: float = 1e-3
    warmup_steps: int = 100
    flat_share: float = 0.2
    average_decay: float = 0.99
    average_steps: int = 4
    held_out: int = 64  # people who are never trained on: the loss on them is what is printed


@dataclass(frozen=True, eq=False)
class People:
    """Who there is to learn from, one row for each person."""

    references: Tensor  # [people, views, 3, size, size] uint8: the photos
    latents: Tensor  # [people, pictures, c, h, w]
    styles: Tensor  # [people, pictures], an index into STYLES
    prompts: Tensor  # [styles, phrases, tokens]

    def rows(self, chosen: slice) -> "People":
        return People(self.references[chosen], self.latents[chosen], self.styles[chosen], self.prompts)


@dataclass(frozen=True, eq=False)
class Batch:
    faces: Tensor  # [S, 3, size, size] in -1..1
    latents: Tensor  # [S * targets, c, h, w], a subject's targets side by side
    tokens: Tensor  # [S * targets, tokens]
    timesteps: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, part.name).to(device) for part in fields(self)))


def main(config: TrainHypernetworkConfig) -> None:
    """Train, and export into the base model's folder now and then, and at the end."""
    folder = config.folder / config.base
    base_model = load_base_model(str(folder), device=config.device, dtype=torch.float32)
    everybody = load_people(config, base_model)
    people, held_out = everybody.rows(slice(config.held_out, None)), everybody.rows(slice(config.held_out))
    basis = aux_basis(base_model, load_personalize_config(folder).lidb, load_learned(folder))
    hypernetwork = untrained(config, basis)
    averaged = copy.deepcopy(hypernetwork)
    adam = torch.optim.AdamW(hypernetwork.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    # Named after the base model's weights: a hypernetwork half trained for others is no start.
    path = config.folder / f"hypernetwork-{base_model.weights_hash[:12]}.pt"
    checkpoint = Checkpoint(path, networks=[hypernetwork, averaged], optimizers=[adam])
    budget = config.budget()
    budget.resume(checkpoint.load())
    progress = Progress(FOLDER, total=config.steps, every=30, done=budget.steps)
    # Attaching fills hooks in the base model, so each thread has one of its own.
    copies = [base_model, *(copy.deepcopy(base_model) for _ in range(config.threads - 1))]
    gradients = Gradients(list(hypernetwork.parameters()), threads=config.threads)
    loss_of = partial(_part_loss, hypernetwork)
    smooth = float("nan")
    while budget.left():
        set_learning_rate([adam], budget.factor())
        generator = budget.generator(config.seed)
        loss = gradients(loss_of, [(copied, random_batch(people, base_model, config, generator)) for copied in copies])
        nn.utils.clip_grad_norm_(hypernetwork.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
        budget.advance()
        progress.advance(loss=smooth)
        if budget.steps % config.average_steps == 0:
            decay = min(config.average_decay, budget.steps / (budget.steps + 50))
            update_average([averaged], [hypernetwork], decay)
        if budget.every(minutes=4):
            checkpoint.save(budget.state())
            report(base_model, averaged, held_out, config)
    checkpoint.save(budget.state())
    report(base_model, averaged, held_out, config)
    budget.check_spent()


def untrained(config: TrainHypernetworkConfig, basis: AuxBasis) -> Hypernetwork:
    """As it is before the first step: another's weights, or random ones behind a face encoder that can see."""
    if config.start and (config.start / FOLDER).exists():
        return load_hypernetwork(config.start / FOLDER, basis).train().requires_grad_(True)
    hypernetwork = Hypernetwork(config.hypernetwork, basis)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(config.seed))
    load_face_encoder(hypernetwork.encoder, config.folder)
    return hypernetwork.to(config.device)


def load_people(config: TrainHypernetworkConfig, base_model: BaseModel) -> People:
    """Pictures and cached latents, sorted by person. Every person has equally many."""
    pictures, records = load_pictures(config.pictures)
    latents = np.load(config.folder / "latents.npy")
    order = np.lexsort((records[:, 2], records[:, 1], records[:, 0]))
    count = len(np.unique(records[:, 0]))
    is_photo = records[order, 2] == STYLES.index(Style.PHOTO)
    references = torch.from_numpy(pictures[order][is_photo]).permute(0, 3, 1, 2)
    prompts = torch.stack([_prompts(config, base_model, style) for style in STYLES])
    return People(
        references=references.reshape(count, -1, *references.shape[1:]),
        latents=torch.from_numpy(latents[order]).float().reshape(count, -1, *latents.shape[1:]),
        styles=torch.from_numpy(records[order, 2]).long().reshape(count, -1),
        prompts=prompts,
    )


def random_batch(
    people: People, base_model: BaseModel, config: TrainHypernetworkConfig, generator: torch.Generator
) -> Batch:
    """One thread's share: a reference photo of each of some people, and other pictures of them to be denoised."""
    subjects, targets = config.batch // config.threads, config.targets
    rows = torch.randint(len(people.references), (subjects,), generator=generator)
    views = torch.randint(people.references.shape[1], (subjects,), generator=generator)
    faces = jittered(people.references[rows, views].to(config.device).float() / 127.5 - 1, generator)
    # Photos and styled pictures are drawn with the weights that make their shares come out.
    is_photo = people.styles[rows] == STYLES.index(Style.PHOTO)  # [S, pictures]
    photos = is_photo.sum(dim=1, keepdim=True)
    styled = is_photo.shape[1] - photos
    weights = torch.where(is_photo, config.photo_share / photos, (1 - config.photo_share) / styled)
    columns = torch.multinomial(weights, targets, generator=generator)  # [S, targets]
    latents = people.latents[rows[:, None], columns].flatten(0, 1)
    phrases = torch.randint(PHRASES_EACH, (subjects * targets,), generator=generator)
    tokens = people.prompts[people.styles[rows[:, None], columns].flatten(), phrases]
    timesteps = stratified_timesteps(subjects * targets, base_model.scheduler.config.num_train_timesteps, generator)[
        torch.randperm(subjects * targets, generator=generator)
    ]
    return Batch(faces, latents, tokens, timesteps, torch.randn(latents.shape, generator=generator)).to(config.device)


def prediction_loss(base_model: BaseModel, hypernetwork: Hypernetwork, batch: Batch) -> Tensor:
    """The denoising loss with the predicted weights attached, averaged over the batch."""
    with torch.autocast(base_model.device.type, torch.bfloat16):
        return lidb_loss(base_model, hypernetwork(batch.faces), batch)


def _part_loss(hypernetwork: Hypernetwork, part: tuple[BaseModel, Batch]) -> Tensor:
    base_model, batch = part
    return prediction_loss(base_model, hypernetwork, batch)


def lidb_loss(base_model: BaseModel, lidb: LiDB, batch: Batch) -> Tensor:
    with attach(base_model, lidb):
        embeddings = encode_tokens(base_model, batch.tokens)
        losses = denoising_loss(
            base_model,
            batch.latents,
            embeddings,
            timesteps=batch.timesteps,
            noise=batch.noise,
            weights=head_weights(batch.latents, background=BACKGROUND_WEIGHT),
        )
    return losses.mean()


@torch.no_grad()
def report(
    base_model: BaseModel, hypernetwork: Hypernetwork, held_out: People, config: TrainHypernetworkConfig
) -> None:
    """Export; print the loss on held-out people with and without the prediction; draw a sheet of them."""
    save_hypernetwork(hypernetwork, config.folder / config.base / FOLDER)
    generator = torch.Generator().manual_seed(config.seed)
    with_weights, without = [], []
    for _ in range(4):
        batch = random_batch(held_out, base_model, config, generator)
        with_weights.append(prediction_loss(base_model, hypernetwork, batch).item())
        nobody = hypernetwork(batch.faces)
        nobody.a_train.zero_()
        with torch.autocast(base_model.device.type, torch.bfloat16):
            without.append(lidb_loss(base_model, nobody, batch).item())
    say(f"{FOLDER}  held-out loss {np.mean(with_weights):.4f}, without weights {np.mean(without):.4f}")
    save_sheet(draw_sheet(base_model, hypernetwork, held_out), config.folder / "hypernetwork.png", columns=SHEET_PEOPLE)


def draw_sheet(base_model: BaseModel, hypernetwork: Hypernetwork, held_out: People) -> list[Image.Image]:
    """Eight people, row by row: first and last view through the autoencoder, then as drawn with the prediction."""
    people = held_out.rows(slice(SHEET_PEOPLE))
    is_photo = people.styles[0] == STYLES.index(Style.PHOTO)
    first, *_, last = is_photo.nonzero()[:, 0].tolist()
    sheet = [
        picture
        for view in (first, last)
        for picture in decode_latents(base_model, people.latents[:, view].to(base_model.device))
    ]
    prediction = hypernetwork(people.references[:, 0].to(base_model.device).float() / 127.5 - 1)
    # Guidance doubles the batch: the halves repeat the people, they don't continue them.
    with attach(base_model, prediction, subject_of_sample=torch.arange(SHEET_PEOPLE, device=base_model.device)):
        for row, style in enumerate(SHEET_STYLES):
            seeds = range(100 * row, 100 * row + SHEET_PEOPLE)
            prompts = [STYLE_PHRASES[style][0].format("a [V] face")] * SHEET_PEOPLE
            sheet += sample(base_model, prompts, seeds=seeds, config=SampleConfig(guidance=2.5))
    return sheet


def _prompts(config: TrainHypernetworkConfig, base_model: BaseModel, style: Style) -> Tensor:
    """Ways to ask for the subject in a style: [phrases, tokens]."""
    wishes = load_personalize_config(config.folder / config.base)
    phrases = [STYLE_PHRASES[style][place % len(STYLE_PHRASES[style])] for place in range(PHRASES_EACH)]
    return tokenize(base_model, [phrase.format(f"a {wishes.subject}") for phrase in phrases]).cpu()


if __name__ == "__main__":
    main(TrainHypernetworkConfig())
