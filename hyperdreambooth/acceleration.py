"""What may be faster than the networks as they are: bfloat16, plain attention on a CPU, compiled blocks on a GPU.

Subjects are still switched for free: compilation sees the deltas' hooks as part of the graph and their factors as its
inputs, so another subject, and other merged weights, run what is compiled already. A new graph is made for other
shapes and ranks only.
"""

from collections.abc import Mapping

import torch
from diffusers.models.attention_processor import AttnProcessor

from hyperdreambooth.attach import slot_of
from hyperdreambooth.diffusion import BaseModel

# One block's code serves all places of the UNet: three widths, with and without deltas, gradients and stored prompts.
GRAPHS_OF_A_BLOCK = 64
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # as torch calls them on x86, and on ARM


def compile_blocks(base_model: BaseModel, *, backend: str = "inductor") -> None:
    """Compile the UNet's repeated blocks, once for all places; convolutions get the layout that GPUs prefer."""
    for linear in base_model.targets.values():
        slot_of(linear)  # a hook that comes later is not seen
    for network in (base_model.unet, base_model.vae):
        network.to(memory_format=torch.channels_last)
    torch._dynamo.config.recompile_limit = GRAPHS_OF_A_BLOCK
    base_model.unet.compile_repeated_blocks(backend=backend)


def is_compiled(base_model: BaseModel) -> bool:
    return any(module._compiled_call_impl is not None for module in base_model.unet.modules())


def choose_attention(base_model: BaseModel) -> None:
    """softmax(Q K^T) V as products of their own in the UNet, where that pays: in bfloat16 on a CPU.

    There torch's fused attention takes four times as long backwards, and its own plain one looks after rows that are
    masked altogether, a tenth of a step, which no prompt here needs (docs/experiments.md).
    """
    if base_model.device.type == "cpu" and base_model.dtype == torch.bfloat16:
        base_model.unet.set_attn_processor(AttnProcessor())


def quick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, and on a CPU that multiplies in it; else float32.

    A CPU without such instructions takes up to 14 times as long in bfloat16 as in float32, one with them half as long
    (docs/experiments.md). What an older torch can't tell is taken for a no.
    """
    if device.type != "cpu":
        return torch.bfloat16
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if any(able.get(name) for name in BFLOAT16_INSTRUCTIONS) else torch.float32


def quick_products(device: torch.device) -> torch.autocast:
    """Within it, products are in the quick dtype; weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=quick_dtype(device) is torch.bfloat16)
