"""Face to train matrices (paper, section 4.2): an image encoder, and a decoder that refines a token per layer."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hyperdreambooth.config import HypernetworkConfig, LiDBConfig, from_json, to_json
from hyperdreambooth.errors import WeightsDamaged
from hyperdreambooth.lidb import AuxBasis, LiDB, shared_start

FOLDER = "hypernetwork"  # inside the base model's folder
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class Attention(nn.Module):
    """Multi-head attention of tokens to a context; to themselves where there is none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (S, T, d), (S, C, d)
        key, value = self.key_value(x if context is None else context).chunk(2, dim=-1)
        query, key, value = (self._split(tokens) for tokens in (self.query(x), key, value))
        h = F.scaled_dot_product_attention(query, key, value)  # (S, heads, T, d / heads)
        return torch.as_tensor(self.out(h.transpose(1, 2).flatten(2)))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:-1], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block; with cross-attention if it decodes."""

    def __init__(self, width: int, heads: int, *, reads_context: bool) -> None:
        super().__init__()
        self.self_norm, self.self_attention = nn.LayerNorm(width), Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if reads_context else None
        self.cross_attention = Attention(width, heads) if reads_context else None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.self_attention(self.self_norm(x))
        if self.cross_norm is not None and self.cross_attention is not None:
            x = x + self.cross_attention(self.cross_norm(x), context)
        return torch.as_tensor(x + self.mlp(self.mlp_norm(x)))


class FaceEncoder(nn.Module):
    """A small vision transformer whose patches are made by a few convolutions."""

    def __init__(self, config: HypernetworkConfig) -> None:
        super().__init__()
        channels = (3, *config.stem_channels, config.width)
        convolutions: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            convolutions += [nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1), nn.GELU()]
        self.stem = nn.Sequential(*convolutions[:-1])
        patches = (config.image_size // 2 ** (len(channels) - 1)) ** 2
        self.positions = nn.Parameter(torch.zeros(patches, config.width))
        blocks = [Block(config.width, config.heads, reads_context=False) for _ in range(config.encoder_layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:  # (S, 3, H, W) in -1..1
        x = self.stem(x).flatten(2).transpose(1, 2)  # (S, patches, d)
        return torch.as_tensor(self.norm(self.blocks(x + self.positions)))


class WeightDecoder(nn.Module):
    """Refines weight tokens, one for each rank of each target layer, each holding its a + b numbers."""

    def __init__(self, config: HypernetworkConfig, *, tokens: int, numbers: int) -> None:
        super().__init__()
        self.refinement_passes = config.refinement_passes
        self.positions = nn.Parameter(torch.zeros(tokens, config.width))
        self.read = nn.Linear(numbers, config.width)
        blocks = [Block(config.width, config.heads, reads_context=True) for _ in range(config.decoder_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width)
        self.heads = nn.Parameter(torch.zeros(tokens, config.width, numbers))

    def forward(self, features: Tensor) -> Tensor:
        """θ_0 = 0,  θ_k = θ_{k-1} + heads(decoder(features, θ_{k-1})): [S, tokens, a + b]."""
        count, _, numbers = self.heads.shape
        tokens = features.new_zeros(features.shape[0], count, numbers)
        for _ in range(self.refinement_passes):
            h = self.positions + self.read(tokens)  # (S, tokens, d)
            for block in self.blocks:
                h = block(h, features)
            tokens = tokens + torch.einsum("std,tdn->stn", self.norm(h), self.heads)
        return tokens


class Hypernetwork(nn.Module):
    """Predicts the LiDB of each face, of rank 1 in the paper, as a difference from a start that all subjects share."""

    def __init__(self, config: HypernetworkConfig, basis: AuxBasis) -> None:
        super().__init__()
        self.config = config
        self.basis = basis
        layers = basis.table.layers
        self.a, self.b = max(layer.a for layer in layers), max(layer.b for layer in layers)
        self.encoder = FaceEncoder(config)
        self.decoder = WeightDecoder(config, tokens=config.rank * len(layers), numbers=self.a + self.b)
        self.start_b = nn.Parameter(torch.zeros(config.rank, basis.table.total_b))
        # A layer narrower than a or b leaves the rest of its token unused.
        used_a = torch.tensor([[column < layer.a for column in range(self.a)] for layer in layers])
        used_b = torch.tensor([[column < layer.b for column in range(self.b)] for layer in layers])
        self.register_buffer("used_a", used_a.flatten().nonzero()[:, 0], persistent=False)
        self.register_buffer("used_b", used_b.flatten().nonzero()[:, 0], persistent=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start near the shared start: a fresh hypernetwork hardly changes the base model, yet gradient flows."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                nn.init.trunc_normal_(parameter, std=min(0.02, fan_in**-0.5), generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
        nn.init.normal_(self.decoder.heads, std=0.02 * self.config.width**-0.5, generator=generator)
        # The first rank starts as everybody does who has no hypernetwork; the others must differ from it.
        nn.init.normal_(self.start_b, std=self.basis.config.start_std, generator=generator)
        self.start_b.data[:1] = shared_start(self.basis, subjects=1).b_train[0]

    def forward(self, faces: Tensor) -> LiDB:
        """Faces [S, 3, H, W] in -1..1, of any size: they are resized to what the encoder sees."""
        size = self.config.image_size
        if faces.shape[-2:] != (size, size):
            faces = F.interpolate(faces, (size, size), mode="bilinear", antialias=True)
        tokens = self.decoder(self.encoder(faces)).to(self.basis.dtype)
        by_rank = tokens.unflatten(1, (self.config.rank, -1))  # [S, r, layers, a + b]
        a_train = by_rank[..., : self.a].flatten(2)[..., self.used_a]
        b_train = by_rank[..., self.a :].flatten(2)[..., self.used_b] + self.start_b.to(self.basis.dtype)
        return LiDB(self.basis, a_train, b_train)


def save_hypernetwork(hypernetwork: Hypernetwork, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write `config.json` (with what the weights were trained for, and their hash) and `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to("cpu", dtype) for name, tensor in hypernetwork.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    description = {
        "hypernetwork": json.loads(to_json(hypernetwork.config)),
        "lidb": json.loads(to_json(hypernetwork.basis.config)),
        "layers_sha256": hypernetwork.basis.table.sha256,
        "aux_sha256": hypernetwork.basis.learned_hash,
        "sha256": hypernetwork_hash(folder),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")


def load_hypernetwork(folder: Path, basis: AuxBasis) -> Hypernetwork:
    """Read it back, on the basis' device. WeightsDamaged where files or base model don't belong together."""
    description = json.loads((folder / CONFIG_FILE).read_text())
    if description["sha256"] != hypernetwork_hash(folder):
        raise WeightsDamaged(f"{folder / WEIGHTS_FILE} is not the file that {CONFIG_FILE} describes")
    trained_for = from_json(LiDBConfig, json.dumps(description["lidb"]))
    same_aux = description.get("aux_sha256") == basis.learned_hash
    if trained_for != basis.config or description["layers_sha256"] != basis.table.sha256 or not same_aux:
        raise WeightsDamaged(f"the hypernetwork in {folder} was trained for other target layers or aux matrices")
    hypernetwork = Hypernetwork(from_json(HypernetworkConfig, json.dumps(description["hypernetwork"])), basis)
    weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    hypernetwork.load_state_dict(weights)
    return hypernetwork.to(basis.device).eval().requires_grad_(False)


def hypernetwork_hash(folder: Path) -> str:
    """sha256 of the weights: part of what an adapter was made with."""
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
