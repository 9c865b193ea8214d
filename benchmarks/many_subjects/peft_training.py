"""LoRA as diffusers' DreamBooth script trains it, one subject at a time, with our steps, noise draws, rank and layers.

Where the script is slower than it must be, this is not: the picture is encoded once, and the prompt once a step, or
once in all where the text encoder is not trained.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from hyperdreambooth.baselines.peft_layers import peft_layers
from hyperdreambooth.diffusion import BaseModel, encode_images, encode_tokens, tokenize
from hyperdreambooth.personalize import Networks

LEARNING_RATE, MAX_NORM = 1e-4, 1.0  # the script's


def train_lora(networks: Networks, face: Image.Image, *, seed: int) -> Tensor:
    """One subject's LoRA numbers, on the CPU."""
    base_model, config, finetune = networks.base_model, networks.config, networks.config.finetune
    generator = torch.Generator().manual_seed(seed)
    latents = encode_images(base_model, [face]).repeat(finetune.noise_draws, 1, 1, 1)
    tokens = tokenize(base_model, [config.fill_prompt(config.instance_prompt)])
    with peft_layers(base_model, layers_of(networks), rank=finetune.rank, seed=seed) as layers:
        parameters = list(layers.values())
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
        embeddings: Tensor | None = None
        for _ in range(finetune.steps):
            if embeddings is None or embeddings.requires_grad:
                embeddings = encode_tokens(base_model, tokens)
            denoising_loss(base_model, latents, embeddings, generator).backward()  # type: ignore[no-untyped-call]  # torch
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([parameter.detach().flatten() for parameter in parameters]).double().cpu()


def denoising_loss(base_model: BaseModel, latents: Tensor, embeddings: Tensor, generator: torch.Generator) -> Tensor:
    """The script's training step, up to the loss."""
    scheduler = base_model.scheduler
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    count = scheduler.config.num_train_timesteps
    timesteps = torch.randint(0, count, (len(latents),), generator=generator).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    embeddings = embeddings.expand(len(latents), -1, -1)
    predicted = base_model.unet(noisy, timesteps, encoder_hidden_states=embeddings).sample
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    return F.mse_loss(predicted.float(), target.float())


def layers_of(networks: Networks) -> dict[str, list[str]]:
    """The layers that get a LiDB, by network, as peft names them."""
    base_model = networks.base_model
    targets = {id(base_model.targets[layer.name]) for layer in networks.basis.table.layers}
    models: dict[str, Any] = {"unet": base_model.unet, "text_encoder": base_model.text_encoder}
    return {
        network: [name for name, module in model.named_modules() if id(module) in targets]
        for network, model in models.items()
    }
