"""DreamBooth (Ruiz et al. 2023): all weights of UNet and text encoder, with prior preservation."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.personalized import file_size
from hyperdreambooth.baselines.swap import swapped, weights_of
from hyperdreambooth.baselines.training import ClassImages, Example, train, trainable_copies
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel


class DreamBooth:
    """A whole model for each subject."""

    def __init__(self, base_model: BaseModel, config: PersonalizeConfig) -> None:
        self.subject = config.subject
        weights = weights_of(base_model)
        self.weights = dict(zip(weights, trainable_copies(list(weights.values())), strict=True))

    @property
    def parameters(self) -> Sequence[Tensor]:
        return list(self.weights.values())

    @property
    def stored_bytes(self) -> int:
        return file_size(self.weights)

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return swapped(base_model, self.weights)


def dreambooth(
    base_model: BaseModel, config: PersonalizeConfig, example: Example, budget: Budget, *, prior: ClassImages | None
) -> DreamBooth:
    method = DreamBooth(base_model, config)
    train(base_model, method, example, budget, prior=prior)
    return method
