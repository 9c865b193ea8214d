"""All train matrices of all subjects in flight as one flat tensor [S, numbers], and the optimiser that moves it.

One step over hundreds of small matrices, subject after subject, would be all launch cost.
"""

import torch
from torch import Tensor

from hyperdreambooth.lidb import LiDB

TINY = 1e-20  # above the root of the smallest square that float32 holds


def flatten(lidb: LiDB) -> Tensor:
    """All train matrices as one tensor [S, numbers]."""
    return torch.cat([lidb.a_train.flatten(1), lidb.b_train.flatten(1)], dim=1)


def unflatten(numbers: Tensor, like: LiDB) -> LiDB:
    """The inverse of `flatten`, for any number of subjects. Views: nothing is copied."""
    a_train, b_train = torch.tensor_split(numbers, [like.a_train[0].numel()], dim=1)
    return LiDB(like.basis, a_train.view(-1, *like.a_train.shape[1:]), b_train.view(-1, *like.b_train.shape[1:]))


def clip_each(gradient: Tensor, max_norms: Tensor) -> Tensor:
    """Clip each subject's gradient [S, numbers] by its own norm [S]."""
    norms, limits = torch.linalg.vector_norm(gradient, dim=1, keepdim=True), max_norms[:, None]
    return torch.mul(gradient, limits / norms.clamp(min=limits))


class SubjectwiseAdam:
    """Adam (Kingma and Ba 2015) whose step count, like its moments and learning rate, belongs to each subject.

    Without AdamW's decay: a few dozen steps take nobody far enough from the prediction to be drawn back to nothing.
    ε is a share of the root mean square of all the subject's gradients:  x -= η m̂ / (√v̂ + share √(mean v̂)). Adam's own
    ε of 1e-8 lets numbers whose gradient is hardly more than rounding move as far as all others, and what neighbours in
    the batch change in the rounding then grows into other weights (docs/experiments.md).
    """

    def __init__(
        self, numbers: Tensor, *, betas: tuple[float, float] = (0.9, 0.99), epsilon_share: float = 0.3
    ) -> None:
        self.numbers = numbers
        self.betas = betas
        self.epsilon_share = epsilon_share
        self.first_moment = torch.zeros_like(numbers)
        self.second_moment = torch.zeros_like(numbers)
        self.steps = numbers.new_zeros(numbers.shape[0], 1)

    @torch.no_grad()
    def step(self, gradient: Tensor, *, learning_rates: Tensor) -> None:
        """Move every subject by its own rate [S]."""
        beta1, beta2 = self.betas
        self.steps += 1
        self.first_moment = torch.lerp(gradient, self.first_moment, beta1)
        self.second_moment = torch.lerp(gradient**2, self.second_moment, beta2)
        mean = self.first_moment / (1 - beta1**self.steps)
        square = self.second_moment / (1 - beta2**self.steps)
        epsilon = self.epsilon_share * square.mean(dim=1, keepdim=True).sqrt()
        # A subject without any gradient stays where it is.
        self.numbers -= learning_rates[:, None] * mean / (square.sqrt() + epsilon).clamp(min=TINY)

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """The other subjects leave, with their moments."""
        self.numbers, self.steps = self.numbers.detach()[rows], self.steps[rows]
        self.first_moment, self.second_moment = self.first_moment[rows], self.second_moment[rows]
