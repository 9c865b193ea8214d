"""Train a base model on captioned pictures: `hdb train base BASE_MODEL PICTURES`.

From the folder's own weights, on the denoising loss; what is exported is a moving average, as a diffusers folder.
"""

import copy
import shutil
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import (
    BaseModel,
    base_model_folder,
    encode_tokens,
    load_base_model,
    sample,
    tokenize,
)
from hyperdreambooth.losses import denoising_loss, stratified_timesteps
from hyperdreambooth.recipes.progress import say
from hyperdreambooth.recipes.sheets import sheet_of
from hyperdreambooth.training.averages import Average
from hyperdreambooth.training.config import BaseRunConfig
from hyperdreambooth.training.pictures import Pictures, prepare_pictures
from hyperdreambooth.training.run import Run, open_run, show_sheet

PREVIEW_SIZE = 64  # of the pictures kept beside the latents: nothing reads more of them here
SHEET_ROWS = 2


class Denoiser(nn.Module):
    """The networks that are trained, as one module: what accelerate wraps."""

    def __init__(self, base_model: BaseModel, *, with_text_encoder: bool) -> None:
        super().__init__()
        self.unet, self.text_encoder = base_model.unet, base_model.text_encoder
        self._base_model = base_model
        self.unet.requires_grad_(True).train()
        self.text_encoder.requires_grad_(with_text_encoder)

    def forward(self, latents: Tensor, tokens: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """The loss of each picture: [B]."""
        embeddings = encode_tokens(self._base_model, tokens)
        return denoising_loss(self._base_model, latents, embeddings, timesteps=timesteps, noise=noise)


def main(config: BaseRunConfig) -> None:
    """Train, show samples now and then, export at the end."""
    run = open_run(config)
    base_model = load_base_model(config.base_model, device=run.accelerator.device, dtype=torch.float32)
    with run.accelerator.main_process_first():
        pictures = prepare_pictures(
            config.pictures, base_model, config.folder / "cache", size=PREVIEW_SIZE, faces=False
        )
    denoiser = Denoiser(base_model, with_text_encoder=config.train_text_encoder)
    average = Average(denoiser, decay=config.average_decay)
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    network, adam = run.accelerator.prepare(denoiser, adam)
    run.accelerator.register_for_checkpointing(average)
    run.resume()

    def show(step: int) -> None:
        with average.applied_to(denoiser):
            show_sheet(run.accelerator, config.folder, "samples", draw_samples(base_model, config), step=step)

    for _ in run.steps("base", show):
        loss = network(*draw_batch(pictures, base_model, config, run)).mean()
        run.optimize(adam, network, loss)
        average.update(denoiser)
        run.log(loss=loss.item(), learning_rate=run.learning_rate())
    if run.is_main:
        with average.applied_to(denoiser):
            export(base_model, config)
    run.accelerator.end_training()


def draw_batch(
    pictures: Pictures, base_model: BaseModel, config: BaseRunConfig, run: Run
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, prompts (some emptied), timesteps and noise of one step on one process."""
    generator, device = run.generator(), run.accelerator.device
    rows = torch.randint(len(pictures.latents), (config.batch,), generator=generator).tolist()
    dropped = (torch.rand(config.batch, generator=generator) < config.drop_caption).tolist()
    captions = ["" if drop else pictures.captions[row] or "" for row, drop in zip(rows, dropped, strict=True)]
    latents = pictures.latent_rows(rows)
    timesteps = stratified_timesteps(config.batch, base_model.scheduler.config.num_train_timesteps, generator)
    timesteps = timesteps[torch.randperm(config.batch, generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    return latents.to(device), tokenize(base_model, captions), timesteps.to(device), noise.to(device)


def draw_samples(base_model: BaseModel, config: BaseRunConfig) -> Image.Image:
    """Each prompt of the config, a column each, with the same seeds every time."""
    prompts = list(config.sheet_prompts) * SHEET_ROWS
    pictures = sample(base_model, prompts, seeds=range(len(prompts)), config=SampleConfig())
    return sheet_of(pictures, columns=len(config.sheet_prompts), enlarge=1)


def export(base_model: BaseModel, config: BaseRunConfig) -> Path:
    """A diffusers folder like the one that training began with, without its hypernetwork: it was for other weights."""
    target = config.folder / "base"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base_model_folder(config.base_model), target, ignore=shutil.ignore_patterns("hypernetwork"))
    for name, network in (("unet", base_model.unet), ("text_encoder", base_model.text_encoder)):
        stored = next((target / name).glob("*.safetensors"))
        dtype = next(iter(load_file(stored).values())).dtype
        for old in (target / name).glob("*.safetensors*"):
            old.unlink()
        copy.deepcopy(network).to(dtype).save_pretrained(target / name, safe_serialization=True)
    say(f"base  exported to {target}")
    return target
