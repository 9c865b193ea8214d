"""Learn the aux matrices of a base model: `python -m hyperdreambooth.recipes.learn_basis`.

From the gradients of the very loss that a finetuning starts with: people's photos, and the prompt that names nobody.
"""

import shutil
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hyperdreambooth.attach import layer_table
from hyperdreambooth.basis import LEARNED_FILE, save_learned
from hyperdreambooth.config import load_personalize_config
from hyperdreambooth.diffusion import load_base_model, tokenize
from hyperdreambooth.learned_basis import GradientMoments
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.fit_people import HELD_OUT
from hyperdreambooth.recipes.pictures import PICTURES, STYLES, load_pictures
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.stage import WorkConfig

NAME = "aux basis"
PEOPLE = 400
DRAWS = 16  # of noise, for each of them


@dataclass(frozen=True, kw_only=True)
class LearnBasisConfig(WorkConfig):
    """Some of the people that the hypernetwork will learn from."""

    people: int = PEOPLE


def main(config: LearnBasisConfig) -> None:
    """Write the base model's `aux_basis.safetensors`."""
    folder = config.folder / config.base
    if (folder / LEARNED_FILE).exists():
        return
    if config.start and (config.start / LEARNED_FILE).exists():  # its hypernetwork speaks of these
        shutil.copyfile(config.start / LEARNED_FILE, folder / LEARNED_FILE)
        return
    base_model = load_base_model(str(folder), device=config.device, dtype=torch.float32)
    wishes = load_personalize_config(folder)
    people = photo_latents(config)[HELD_OUT : HELD_OUT + config.people]
    tokens = tokenize(base_model, [wishes.fill_prompt(wishes.instance_prompt)])
    moments = GradientMoments(base_model, layer_table(base_model.unet, base_model.text_encoder, wishes.lidb))
    progress = Progress(NAME, total=len(people), unit="people")
    for number, photos in enumerate(people):
        drawn = photos[torch.arange(DRAWS) % len(photos)].to(config.device)
        generator = torch.Generator().manual_seed(config.seed + number)
        config.deadline.check(f"{number} of {len(people)} people")
        moments.add(drawn, tokens, generator, background=wishes.finetune.background_weight)
        progress.advance()
    matrices = moments.aux_matrices()
    outputs, inputs = (torch.tensor(shares).mean() for shares in zip(*moments.captured(matrices).values(), strict=True))
    say(f"{NAME}  holds {outputs:.0%} of the squared gradients on the output side, {inputs:.0%} on the input side")
    save_learned(matrices, folder)


def photo_latents(config: LearnBasisConfig) -> Tensor:
    """Each person's photos [people, views, c, h, w], in order."""
    _, records = load_pictures(config.pictures)
    people, views, styles = records.T
    order = np.lexsort((views, people))
    photos = order[styles[order] == STYLES.index(Style.PHOTO)]
    latents = np.load(config.folder / PICTURES / "latents.npy")[photos].astype(np.float32)
    return torch.from_numpy(latents.reshape(len(np.unique(people)), -1, *latents.shape[1:]))


if __name__ == "__main__":
    main(LearnBasisConfig())
