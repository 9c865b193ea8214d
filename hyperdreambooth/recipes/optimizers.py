"""Muon (Jordan et al. 2024): matrices that are stepped along orthogonal directions, all at the same pace."""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from hyperdreambooth.acceleration import quick_dtype

POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # of a singular value: five times it, and 0.01 to 1 has come to 0.7 to 1.2
ITERATIONS = 5
ADAMS_SIZE = 0.2  # what an entry of AdamW's steps is about, in learning rates (Liu et al. 2025)


class Muon(torch.optim.Optimizer):
    """W -= lr (0.2 √max(m, n) UVᵀ + weight decay W) for G = USVᵀ, the gradient's average with Nesterov's momentum.

    A convolution's W [m, i, h, w] counts as [m, n = i h w]. Sized as AdamW's steps are, both share one learning rate.
    torch's own Muon refuses convolutions, and multiplies in bfloat16 whether or not the processor can.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        momentum: float = 0.95,
        threads: int,
    ) -> None:
        largest_first = sorted(matrices, key=torch.numel, reverse=True)
        super().__init__(largest_first, {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum})
        self._pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here takes the loss again
        """Each thread takes the next matrix."""
        for group in self.param_groups:
            list(self._pool.map(partial(self._step_one, group), group["params"]))

    @torch.no_grad()
    def _step_one(self, group: dict[str, Any], matrix: nn.Parameter) -> None:
        if matrix.grad is None:
            return
        state = self.state[matrix]
        if "average" not in state:
            state["average"] = torch.zeros_like(matrix)
        average = state["average"]
        average.lerp_(matrix.grad, 1 - group["momentum"])
        ahead = matrix.grad.lerp(average, group["momentum"]).flatten(1)
        size = ADAMS_SIZE * math.sqrt(max(ahead.shape))
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(orthogonal(ahead).view_as(matrix), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """About UVᵀ of USVᵀ: singular values between 0.7 and 1.2 where they were above a hundredth of |S|. [m, n]

    X ← aX + (bA + cA²)X with A = XXᵀ, five times from X = G / |G|: Newton and Schulz's iteration, tuned by Jordan.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = POLYNOMIAL
    found = matrix.to(quick_dtype(matrix.device))
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.to(matrix.dtype)


def hidden_matrices(networks: Sequence[nn.Module], *, but: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Weights of linears and convolutions, but those of the layers named: what meets data is for AdamW."""
    modules = [module for network in networks for module in network.modules()]
    hidden = [module for module in modules if not any(module is other for other in but)]
    return [cast(nn.Parameter, module.weight) for module in hidden if isinstance(module, nn.Linear | nn.Conv2d)]
