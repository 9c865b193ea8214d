"""The target layers by our own names, so that a stored adapter outlives a renaming in diffusers or transformers.

`unet.down.0.1.cross.k` is the key projection of the text attention in the second transformer of the first down block,
`text.3.mlp.in` the first linear of the fourth layer's MLP. No torch here: housekeeping folds adapters without it.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

# Paper, section 4.1: the projections of self- and cross-attention in the UNet, and the linears of the text encoder with
# its MLP. Our names on the left, module names (diffusers 0.42, transformers 5; older ones had `text_model.` in front).
UNET_PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
UNET_ATTENTIONS = {"self": "attn1", "cross": "attn2"}
TEXT_PROJECTIONS = {
    "self.q": "self_attn.q_proj",
    "self.k": "self_attn.k_proj",
    "self.v": "self_attn.v_proj",
    "self.out": "self_attn.out_proj",
    "mlp.in": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}
# Ours, where a base model asks for them: most of a small UNet's weights are in its resnets.
UNET_CONVOLUTIONS = {"in": "conv1", "out": "conv2"}
KERNEL = 3  # of these: the rows of W, and of B_aux, are [inputs, 3, 3], flattened
MAX_WIDTH = 1 << 14
BLOCKS = {"down": "down_blocks", "mid": "mid_block", "up": "up_blocks"}
_UNET_MODULE = re.compile(
    r"(down_blocks|mid_block|up_blocks)((?:\.\d+)?)\.attentions\.(\d+)\.transformer_blocks\.(\d+)"
    r"\.(attn[12])\.(to_q|to_k|to_v|to_out\.0)"
)
_CONVOLUTION_MODULE = re.compile(r"(down_blocks|mid_block|up_blocks)((?:\.\d+)?)\.resnets\.(\d+)\.(conv[12])")
_TEXT_MODULE = re.compile(r"(?:text_model\.)?encoder\.layers\.(\d+)\.(\w+\.\w+)")


@dataclass(frozen=True, order=True)
class LayerShape:
    """A target layer: W is [n, m], A_train [a, r], B_train [r, b]. A convolution's m is inputs * 3 * 3."""

    name: str
    n: int
    m: int
    a: int
    b: int

    @property
    def is_convolution(self) -> bool:
        return is_convolution(self.name)

    @property
    def is_sensible(self) -> bool:
        """Could a stored table mean this? Aux matrices of any size asked for would fill the memory."""
        return 0 < self.a <= self.n <= MAX_WIDTH and 0 < self.b <= self.m <= MAX_WIDTH


@dataclass(frozen=True)
class LayerTable:
    """The target layers in the order in which flat train matrices hold their numbers."""

    layers: tuple[LayerShape, ...]

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, int, int]], *, a: int, b: int) -> "LayerTable":
        """A table of (name, n, m), sorted by name; a layer narrower than a or b gets a narrower LiDB."""
        ordered = sorted(shapes, key=lambda shape: _natural(shape[0]))
        return cls(tuple(LayerShape(name, n, m, min(a, n), min(b, m)) for name, n, m in ordered))

    @cached_property
    def total_a(self) -> int:
        return sum(layer.a for layer in self.layers)

    @cached_property
    def total_b(self) -> int:
        return sum(layer.b for layer in self.layers)

    @cached_property
    def slices(self) -> dict[str, tuple[slice, slice]]:
        """Where each layer's numbers lie in the flat A_train and B_train."""
        places, a_start, b_start = {}, 0, 0
        for layer in self.layers:
            places[layer.name] = (slice(a_start, a_start + layer.a), slice(b_start, b_start + layer.b))
            a_start, b_start = a_start + layer.a, b_start + layer.b
        return places

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._json().encode()).hexdigest()

    def packed(self) -> str:
        """The table as a short ASCII string: it has to fit into an adapter's header."""
        return base64.b85encode(zlib.compress(self._json().encode(), level=9)).decode()

    @classmethod
    def unpacked(cls, packed: str) -> "LayerTable":
        """The inverse of `packed`. ValueError for anything else, and for a table too large to be one."""
        decompressor = zlib.decompressobj()
        try:
            text = decompressor.decompress(base64.b85decode(packed), 1 << 20)
            rows = json.loads(text)
            layers = tuple(LayerShape(str(name), *map(int, sizes)) for name, *sizes in rows)
        except (zlib.error, TypeError, ValueError, RecursionError) as error:
            raise ValueError("not a layer table") from error
        if not layers or any(not layer.is_sensible for layer in layers):
            raise ValueError("a layer of impossible size")
        return cls(layers)

    def _json(self) -> str:
        rows = [(layer.name, layer.n, layer.m, layer.a, layer.b) for layer in self.layers]
        return json.dumps(rows, separators=(",", ":"))


def unet_layer_name(module: str) -> str | None:
    """Our name for a module of the UNet; None where it is no target layer."""
    match = _CONVOLUTION_MODULE.fullmatch(module)
    if match is not None:
        block, index, resnet, convolution = match.groups()
        return f"unet.{_key(BLOCKS, block)}{index}.{resnet}.conv.{_key(UNET_CONVOLUTIONS, convolution)}"
    match = _UNET_MODULE.fullmatch(module)
    if match is None:
        return None
    block, index, transformer, depth, attention, projection = match.groups()
    place = _key(BLOCKS, block) + index + "." + transformer + ("" if depth == "0" else f".{depth}")
    return f"unet.{place}.{_key(UNET_ATTENTIONS, attention)}.{_key(UNET_PROJECTIONS, projection)}"


def text_layer_name(module: str) -> str | None:
    """Our name for a module of the text encoder; None where it is no target layer."""
    match = _TEXT_MODULE.fullmatch(module)
    if match is None or match[2] not in TEXT_PROJECTIONS.values():
        return None
    return f"text.{match[1]}.{_key(TEXT_PROJECTIONS, match[2])}"


def module_name(layer: str) -> str:
    """The inverse: where the layer lives in diffusers' UNet, or in the text encoder (without `text_model.`)."""
    network, *place = layer.split(".")
    if network == "text":
        return f"encoder.layers.{place[0]}.{TEXT_PROJECTIONS['.'.join(place[1:])]}"
    block, *numbers, attention, projection = place
    index = "" if block == "mid" else f".{numbers.pop(0)}"
    if attention == "conv":
        return f"{BLOCKS[block]}{index}.resnets.{numbers[0]}.{UNET_CONVOLUTIONS[projection]}"
    transformer, depth = (*numbers, "0")[:2]
    inside = f"{UNET_ATTENTIONS[attention]}.{UNET_PROJECTIONS[projection]}"
    return f"{BLOCKS[block]}{index}.attentions.{transformer}.transformer_blocks.{depth}.{inside}"


class LayerKind(StrEnum):
    """What a layer does. A base model's config says which kinds have a LiDB."""

    ATTENTION = "attention"  # of the UNet
    TEXT = "text"  # the text encoder's linears
    CONVOLUTION = "convolution"  # of the UNet's resnets

    @classmethod
    def of(cls, layer: str) -> "LayerKind":
        if layer.startswith("text."):
            return cls.TEXT
        return cls.CONVOLUTION if is_convolution(layer) else cls.ATTENTION


def is_convolution(layer: str) -> bool:
    return layer.split(".")[-2] == "conv"


def projects_prompt(layer: str) -> bool:
    """Is it a key or value projection of what the text encoder answers?"""
    return layer.endswith((".cross.k", ".cross.v"))


def _key(names: dict[str, str], value: str) -> str:
    return next(key for key, other in names.items() if other == value)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort 2 before 10, whatever order the library lists its modules in."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]
