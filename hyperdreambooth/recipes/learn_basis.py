"""Learn the aux matrices of a base model: `python -m hyperdreambooth.recipes.learn_basis`.

From the gradients of the very loss that a finetuning starts with: people's photos, and the prompt that names nobody.
"""

import shutil
from dataclasses import dataclass

import torch

from hyperdreambooth.attach import layer_table
from hyperdreambooth.basis import LEARNED_FILE, save_learned
from hyperdreambooth.config import load_personalize_config
from hyperdreambooth.diffusion import load_base_model, tokenize
from hyperdreambooth.learned_basis import GradientMoments
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.train_hypernetwork import STYLES, TrainHypernetworkConfig, load_people

NAME = "aux basis"
PEOPLE = 400
DRAWS = 16  # of noise, for each of them


@dataclass(frozen=True, kw_only=True)
class LearnBasisConfig(TrainHypernetworkConfig):
    """The people that the hypernetwork will learn from, but fewer: `people` of them."""

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
    people = load_people(config, base_model).rows(slice(config.held_out, config.held_out + config.people))
    tokens = tokenize(base_model, [wishes.fill_prompt(wishes.instance_prompt)])
    moments = GradientMoments(base_model, layer_table(base_model.unet, base_model.text_encoder, wishes.lidb))
    progress = Progress(NAME, total=len(people.latents), unit="people")
    for number, (latents, styles) in enumerate(zip(people.latents, people.styles, strict=True)):
        photos = latents[styles == STYLES.index(Style.PHOTO)]
        drawn = photos[torch.arange(DRAWS) % len(photos)].to(config.device)
        generator = torch.Generator().manual_seed(config.seed + number)
        config.deadline.check(f"{number} of {len(people.latents)} people")
        moments.add(drawn, tokens, generator, background=wishes.finetune.background_weight)
        progress.advance()
    matrices = moments.aux_matrices()
    outputs, inputs = (torch.tensor(shares).mean() for shares in zip(*moments.captured(matrices).values(), strict=True))
    say(f"{NAME}  holds {outputs:.0%} of the squared gradients on the output side, {inputs:.0%} on the input side")
    save_learned(matrices, folder)


if __name__ == "__main__":
    main(LearnBasisConfig())
