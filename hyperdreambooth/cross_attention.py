"""Keys and values of the cross-attention, computed once for a whole denoising loop: prompts don't change in it.

Of the unconditional half nothing more can be shared between subjects: their deltas reach into the text encoder, so even
the empty prompt has an embedding of its own for each. Pictures of one subject with equal texts do share a row.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Seat = Callable[[Tensor], None]  # which text each row of the next batches reads: [B]


class Remembered(nn.Module):
    """In the place of a projection, its answers to all texts."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers  # [texts, T, n]
        self.seated = answers  # [B, T, n]

    def forward(self, embeddings: Tensor) -> Tensor:
        assert embeddings.shape[0] == self.seated.shape[0], (embeddings.shape, self.seated.shape)
        return self.seated


@contextmanager
def keys_and_values_once(unet: nn.Module, embeddings: Tensor) -> Iterator[Seat]:
    """Within the block, cross-attention reads what it computes now for `embeddings` [texts, T, d]."""
    attentions: list[Any] = [module for module in unet.modules() if getattr(module, "is_cross_attention", False)]
    projections: list[Remembered] = []
    with ExitStack() as stack:
        for attention in attentions:
            for name in ("to_k", "to_v"):
                projection = getattr(attention, name)
                projections.append(Remembered(projection(embeddings)))
                stack.callback(setattr, attention, name, projection)
                setattr(attention, name, projections[-1])

        def seat(texts: Tensor) -> None:
            for projection in projections:
                projection.seated = projection.answers[texts]

        yield seat
