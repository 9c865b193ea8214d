"""Lightweight DreamBooth:  ΔW = A_aux A_train B_train B_aux  in every target layer (paper, section 4.1).

The paper's letters: A stands on the output side. Train matrices of a whole batch of subjects lie in two flat tensors,
so that one optimiser step, one file or one prediction handles all layers of everybody at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperdreambooth.basis import LearnedAux, aux_source, shared_b_train
from hyperdreambooth.config import LiDBConfig
from hyperdreambooth.layers import KERNEL, LayerShape, LayerTable
from hyperdreambooth.rounding import by_blocks

# By layer: up [S, r, n] and down [S, r, m]. A convolution's m are taps, as a delta applies them: [3 * 3, inputs] and
# turned round; `to_taps` leads there from a kernel's [inputs, 3 * 3].
Factors = dict[str, tuple[Tensor, Tensor]]
PLACES = KERNEL * KERNEL


@dataclass(frozen=True, eq=False)
class _Side:
    """The aux matrices of one side of all layers of equal shape, stacked, so that they expand in one product."""

    names: tuple[str, ...]
    aux: Tensor  # [L, width, size]

    @property
    def numbers(self) -> int:
        """How many of a train matrix's columns belong to these layers."""
        return self.aux.shape[0] * self.aux.shape[1]

    def expand(self, train: Tensor, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
        """These layers' own [S, r, L * width] -> one [S, r, size] for each layer."""
        count, rank, _ = train.shape
        layers, width, _ = self.aux.shape
        numbers = train.view(count, rank, layers, width).transpose(1, 2)  # [S, L, r, width]
        if train.device.type == "cpu":
            expanded = by_blocks(self._product, f"aux matrices {tuple(self.aux.shape)}", 1, numbers)
        else:
            expanded = self._product(numbers)
        by_layer = expanded.transpose(0, 1).contiguous()  # [L, S, r, size]
        return zip(self.names, by_layer.to(dtype or train.dtype).unbind(), strict=True)

    def _product(self, numbers: Tensor) -> Tensor:
        """[S, L, r, width] -> [S, L, r, size]."""
        count, layers, rank, width = numbers.shape
        together = numbers.transpose(0, 1).reshape(layers, count * rank, width)
        return torch.bmm(together, self.aux).view(layers, count, rank, -1).transpose(0, 1)


class AuxBasis:
    """The aux matrices of all target layers of a base model, made once and shared by every subject."""

    def __init__(
        self,
        table: LayerTable,
        config: LiDBConfig,
        learned: LearnedAux | None = None,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.table = table
        self.config = config
        self.learned = learned
        draw = aux_source(learned, config.aux_seed)
        aux = {layer.name: draw(layer) for layer in table.layers}
        up = {name: torch.from_numpy(a_aux).T for name, (a_aux, _) in aux.items()}
        down = {name: torch.from_numpy(b_aux) for name, (_, b_aux) in aux.items()}
        down |= {layer.name: to_taps(down[layer.name]) for layer in table.layers if layer.is_convolution}
        self.up_sides = _grouped(up, device, dtype)
        self.down_sides = _grouped(down, device, dtype)
        of_a, of_b = torch.split(torch.arange(table.total_a + table.total_b), [table.total_a, table.total_b])
        grouping = [of_a[table.slices[name][0]] for side in self.up_sides for name in side.names]
        grouping += [of_b[table.slices[name][1]] for side in self.down_sides for name in side.names]
        self.grouping = torch.cat(grouping).to(device)  # [numbers]: which of [A_train, B_train], side after side

    @property
    def learned_hash(self) -> str | None:
        """sha256 of the learned aux matrices; None where the seed draws them."""
        return self.learned.sha256 if self.learned else None

    @property
    def device(self) -> torch.device:
        return self.up_sides[0].aux.device

    @property
    def dtype(self) -> torch.dtype:
        return self.up_sides[0].aux.dtype


@dataclass(frozen=True, eq=False)
class GroupedLiDB:
    """The train matrices of S subjects, layers of equal shape side by side, so that one product expands them."""

    basis: AuxBasis
    numbers: Tensor  # [S, r, numbers], a `LiDB`'s [A_train, B_train] in the order of `basis.grouping`

    @property
    def subjects(self) -> int:
        return self.numbers.shape[0]

    def factors(self, dtype: torch.dtype | None = None) -> Factors:
        """up = A_train^T A_aux^T and down = B_train B_aux of every layer: the deltas as plain rank-r products."""
        ups, downs = self.basis.up_sides, self.basis.down_sides
        own = iter(torch.split(self.numbers, [side.numbers for side in (*ups, *downs)], dim=2))
        up = dict(pair for side in ups for pair in side.expand(next(own), dtype))
        down = dict(pair for side in downs for pair in side.expand(next(own), dtype))
        return {name: (up[name], down[name]) for name in up}


@dataclass(frozen=True, eq=False)
class LiDB:
    """The train matrices of S subjects at rank r."""

    basis: AuxBasis
    a_train: Tensor  # [S, r, sum of a]
    b_train: Tensor  # [S, r, sum of b]

    def __post_init__(self) -> None:
        assert self.a_train.shape[:2] == self.b_train.shape[:2], (self.a_train.shape, self.b_train.shape)
        assert self.a_train.shape[2] == self.basis.table.total_a, self.a_train.shape
        assert self.b_train.shape[2] == self.basis.table.total_b, self.b_train.shape

    @property
    def subjects(self) -> int:
        return self.a_train.shape[0]

    @property
    def rank(self) -> int:
        return self.a_train.shape[1]

    def factors(self, dtype: torch.dtype | None = None) -> Factors:
        """As `GroupedLiDB.factors` has it."""
        return self.grouped().factors(dtype)

    def grouped(self) -> GroupedLiDB:
        numbers = torch.cat([self.a_train, self.b_train], dim=2)
        return GroupedLiDB(self.basis, numbers.index_select(2, self.basis.grouping))

    def delta(self, layer: LayerShape) -> Tensor:
        """ΔW of one layer for each subject: [S, n, m]."""
        up, down = self.factors()[layer.name]
        return up.transpose(1, 2) @ (from_taps(down) if layer.is_convolution else down)


def to_taps(down: Tensor) -> Tensor:
    """Kernels [..., inputs * 3 * 3] as taps [..., 3 * 3 * inputs]: what a pixel says to its neighbours, place by place.

    Turned round: what it says at the kernel's upper left belongs to the pixel at its own lower right.
    """
    return down.reshape(*down.shape[:-1], -1, PLACES).flip(-1).transpose(-1, -2).flatten(-2)


def from_taps(down: Tensor) -> Tensor:
    """The inverse."""
    return down.reshape(*down.shape[:-1], PLACES, -1).transpose(-1, -2).flip(-1).flatten(-2)


def shared_start(basis: AuxBasis, *, subjects: int) -> LiDB:
    """Rank-1 train matrices that belong to nobody, the same for every subject.

    A is zero, so that the base model is unchanged; B is not, since from two zeros no gradient would flow.
    """
    seed, table = basis.config.aux_seed, basis.table
    drawn = [torch.from_numpy(shared_b_train(layer, seed)) for layer in table.layers]
    b_train = torch.cat(drawn) * basis.config.start_std
    a_train = torch.zeros(subjects, 1, table.total_a, device=basis.device, dtype=basis.dtype)
    return LiDB(basis, a_train, b_train.to(a_train).expand(subjects, 1, -1).clone())


def relax_rank(lidb: LiDB, rank: int, generators: Sequence[torch.Generator], *, std: float) -> LiDB:
    """Widen to rank r with ΔW unchanged:  A_train = [A | new],  B_train = [B ; 0].

    The paper (section 4.3) merges the prediction into W and trains a fresh LoRA instead; this form stays inside the aux
    basis, so that a finetuned subject costs r (a + b) numbers a layer instead of r (n + m). One generator per subject.
    """
    assert rank >= lidb.rank, (rank, lidb.rank)
    shape = (rank - lidb.rank, lidb.basis.table.total_a)
    new = torch.stack([torch.randn(shape, generator=generator) for generator in generators]) * std
    zeros = lidb.b_train.new_zeros(lidb.subjects, rank - lidb.rank, lidb.basis.table.total_b)
    a_train = torch.cat([lidb.a_train, new.to(lidb.a_train)], dim=1)
    return LiDB(lidb.basis, a_train, torch.cat([lidb.b_train, zeros], dim=1))


def narrow_rank(lidb: LiDB, rank: int) -> LiDB:
    """The LiDB of lower rank that is nearest, in each layer, to  A_train^T B_train  (Eckart and Young 1936).

    U √σ and √σ V of its largest singular values: as much of each on either side.
    """
    assert rank <= lidb.rank, (rank, lidb.rank)
    table = lidb.basis.table
    a_train = lidb.a_train.new_empty(lidb.subjects, rank, table.total_a)
    b_train = lidb.b_train.new_empty(lidb.subjects, rank, table.total_b)
    for a_slice, b_slice in table.slices.values():
        product = lidb.a_train[..., a_slice].transpose(1, 2) @ lidb.b_train[..., b_slice]  # [S, a, b]
        u, sigma, v = torch.linalg.svd(product, full_matrices=False)
        root = sigma[:, :rank, None].sqrt()
        a_train[..., a_slice] = u.transpose(1, 2)[:, :rank] * root
        b_train[..., b_slice] = v[:, :rank] * root
    return LiDB(lidb.basis, a_train, b_train)


def _grouped(aux: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> tuple[_Side, ...]:
    groups: dict[torch.Size, list[str]] = {}
    for name, matrix in aux.items():
        groups.setdefault(matrix.shape, []).append(name)
    return tuple(
        _Side(tuple(names), torch.stack([aux[name] for name in names]).to(device, dtype)) for names in groups.values()
    )
