import pytest
import torch

from hyperdreambooth import rounding
from hyperdreambooth.attach import aux_basis
from hyperdreambooth.basis import aux_matrices
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.layers import LayerKind
from hyperdreambooth.lidb import LiDB, from_taps, narrow_rank, relax_rank, shared_start, to_taps
from tests.hyperdreambooth.conftest import LIDB, random_lidb


def test_a_fresh_lidb_has_no_delta(base_model: BaseModel) -> None:
    lidb = shared_start(aux_basis(base_model, LIDB), subjects=2)
    assert all(not lidb.delta(layer).any() for layer in lidb.basis.table.layers)
    assert lidb.b_train.abs().min() > 0  # from two zeros no gradient would flow


def test_the_delta_has_the_norm_of_the_train_matrices(base_model_double: BaseModel) -> None:
    # Semi-orthogonal aux matrices are isometries: |ΔW| = |A_train B_train|.
    lidb = random_lidb(base_model_double, subjects=2, rank=3)
    for layer in lidb.basis.table.layers:
        a_slice, b_slice = lidb.basis.table.slices[layer.name]
        product = lidb.a_train[..., a_slice].transpose(1, 2) @ lidb.b_train[..., b_slice]
        norms = torch.linalg.matrix_norm(lidb.delta(layer))
        torch.testing.assert_close(norms, torch.linalg.matrix_norm(product), rtol=1e-6, atol=0)


def test_relaxing_the_rank_leaves_every_delta_as_it_was(base_model: BaseModel) -> None:
    lidb = random_lidb(base_model, subjects=2)
    relaxed = relax_rank(lidb, 4, [torch.Generator().manual_seed(seed) for seed in (1, 2)], std=0.05)
    assert relaxed.rank == 4
    for layer in lidb.basis.table.layers:
        torch.testing.assert_close(relaxed.delta(layer), lidb.delta(layer))
    assert not torch.equal(relaxed.a_train[0, 1:], relaxed.a_train[1, 1:])


def test_the_new_rank_of_a_subject_does_not_depend_on_its_neighbours(base_model: BaseModel) -> None:
    lidb = random_lidb(base_model, subjects=2)
    together = relax_rank(lidb, 2, [torch.Generator().manual_seed(seed) for seed in (1, 2)], std=0.05)
    alone = random_lidb(base_model, subjects=1)
    alone = relax_rank(alone, 2, [torch.Generator().manual_seed(2)], std=0.05)
    assert torch.equal(together.a_train[1, 1], alone.a_train[0, 1])


def test_one_product_for_everybody_is_as_good_as_one_for_each(base_model_double: BaseModel) -> None:
    lidb = random_lidb(base_model_double, subjects=3, rank=2)
    together, in_bfloat16 = lidb.factors(), lidb.factors(torch.bfloat16)
    for row in range(3):
        each = LiDB(lidb.basis, lidb.a_train[row : row + 1], lidb.b_train[row : row + 1]).factors()
        for name, factors in each.items():
            for own, shared, rounded in zip(factors, together[name], in_bfloat16[name], strict=True):
                torch.testing.assert_close(shared[row : row + 1], own, rtol=1e-12, atol=1e-12)
                assert rounded.dtype is torch.bfloat16
                off = rounded[row : row + 1] - own
                assert torch.linalg.vector_norm(off) <= 0.01 * torch.linalg.vector_norm(own)


def test_a_subjects_factors_have_its_own_bits_where_others_change_them(
    base_model_double: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lidb, bmm = random_lidb(base_model_double, subjects=3, rank=2), torch.bmm
    alone = LiDB(lidb.basis, lidb.a_train[1:2], lidb.b_train[1:2]).factors()
    monkeypatch.setattr(rounding, "_rows_at_once", {})
    monkeypatch.setattr(torch, "bmm", lambda left, right: bmm(left, right) * (left.shape[1] / 2))  # of rank 2
    together = lidb.factors()
    for name, own in alone.items():
        for side in (0, 1):
            assert torch.equal(together[name][side][1:2], own[side])


def test_taps_are_kernels_turned_round_place_by_place() -> None:
    kernels = torch.arange(2.0 * 5 * 9).view(2, 5 * 9)
    taps = to_taps(kernels).view(2, 3, 3, 5)
    for row, column in ((0, 0), (0, 1), (2, 1)):
        assert torch.equal(taps[:, row, column], kernels.view(2, 5, 3, 3)[:, :, 2 - row, 2 - column])
    assert torch.equal(from_taps(to_taps(kernels)), kernels)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kind", LayerKind)
def test_factors_multiply_to_the_formula_of_the_paper(base_model_double: BaseModel, kind: LayerKind, rank: int) -> None:
    lidb = random_lidb(base_model_double, subjects=1, rank=rank)
    layer = next(layer for layer in lidb.basis.table.layers if LayerKind.of(layer.name) is kind)
    a_slice, b_slice = lidb.basis.table.slices[layer.name]
    a_aux, b_aux = (torch.from_numpy(aux).double() for aux in aux_matrices(layer, lidb.basis.config.aux_seed))
    written_out = a_aux @ lidb.a_train[0, :, a_slice].T @ lidb.b_train[0, :, b_slice] @ b_aux
    torch.testing.assert_close(lidb.delta(layer)[0], written_out)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_narrowed_rank_is_the_nearest(base_model: BaseModel, rank: int) -> None:
    basis = aux_basis(base_model, LIDB)
    generator = torch.Generator().manual_seed(3)
    sides = [torch.randn(2, 3, total, generator=generator) for total in (basis.table.total_a, basis.table.total_b)]
    lidb = LiDB(basis, *sides)
    narrowed = narrow_rank(lidb, rank)
    assert narrowed.rank == rank
    for name, (a, b) in basis.table.slices.items():
        whole = lidb.a_train[..., a].mT @ lidb.b_train[..., b]
        nearest = narrowed.a_train[..., a].mT @ narrowed.b_train[..., b]
        left_out = torch.linalg.svdvals(whole)[:, rank:].square().sum(dim=1).sqrt()
        torch.testing.assert_close((whole - nearest).norm(dim=(1, 2)), left_out, atol=1e-4, rtol=1e-4, msg=name)
