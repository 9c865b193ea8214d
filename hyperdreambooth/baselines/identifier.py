"""The identifier's row in the text encoder's table of word embeddings."""

import torch
from torch import Tensor

from hyperdreambooth.diffusion import BaseModel


def embedding_name(base_model: BaseModel) -> str:
    """The table's name among the weights: transformers renamed it once."""
    table = base_model.text_encoder.get_input_embeddings().weight
    names = [name for name, weight in base_model.text_encoder.named_parameters() if weight is table]
    return f"text_encoder.{names[0]}"


def embedding_table(base_model: BaseModel) -> Tensor:
    return torch.as_tensor(base_model.text_encoder.get_input_embeddings().weight)


def token_ids(base_model: BaseModel, words: str) -> list[int]:
    return list(base_model.tokenizer(words, add_special_tokens=False).input_ids)


def identifier_id(base_model: BaseModel, identifier: str) -> int:
    """The identifier must be one token, or there is no single row to learn."""
    ids = token_ids(base_model, identifier)
    if len(ids) != 1:
        raise ValueError(f"{identifier!r} is {len(ids)} tokens here; choose an identifier that is one")
    return ids[0]


def with_row(table: Tensor, place: int, row: Tensor) -> Tensor:
    """The table with another row [1, d], through which gradient flows."""
    return table.detach().index_copy(0, torch.tensor([place], device=table.device), row)
