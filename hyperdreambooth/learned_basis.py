"""Aux matrices learned from a base model: the directions in which faces pull its weights (ours).

The paper's are random (section 4.1). But what a layer's weights could gain from a photo lies in few directions: its
gradient is a sum of products of what comes in and what goes back, and both are far from white. With G_p [n, m] the
gradient of person p's denoising loss by W,

    A_aux = leading eigenvectors of  Σ_p G_p G_p^T     [n, a]
    B_aux = leading eigenvectors of  Σ_p G_p^T G_p     [m, b], transposed

which is the truncated higher-order singular value decomposition of all G_p (De Lathauwer, De Moor and Vandewalle 2000).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperdreambooth.basis import Matrix
from hyperdreambooth.diffusion import BaseModel, encode_tokens
from hyperdreambooth.layers import LayerTable
from hyperdreambooth.losses import denoising_loss, head_weights, stratified_timesteps

POWER_ITERATIONS = 8
SPARE_COLUMNS = 16  # carried along in the iterations, so that the last wanted ones are exact
EXACT_BELOW = 512  # columns: wider matrices are iterated on


class GradientMoments:
    """Σ G G^T and Σ G^T G of every target layer: n² + m² numbers each, 400 MB in all for `mini`."""

    def __init__(self, base_model: BaseModel, table: LayerTable) -> None:
        self.base_model = base_model
        self.table = table
        device = base_model.device
        self.people = 0
        self.outputs = {layer.name: torch.zeros(layer.n, layer.n, device=device) for layer in table.layers}
        self.inputs = {layer.name: torch.zeros(layer.m, layer.m, device=device) for layer in table.layers}

    def add(self, latents: Tensor, tokens: Tensor, generator: torch.Generator, *, background: float) -> None:
        """One person's gradient, from pictures [P, c, h, w] of them and the prompt's tokens [1, T]."""
        gradients = self._gradients(latents, tokens, generator, background=background)
        for name, gradient in gradients.items():
            flat = gradient.float().flatten(1)
            self.outputs[name].addmm_(flat, flat.T)
            self.inputs[name].addmm_(flat.T, flat)
        self.people += 1

    def aux_matrices(self) -> dict[str, Matrix]:
        """`<layer>.a` [n, a] and `<layer>.b` [b, m], what weighs most first."""
        matrices: dict[str, Matrix] = {}
        for layer in self.table.layers:
            matrices[f"{layer.name}.a"] = _leading(self.outputs[layer.name], layer.a).cpu().numpy()
            matrices[f"{layer.name}.b"] = _leading(self.inputs[layer.name], layer.b).T.cpu().numpy()
        return matrices

    def captured(self, matrices: dict[str, Matrix]) -> dict[str, tuple[float, float]]:
        """Which share of each layer's squared gradients lies within the a and the b columns."""
        return {
            layer.name: (
                _share(self.outputs[layer.name], torch.from_numpy(matrices[f"{layer.name}.a"])),
                _share(self.inputs[layer.name], torch.from_numpy(matrices[f"{layer.name}.b"].T)),
            )
            for layer in self.table.layers
        }

    def _gradients(
        self, latents: Tensor, tokens: Tensor, generator: torch.Generator, *, background: float
    ) -> dict[str, Tensor]:
        base_model, count = self.base_model, len(latents)
        weights = {layer.name: base_model.targets[layer.name].weight for layer in self.table.layers}
        timesteps = stratified_timesteps(count, base_model.scheduler.config.num_train_timesteps, generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        before = [weight.requires_grad for weight in weights.values()]
        try:
            for weight in weights.values():
                weight.requires_grad_(True)
            losses = denoising_loss(
                base_model,
                latents,
                encode_tokens(base_model, tokens).expand(count, -1, -1),
                timesteps=timesteps.to(latents.device),
                noise=noise,
                weights=head_weights(latents, background=background),
            )
            gradients: Sequence[Tensor] = torch.autograd.grad(losses.mean(), list(weights.values()))
        finally:
            for weight, needed in zip(weights.values(), before, strict=True):
                weight.requires_grad_(needed)
        return dict(zip(weights, gradients, strict=True))


def _leading(moments: Tensor, columns: int) -> Tensor:
    """The leading eigenvectors of a symmetric matrix: [size, columns], orthonormal."""
    if len(moments) <= EXACT_BELOW:
        vectors: Tensor = torch.linalg.eigh(moments.double())[1].flip(1)
        return vectors[:, :columns].float()
    start = torch.randn(len(moments), columns + SPARE_COLUMNS, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.to(moments))[0]
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(moments @ basis)[0]
    within: Tensor = torch.linalg.eigh(basis.T @ moments @ basis)[1].flip(1)
    leading: Tensor = basis @ within
    return leading[:, :columns]


def _share(moments: Tensor, columns: Tensor) -> float:
    columns = columns.to(moments)
    return float(torch.einsum("ij,jk,ik->", columns.T, moments, columns.T) / moments.trace())
