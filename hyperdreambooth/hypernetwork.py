"""Face to train matrices (paper, section 4.2): an encoder of its latents; a decoder that refines a token per layer."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hyperdreambooth.config import HypernetworkConfig, LiDBConfig, from_json, to_json
from hyperdreambooth.errors import WeightsDamaged
from hyperdreambooth.lidb import AuxBasis, LiDB, shared_start

LatentShape = tuple[int, int, int]  # channels, height, width

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


class LatentEncoder(nn.Module):
    """A small vision transformer over the latents of a face.

    Finetuning sees a face through the autoencoder alone, so its latents are all that fitted weights can depend on.
    """

    def __init__(self, config: HypernetworkConfig, latent_shape: LatentShape) -> None:
        super().__init__()
        channels, height, width = latent_shape
        size = config.patch_size
        self.patches = nn.Conv2d(channels, config.width, kernel_size=size, stride=size)
        self.positions = nn.Parameter(torch.zeros((height // size) * (width // size), config.width))
        blocks = [Block(config.width, config.heads, reads_context=False) for _ in range(config.encoder_layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, latents: Tensor) -> Tensor:  # (S, c, h, w)
        x = self.patches(latents).flatten(2).transpose(1, 2)  # (S, patches, d)
        return torch.as_tensor(self.norm(self.blocks(x + self.positions)))


class WeightDecoder(nn.Module):
    """Refines weight tokens, one for each target layer, each holding its r (a + b) numbers."""

    def __init__(self, config: HypernetworkConfig, *, tokens: int, numbers: int) -> None:
        super().__init__()
        self.refinement_passes = config.refinement_passes
        self.positions = nn.Parameter(torch.zeros(tokens, config.width))
        self.read = nn.Linear(numbers, config.width)
        blocks = [Block(config.width, config.heads, reads_context=True) for _ in range(config.decoder_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.heads = nn.Parameter(torch.zeros(tokens, config.width, numbers))

    def forward(self, features: Tensor) -> Iterator[Tensor]:
        """θ_0 = 0,  θ_k = θ_{k-1} + heads(decoder(features, θ_{k-1})): [S, tokens, numbers] after each pass."""
        count, _, numbers = self.heads.shape
        tokens = features.new_zeros(features.shape[0], count, numbers)
        for _ in range(self.refinement_passes):
            h = self.positions + self.read(tokens)  # (S, tokens, d)
            for block in self.blocks:
                h = block(h, features)
            tokens = tokens + torch.einsum("std,tdn->stn", self.mix(self.norm(h)), self.heads)
            yield tokens


class Hypernetwork(nn.Module):
    """Predicts the LiDB of each face, of rank 1 in the paper, as a difference from a start that all subjects share."""

    def __init__(self, config: HypernetworkConfig, basis: AuxBasis, latent_shape: LatentShape) -> None:
        super().__init__()
        self.config, self.basis, self.latent_shape = config, basis, latent_shape
        layers = basis.table.layers
        self.a, self.b = max(layer.a for layer in layers), max(layer.b for layer in layers)
        self.encoder = LatentEncoder(config, latent_shape)
        self.decoder = WeightDecoder(config, tokens=len(layers), numbers=config.rank * (self.a + self.b))
        self.start_a = nn.Parameter(torch.zeros(config.rank, basis.table.total_a))
        self.start_b = nn.Parameter(torch.zeros(config.rank, basis.table.total_b))
        self.used_a: Tensor
        self.used_b: Tensor
        self.unit: Tensor  # what the decoder counts in: how far people differ
        self.register_buffer("unit", torch.ones(()))
        # A layer narrower than a or b leaves the rest of its token unused.
        used_a = torch.tensor([[column < layer.a for column in range(self.a)] for layer in layers])
        used_b = torch.tensor([[column < layer.b for column in range(self.b)] for layer in layers])
        self.register_buffer("used_a", used_a.flatten().nonzero()[:, 0], persistent=False)
        self.register_buffer("used_b", used_b.flatten().nonzero()[:, 0], persistent=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start near the shared start: a fresh hypernetwork hardly changes the base model, yet gradient flows."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                std = 0.5 if name.endswith("positions") else min(0.05, fan_in**-0.5)
                nn.init.trunc_normal_(parameter, std=std, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.decoder.mix.weight, std=0.3 * self.config.width**-0.5, generator=generator)
        nn.init.normal_(self.decoder.heads, std=0.02 * self.config.width**-0.5, generator=generator)
        # The first rank starts as everybody does who has no hypernetwork; the others must differ from it.
        nn.init.zeros_(self.start_a)
        nn.init.normal_(self.start_b, std=self.basis.config.start_std, generator=generator)
        self.start_b.data[:1] = shared_start(self.basis, subjects=1).b_train[0]

    @torch.no_grad()
    def start_from(self, fitted: LiDB) -> None:
        """Begin at people who were fitted [S, ...]: at their mean, with their principal components as heads.

        Then a feature of variance one moves each layer as far as these people differ, along what they differ in most.
        From random heads it takes thousands of steps to find these directions.
        """
        self.start_a.copy_(fitted.a_train.mean(dim=0))
        self.start_b.copy_(fitted.b_train.mean(dim=0))
        apart = torch.cat([fitted.a_train - self.start_a, fitted.b_train - self.start_b], dim=2)
        self.unit.copy_(apart.square().mean().sqrt())
        shares = self._tokens(fitted).transpose(0, 1) / self.unit  # [layers, S, numbers]
        for head, share in zip(self.decoder.heads, shares.double(), strict=True):
            variances, components = torch.linalg.eigh(share.T @ share / len(share))  # rising
            count = min(len(head), len(variances))
            scaled = components[:, -count:] * variances[-count:].clamp(min=0).sqrt()
            head[:count].copy_(scaled.T.flip(0))

    def forward(self, latents: Tensor) -> LiDB:
        """Latents [S, c, h, w] of aligned faces, as the UNet sees them, to the prediction of the last pass."""
        *_, last = self.each_pass(latents)
        return last

    def each_pass(self, latents: Tensor) -> Iterator[LiDB]:
        """The prediction after each refinement pass."""
        for tokens in self.decoder(self.encoder(latents)):
            by_rank = (self.unit * tokens).to(self.basis.dtype).unflatten(2, (self.config.rank, -1)).transpose(1, 2)
            a_train = by_rank[..., : self.a].flatten(2)[..., self.used_a] + self.start_a.to(self.basis.dtype)
            b_train = by_rank[..., self.a :].flatten(2)[..., self.used_b] + self.start_b.to(self.basis.dtype)
            yield LiDB(self.basis, a_train, b_train)

    def _tokens(self, lidb: LiDB) -> Tensor:
        """What the tokens [S, layers, r (a + b)] would have to hold for this prediction."""
        layers, shape = len(self.basis.table.layers), (lidb.subjects, lidb.rank)
        a_side = lidb.a_train.new_zeros(*shape, layers * self.a)
        b_side = lidb.b_train.new_zeros(*shape, layers * self.b)
        a_side[..., self.used_a] = lidb.a_train - self.start_a
        b_side[..., self.used_b] = lidb.b_train - self.start_b
        by_rank = torch.cat([side.view(*shape, layers, -1) for side in (a_side, b_side)], dim=3)
        return by_rank.transpose(1, 2).flatten(2)


def save_hypernetwork(hypernetwork: Hypernetwork, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write `config.json` (with what the weights were trained for, and their hash) and `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to("cpu", dtype) for name, tensor in hypernetwork.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    description = {
        "hypernetwork": json.loads(to_json(hypernetwork.config)),
        "latent_shape": hypernetwork.latent_shape,
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
    if "latent_shape" not in description:
        raise WeightsDamaged(f"the hypernetwork in {folder} looks at pixels, as an older version did: train a new one")
    channels, height, width = description["latent_shape"]
    config = from_json(HypernetworkConfig, json.dumps(description["hypernetwork"]))
    hypernetwork = Hypernetwork(config, basis, (channels, height, width))
    weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    hypernetwork.load_state_dict(weights)
    return hypernetwork.to(basis.device).eval().requires_grad_(False)


def hypernetwork_hash(folder: Path) -> str:
    """sha256 of the weights: part of what an adapter was made with."""
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
