"""What any method leaves behind for one subject, so that all can be asked for the same pictures."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import BaseModel, sample


class Personalized(Protocol):
    """A subject's weights. The base model is theirs inside `attached` alone, and bit-identical afterwards."""

    @property
    def subject(self) -> str:
        """What `{subject}` in a prompt becomes."""

    @property
    def stored_bytes(self) -> int:
        """Size of the file that would be kept for this subject, header included."""

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]: ...


class Trainable(Protocol):
    """The same while it is being trained."""

    @property
    def subject(self) -> str: ...

    @property
    def parameters(self) -> Sequence[Tensor]: ...

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]: ...


@torch.no_grad()
def draw(
    personalized: Personalized,
    base_model: BaseModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    config: SampleConfig,
) -> list[Image.Image]:
    """One picture for each prompt and seed. A prompt without `{subject}` is left as it is."""
    filled = [prompt.replace("{subject}", personalized.subject) for prompt in prompts]
    with personalized.attached(base_model):
        return sample(base_model, filled, seeds=seeds, config=config)


def file_size(tensors: Mapping[str, Tensor]) -> int:
    """As a safetensors file in fp16."""
    return len(save({name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}))
