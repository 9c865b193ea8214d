"""Textual Inversion (Gal et al. 2023): one new word, everything else frozen."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.identifier import embedding_name, embedding_table, identifier_id, token_ids, with_row
from hyperdreambooth.baselines.personalized import file_size
from hyperdreambooth.baselines.swap import swapped
from hyperdreambooth.baselines.training import Example, train
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel


class TextualInversion:
    """The word stands alone ("a photo of a *") and starts as the class noun, as in the paper."""

    def __init__(self, base_model: BaseModel, config: PersonalizeConfig) -> None:
        self.subject = config.identifier
        self.place = identifier_id(base_model, config.identifier)
        noun = embedding_table(base_model)[token_ids(base_model, config.class_noun)]
        self.row = noun.mean(dim=0, keepdim=True).detach().clone().requires_grad_()  # [1, d]

    @property
    def parameters(self) -> Sequence[Tensor]:
        return [self.row]

    @property
    def stored_bytes(self) -> int:
        return file_size({"embedding": self.row})

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        table = with_row(embedding_table(base_model), self.place, self.row)
        return swapped(base_model, {embedding_name(base_model): table})


def textual_inversion(
    base_model: BaseModel, config: PersonalizeConfig, example: Example, budget: Budget
) -> TextualInversion:
    method = TextualInversion(base_model, config)
    train(base_model, method, example, budget)
    return method
