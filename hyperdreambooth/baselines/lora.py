"""LoRA (Hu et al. 2022) through peft, on the attention projections that diffusers' example takes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn

from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.peft_layers import peft_layers
from hyperdreambooth.baselines.personalized import file_size
from hyperdreambooth.baselines.training import Example, train
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel

TARGETS = {
    "unet": ["to_q", "to_k", "to_v", "to_out.0"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"],
}


@dataclass(frozen=True, eq=False)
class Lora:
    """y = W x + up down x, alpha = rank."""

    subject: str
    rank: int
    numbers: Mapping[str, Tensor]  # by peft's names

    @property
    def stored_bytes(self) -> int:
        return file_size(self.numbers)

    @contextmanager
    def attached(self, base_model: BaseModel) -> Iterator[BaseModel]:
        with peft_layers(base_model, TARGETS, rank=self.rank) as parameters:
            for name, parameter in parameters.items():
                parameter.data.copy_(self.numbers[name])
            yield base_model


@dataclass(frozen=True, eq=False)
class _Training:
    """While peft's layers are in the base model."""

    subject: str
    parameters: Sequence[Tensor]

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return nullcontext(base_model)


def lora(base_model: BaseModel, config: PersonalizeConfig, example: Example, budget: Budget, *, rank: int) -> Lora:
    with peft_layers(base_model, TARGETS, rank=rank) as parameters:
        for name, parameter in parameters.items():
            if "lora_A" in name:  # peft draws from the global generator
                nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=example.generator)
        train(base_model, _Training(config.subject, list(parameters.values())), example, budget)
        numbers = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    return Lora(config.subject, rank, numbers)
