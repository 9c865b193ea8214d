"""Keys and values of the cross-attention, computed once for a whole denoising loop: prompts don't change in it.

Pictures with equal texts share a row, but for those of several subjects who have deltas in these projections. Then the
text is still encoded once, and multiplied with the base weights once, which the empty prompt of guidance always gains
by; where deltas are in the text encoder itself, even the empty prompt is another one for each subject.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from hyperdreambooth.seating import Seating

Seat = Callable[[Tensor], None]  # which text each row of the next batches reads: [B]


class Remembered(nn.Module):
    """In the place of a projection, its answers to all texts."""

    def __init__(self, answers: Tensor, seating: Seating) -> None:
        super().__init__()
        self.seating = seating
        self.answers = answers  # [texts, T, n]
        self.seated = answers  # [B, T, n]

    def forward(self, embeddings: Tensor) -> Tensor:
        seated = self.seated[self.seating.part]
        assert embeddings.shape[0] == seated.shape[0], (embeddings.shape, seated.shape)
        return seated


@contextmanager
def keys_and_values_once(unet: nn.Module, answers: Tensor, answered: Tensor, seating: Seating) -> Iterator[Seat]:
    """Within the block, cross-attention reads what it computes now.

    `answers` [A, T, d] of the text encoder; `answered` [texts] which of them each text has got.
    """
    attentions: list[Any] = [module for module in unet.modules() if getattr(module, "is_cross_attention", False)]
    projections: list[Remembered] = []
    texts = answers[answered]
    with ExitStack() as stack:
        for attention in attentions:
            for name in ("to_k", "to_v"):
                projection = getattr(attention, name)
                projections.append(Remembered(_projected(projection, texts, answers, answered), seating))
                stack.callback(setattr, attention, name, projection)
                setattr(attention, name, projections[-1])

        def seat(rows: Tensor) -> None:
            for projection in projections:
                projection.seated = projection.answers[rows]

        yield seat


def _projected(projection: nn.Module, texts: Tensor, answers: Tensor, answered: Tensor) -> Tensor:
    """Keys or values [texts, T, n] of `texts`, the `answers` repeated: W once for each answer, then what hooks add."""
    forward = projection.forward
    vars(projection)["forward"] = lambda _: forward(answers)[answered]
    try:
        return cast(Tensor, projection(texts))
    finally:
        del vars(projection)["forward"]


@dataclass(eq=False)
class Prompted:
    """The UNet with what the pictures show, encoded once for each subject and text."""

    unet: Any
    seating: Seating
    subjects: Tensor | None  # [pictures]: of whom each is
    embeddings: Tensor  # [texts, T, d]
    texts: Tensor  # [2, pictures]: which texts each picture reads, without and with its prompt
    seat_keys_and_values: Seat
    seated: Tensor = field(init=False)  # [2 B, T, d]

    def seat(self, places: Sequence[int]) -> None:
        texts = self.texts[:, list(places)].flatten()
        self.seat_keys_and_values(texts)
        self.seating.rows = None if self.subjects is None else self.subjects[list(places)].repeat(2)
        self.seated = self.embeddings[texts]

    def predict(self, latents: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        latents, timesteps = torch.cat([latents, latents]), timesteps.repeat(2)

        def of(part: slice) -> Tensor:
            texts = self.seated[part]
            answer: Tensor = self.unet(latents[part], timesteps[part], encoder_hidden_states=texts).sample
            return answer

        parts = self.seating.in_parts(of, len(latents), latents.device)
        negative, positive = torch.cat(parts).chunk(2)
        return negative, positive
