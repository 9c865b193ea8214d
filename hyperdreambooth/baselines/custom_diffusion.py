"""Custom Diffusion (Kumari et al. 2023): keys and values of the cross-attention, and the identifier's embedding."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.identifier import embedding_name, embedding_table, identifier_id, with_row
from hyperdreambooth.baselines.personalized import file_size
from hyperdreambooth.baselines.swap import swapped, weights_of
from hyperdreambooth.baselines.training import ClassImages, Example, train, trainable_copies
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel

KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")


class CustomDiffusion:
    """What the text can say to the picture, and one word."""

    def __init__(self, base_model: BaseModel, config: PersonalizeConfig) -> None:
        self.subject = config.subject
        weights = {name: weight for name, weight in weights_of(base_model).items() if name.endswith(KEYS_AND_VALUES)}
        self.weights = dict(zip(weights, trainable_copies(list(weights.values())), strict=True))
        self.place = identifier_id(base_model, config.identifier)
        (self.row,) = trainable_copies([embedding_table(base_model)[self.place][None]])  # [1, d]

    @property
    def parameters(self) -> Sequence[Tensor]:
        return [*self.weights.values(), self.row]

    @property
    def stored_bytes(self) -> int:
        return file_size({**self.weights, "embedding": self.row})

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        table = with_row(embedding_table(base_model), self.place, self.row)
        return swapped(base_model, {**self.weights, embedding_name(base_model): table})


def custom_diffusion(
    base_model: BaseModel, config: PersonalizeConfig, example: Example, budget: Budget, *, prior: ClassImages | None
) -> CustomDiffusion:
    method = CustomDiffusion(base_model, config)
    train(base_model, method, example, budget, prior=prior)
    return method
