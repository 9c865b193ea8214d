"""Teach the hypernetwork's eyes first: `python -m hyperdreambooth.recipes.train_face_encoder`.

The renderer knows who it drew: about 130 numbers of shape, colour and hair. An encoder that can read them off a photo,
whatever the pose and the light, is a better start for the hypernetwork than a blank one, and this lesson is cheap: no
diffusion model takes part. No other network's judgement does either, so those who judge later stay independent.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from hyperdreambooth.config import HypernetworkConfig
from hyperdreambooth.hypernetwork import FaceEncoder
from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.augmentation import jittered
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.pictures import STYLES, load_pictures, person
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.stage import StageConfig
from hyperdreambooth.recipes.train_vae import to_pixels

FILE = "face_encoder.safetensors"
SLIDER_WEIGHT = 0.4  # most sliders move less than a pixel: at full weight their noise drowns the rest


@dataclass(frozen=True, kw_only=True)
class FaceEncoderConfig(StageConfig):
    """Steps are what the shipped weights took."""

    hypernetwork: HypernetworkConfig = field(default_factory=HypernetworkConfig)
    steps: int = 1034
    batch: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 50
    flat_share: float = 0.2
    held_out: int = 64  # people who are never trained on: what is printed is about them


class IdentityReader(nn.Module):
    """The face encoder, and a linear layer on the mean of its tokens that is thrown away afterwards."""

    def __init__(self, config: HypernetworkConfig, *, numbers: int) -> None:
        super().__init__()
        self.encoder = FaceEncoder(config)
        self.head = nn.Linear(config.width, numbers)

    def forward(self, faces: Tensor) -> Tensor:  # (S, 3, H, W)
        return torch.as_tensor(self.head(self.encoder(faces).mean(1)))


def main(config: FaceEncoderConfig) -> None:
    """Train, and write the encoder alone to the work folder."""
    if (config.folder / FILE).exists():
        return
    faces, numbers, people = photos_and_numbers(config)
    torch.manual_seed(config.seed)
    reader = IdentityReader(config.hypernetwork, numbers=numbers.shape[1]).to(config.device)
    adam = torch.optim.AdamW(reader.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(config.folder / "face_encoder.pt", networks=[reader], optimizers=[adam])
    budget = config.budget()
    budget.resume(checkpoint.load())
    progress = Progress("face encoder", total=config.steps, done=budget.steps)
    gradients = Gradients(list(reader.parameters()), threads=config.threads)
    training = torch.from_numpy(np.flatnonzero(people >= config.held_out))
    while budget.left():
        set_learning_rate([adam], budget.factor())
        generator = budget.generator(config.seed)
        chosen = training[torch.randint(len(training), (config.batch,), generator=generator)]
        batch = [jittered(to_pixels(faces[chosen].to(config.device)), generator), numbers[chosen]]
        loss = gradients(partial(_loss, reader), config.parts(batch))
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        budget.advance()
        progress.advance(loss=loss)
        if budget.every(minutes=2):
            checkpoint.save(budget.state())
    checkpoint.save(budget.state())
    budget.check_spent()
    held_out = torch.from_numpy(np.flatnonzero(people < config.held_out))
    with torch.no_grad():
        error = functional.mse_loss(reader(to_pixels(faces[held_out].to(config.device))).cpu(), numbers[held_out])
        explained = 1 - (error / numbers[held_out].square().mean()).item()
    say(f"face encoder  explains {explained:.0%} of what unseen people differ in")
    weights = {name: tensor.cpu().contiguous() for name, tensor in reader.encoder.state_dict().items()}
    save_file(weights, config.folder / FILE)


def load_face_encoder(encoder: FaceEncoder, folder: Path) -> bool:
    """Start from what was learned here, if it was; says whether."""
    if (folder / FILE).exists():
        encoder.load_state_dict(load_file(folder / FILE))
    return (folder / FILE).exists()


def photos_and_numbers(config: FaceEncoderConfig) -> tuple[Tensor, Tensor, Array]:
    """Photos [n, h, w, 3] uint8, the numbers of who is on them [n, numbers], scaled, and who it is [n]."""
    pictures, records = load_pictures(config.pictures)
    photos = records[:, 2] == STYLES.index(Style.PHOTO)
    head = Head.load(cache=config.folder / "cache")
    people, rows = np.unique(records[photos, 0], return_inverse=True)
    numbers = np.stack([identity_numbers(person(head, int(seed))) for seed in people])
    numbers = (numbers - numbers.mean(0)) / (numbers.std(0) + 1e-6)
    numbers[:, -len(head.sliders) :] *= SLIDER_WEIGHT
    return torch.from_numpy(pictures[photos]), torch.from_numpy(numbers[rows]).float(), rows


def identity_numbers(identity: Identity) -> Array:
    """Everything about a person that the renderer draws, but for moles and the seed of noise."""
    hair, brows = identity.hair, identity.brows
    single = [identity.gender, identity.age, identity.weight, identity.muscle, identity.beard, identity.moustache]
    single += [identity.freckles, hair.line, hair.length, hair.volume, hair.curl, float(hair.bald)]
    single += [brows.height, brows.thickness, brows.tilt, brows.arch, brows.density]
    colours = (identity.skin, identity.lips, identity.iris, hair.colour)
    return np.concatenate([single, *colours, identity.ancestry, identity.sliders])


def _loss(reader: IdentityReader, part: tuple[Tensor, ...]) -> Tensor:
    faces, numbers = part
    with torch.autocast(faces.device.type, torch.bfloat16):
        read = reader(faces)
    return functional.mse_loss(read.float(), numbers)


if __name__ == "__main__":
    main(FaceEncoderConfig())
