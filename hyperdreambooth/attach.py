"""Run the base model with deltas beside its weights; the weights themselves are never touched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import fold

from hyperdreambooth.basis import LearnedAux
from hyperdreambooth.config import LiDBConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.layers import KERNEL, LayerKind, LayerTable, projects_prompt
from hyperdreambooth.lidb import AuxBasis, Factors
from hyperdreambooth.seating import EVERYBODY, Seating
from hyperdreambooth.targets import TargetLayer, target_layers


class Deltas(Protocol):
    """Low-rank deltas of a batch of subjects: a `LiDB`, or what a comparison puts in its place."""

    @property
    def subjects(self) -> int: ...

    def factors(self, dtype: torch.dtype | None = None) -> Factors: ...


def layer_table(unet: nn.Module, text_encoder: nn.Module, config: LiDBConfig) -> LayerTable:
    """The table of a base model's target layers. Works on the meta device too."""
    targets = target_layers(unet, text_encoder)
    shapes = [
        (name, module.weight.shape[0], module.weight[0].numel())
        for name, module in targets.items()
        if LayerKind.of(name) in config.layers
    ]
    return LayerTable.of(shapes, a=config.a, b=config.b)


def aux_basis(base_model: BaseModel, config: LiDBConfig, learned: LearnedAux | None = None) -> AuxBasis:
    """The aux matrices for a base model, in its dtype's precision but at least float32: drawn, or those learned."""
    table = layer_table(base_model.unet, base_model.text_encoder, config)
    dtype = torch.promote_types(base_model.dtype, torch.float32)
    return AuxBasis(table, config, learned, device=base_model.device, dtype=dtype)


@contextmanager
def attach(base_model: BaseModel, deltas: Deltas, *, subject_of_sample: Tensor | None = None) -> Iterator[BaseModel]:
    """Within the block, each sample of a batch sees its own subject's weights:  y = W x + up^T down x.

    `subject_of_sample` [B] says whose sample each one is; a batch of k B samples (the halves of classifier-free
    guidance) repeats it k times. Without it a batch holds equally many neighbouring samples of each subject, which the
    doubled batch of `sample` does not: it draws several subjects with `subject_of_sample` only.
    """
    factors, put = deltas.factors(base_model.dtype), []
    try:
        for name, (up, down) in factors.items():
            slot = slot_of(base_model.targets[name])
            put.append((slot, slot.deltas))
            slot.deltas = (*slot.deltas, _Delta(up, down, base_model.seating))
        own_texts = any(LayerKind.of(name) is LayerKind.TEXT for name in factors)
        own_keys = own_texts or any(projects_prompt(name) for name in factors)
        in_turn = deltas.subjects > 1 and subject_of_sample is None
        seating = base_model.seating
        with seating.seated(subject_of_sample, own_texts=own_texts, own_keys=own_keys, in_turn=in_turn):
            yield base_model
    finally:
        for slot, before in put:
            slot.deltas = before


class _Slot:
    """The forward hook of a target layer, put there once: to change the subject is to fill it with other deltas."""

    def __init__(self) -> None:
        self.deltas: tuple[_Delta, ...] = ()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        for delta in self.deltas:
            output = delta(inputs[0], output)
        return output

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Slot":
        return _Slot()  # a copied network is nobody's


def slot_of(layer: TargetLayer) -> _Slot:
    """The layer's slot, made on first sight."""
    for hook in layer._forward_hooks.values():
        if isinstance(hook, _Slot):
            return hook
    slot = _Slot()
    layer.register_forward_hook(slot)
    return slot


class _Delta:
    """Adds (x down^T) up to a linear's output; to a convolution's, the same with down as its kernel's taps."""

    def __init__(self, up: Tensor, down: Tensor, seating: Seating) -> None:
        self.up, self.down, self.seating = up, down, seating  # [S, r, n], [S, r, m]
        self.seated: tuple[Tensor | None, int, Tensor, Tensor] = (None, 0, up, down)  # of the batch before

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:  # [B, tokens, m], [B, tokens, n]; or [B, c, h, w]
        up, down = self._own(x.shape[0])
        assert x.shape[0] % up.shape[0] == 0, (x.shape, up.shape)
        if x.dim() == 4:
            h = _convolved(x, down).view(up.shape[0], x.shape[0] // up.shape[0], up.shape[1], -1)  # [S, B/S, r, h w]
            return output + (up.transpose(1, 2)[:, None] @ h).view_as(output)
        h = torch.bmm(x.reshape(up.shape[0], -1, x.shape[-1]), down.transpose(1, 2))  # [S, B/S * tokens, r]
        by_subject = output.reshape(up.shape[0], -1, output.shape[-1])
        return torch.baddbmm(by_subject, h, up).view_as(output)

    def _own(self, batch: int) -> tuple[Tensor, Tensor]:
        """The factors of each row's subject; gathered anew only when other rows are seated."""
        rows, part = self.seating.rows, self.seating.part
        if self.up.shape[0] == 1:
            return self.up, self.down
        if rows is None:
            return self.up[self.seating.subjects], self.down[self.seating.subjects]
        if part != EVERYBODY:
            batch = rows.shape[0]
        if torch.compiler.is_compiling():  # a memory would double the graphs
            every = rows.repeat(batch // rows.shape[0])[part]
            return self.up[every], self.down[every]
        seated = self.seated
        if seated[0] is not rows or seated[1] != batch:
            every = rows.repeat(batch // rows.shape[0])
            seated = (rows, batch, self.up[every], self.down[every])
            if not self.up.requires_grad:  # else each thread wants a graph of its own
                self.seated = seated
        return seated[2][part], seated[3][part]


def _convolved(x: Tensor, taps: Tensor) -> Tensor:
    """Each subject's rows of x [B, c, h, w] with its own taps [S, r, 3 * 3 * c]: [B, r, h, w].

    One product of all rows of a subject, then the places of the kernel are summed. A convolution in groups, or one for
    each subject, takes twice as long, and so does a product for each row, which copies the taps for it
    (docs/experiments.md); and nobody's bits depend on the others (rounding.py).
    """
    subjects, channels, size = taps.shape[0], x.shape[1], x.shape[2:]
    rows = x.reshape(subjects, -1, channels, size.numel()).unbind(1)  # unbound, so that gradients lie as x does
    said = torch.bmm(taps.reshape(subjects, -1, channels), torch.cat(rows, dim=2))  # [S, r * 3 * 3, B/S * h w]
    by_row = torch.stack(said.view(subjects, -1, len(rows), size.numel()).unbind(2), dim=1)
    return fold(by_row.flatten(0, 1), size, KERNEL, padding=KERNEL // 2)
