"""Run the base model with deltas beside its weights; the weights themselves are never touched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hyperdreambooth.config import LiDBConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.layers import LayerTable, text_layer_name, unet_layer_name
from hyperdreambooth.lidb import AuxBasis, Factors

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]


class Deltas(Protocol):
    """Low-rank deltas of a batch of subjects: a `LiDB`, or what a comparison puts in its place."""

    @property
    def subjects(self) -> int: ...

    def factors(self) -> Factors: ...


def target_layers(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Linear]:
    """The linears that get a LiDB, by our names: on SD 1.5 128 in the UNet and 72 in the text encoder."""
    targets: dict[str, nn.Linear] = {}
    for network, layer_name in ((unet, unet_layer_name), (text_encoder, text_layer_name)):
        for module_name, module in network.named_modules():
            name = layer_name(module_name)
            if name is not None:
                assert isinstance(module, nn.Linear), module_name
                targets[name] = module
    return targets


def layer_table(unet: nn.Module, text_encoder: nn.Module, config: LiDBConfig) -> LayerTable:
    """The table of a base model's target layers. Works on the meta device too."""
    targets = target_layers(unet, text_encoder)
    shapes = [(name, linear.out_features, linear.in_features) for name, linear in targets.items()]
    return LayerTable.of(shapes, a=config.a, b=config.b)


def aux_basis(base_model: BaseModel, config: LiDBConfig) -> AuxBasis:
    """Draw the aux matrices for a base model, in its dtype's precision but at least float32."""
    table = layer_table(base_model.unet, base_model.text_encoder, config)
    dtype = torch.promote_types(base_model.dtype, torch.float32)
    return AuxBasis(table, config, device=base_model.device, dtype=dtype)


@contextmanager
def attach(base_model: BaseModel, deltas: Deltas, *, subject_of_sample: Tensor | None = None) -> Iterator[BaseModel]:
    """Within the block, each sample of a batch sees its own subject's weights:  y = W x + up^T down x.

    `subject_of_sample` [B] says whose sample each one is; a batch of k B samples (the halves of classifier-free
    guidance) repeats it k times. Without it a batch holds equally many neighbouring samples of each subject, which the
    doubled batch of `sample` does not: draw several subjects with `subject_of_sample` only.
    """
    targets = target_layers(base_model.unet, base_model.text_encoder)
    hooks = []
    try:
        for name, (up, down) in deltas.factors().items():
            hooks.append(targets[name].register_forward_hook(_adds_delta(up, down, subject_of_sample)))
        yield base_model
    finally:
        for hook in hooks:
            hook.remove()


def _adds_delta(up: Tensor, down: Tensor, subject_of_sample: Tensor | None) -> ForwardHook:
    """A hook that adds (x down^T) up to a linear's output."""

    def add_delta(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x = inputs[0]  # [B, tokens, m]
        own_up, own_down = up.to(x.dtype), down.to(x.dtype)  # [S, r, n], [S, r, m]
        if subject_of_sample is not None:
            rows = subject_of_sample.repeat(x.shape[0] // subject_of_sample.shape[0])  # [B]
            own_up, own_down = own_up[rows], own_down[rows]
        subjects = own_up.shape[0]
        assert x.shape[0] % subjects == 0, (x.shape, subjects)
        h = torch.bmm(x.reshape(subjects, -1, x.shape[-1]), own_down.transpose(1, 2))  # [S, B/S * tokens, r]
        by_subject = output.reshape(subjects, -1, output.shape[-1])
        return torch.baddbmm(by_subject, h.to(output.dtype), own_up.to(output.dtype)).view_as(output)

    return add_delta
