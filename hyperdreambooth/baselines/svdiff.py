"""SVDiff (Han et al. 2023): the singular values of every weight matrix,  W = U diag(relu(σ + δ)) V^T.

Their tiny shifts of the one-dimensional weights (learning rate 1e-6) are left out.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.personalized import file_size
from hyperdreambooth.baselines.swap import NETWORKS, swapped
from hyperdreambooth.baselines.training import ClassImages, Example, train
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One weight, a convolution's flattened to [outputs, rest]."""

    left: Tensor  # [n, k]
    values: Tensor  # [k]
    right: Tensor  # [k, m]
    shape: torch.Size

    def shifted(self, shift: Tensor) -> Tensor:
        return ((self.left * (self.values + shift).relu()) @ self.right).view(self.shape)


def spectra(base_model: BaseModel) -> dict[str, Spectrum]:
    """Of all linears and convolutions of UNet and text encoder. The same for every subject: compute it once."""
    found = {}
    for network in NETWORKS:
        for name, module in getattr(base_model, network).named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                weight = module.weight.detach()
                # Half precision has no SVD.
                left, values, right = torch.linalg.svd(weight.flatten(1).float(), full_matrices=False)
                found[f"{network}.{name}.weight"] = Spectrum(
                    left.to(weight), values.to(weight), right.to(weight), weight.shape
                )
    return found


class SVDiff:
    """One number for each singular value."""

    def __init__(self, config: PersonalizeConfig, spectra: Mapping[str, Spectrum]) -> None:
        self.subject = config.subject
        self.spectra = spectra
        self.shifts = {name: torch.zeros_like(spectrum.values).requires_grad_() for name, spectrum in spectra.items()}

    @property
    def parameters(self) -> Sequence[Tensor]:
        return list(self.shifts.values())

    @property
    def stored_bytes(self) -> int:
        return file_size(self.shifts)

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return swapped(base_model, {name: self.spectra[name].shifted(shift) for name, shift in self.shifts.items()})


def svdiff(
    base_model: BaseModel,
    config: PersonalizeConfig,
    example: Example,
    budget: Budget,
    *,
    prior: ClassImages | None,
    spectra: Mapping[str, Spectrum],
) -> SVDiff:
    method = SVDiff(config, spectra)
    train(base_model, method, example, budget, prior=prior)
    return method
