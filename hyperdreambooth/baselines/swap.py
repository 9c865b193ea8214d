"""Other tensors in the place of weights, for a while. The weights themselves are put aside, not copied or changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hyperdreambooth.diffusion import BaseModel

NETWORKS = ("unet", "text_encoder")


def weights_of(base_model: BaseModel) -> dict[str, Tensor]:
    """All weights of UNet and text encoder, by `<network>.<parameter>`."""
    return {
        f"{network}.{name}": weight
        for network in NETWORKS
        for name, weight in getattr(base_model, network).named_parameters()
    }


@contextmanager
def swapped(base_model: BaseModel, weights: Mapping[str, Tensor]) -> Iterator[BaseModel]:
    """Within the block the base model computes with `weights`; gradients flow into whatever these are made of."""
    aside: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, weight in weights.items():
            network, *path, own_name = name.split(".")
            module: nn.Module = getattr(base_model, network).get_submodule(".".join(path))
            places: dict[str, Any] = module._parameters  # a tensor that isn't a leaf can't be set as an attribute
            aside.append((places, own_name, places[own_name]))
            places[own_name] = weight
        yield base_model
    finally:
        for places, own_name, original in reversed(aside):
            places[own_name] = original
