"""peft's layers, put around some of a base model's and taken out again without a trace."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from hyperdreambooth.diffusion import BaseModel


@contextmanager
def peft_layers(
    base_model: BaseModel, targets: Mapping[str, Sequence[str]], *, rank: int, seed: int = 0
) -> Iterator[dict[str, nn.Parameter]]:
    """Within the block LoRAs (alpha = rank) stand around the `targets`; afterwards the very modules are back.

    `targets`: by network (`unet`, `text_encoder`), names as peft's `target_modules` takes them. Yields the LoRAs'
    parameters by network and peft's name; peft draws them from the global generator, which is put back as it was.
    """
    networks = {name: getattr(base_model, name) for name, layers in targets.items() if layers}
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for name, network in networks.items():
                config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets[name]))
                inject_adapter_in_model(config, network)
        yield {
            f"{name}.{own}": parameter
            for name, network in networks.items()
            for own, parameter in network.named_parameters()
            if "lora_" in own
        }
    finally:
        for network in networks.values():
            recurse_remove_peft_layers(network)  # type: ignore[no-untyped-call]  # diffusers
            vars(network).pop("peft_config", None)  # what peft leaves behind
