import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hyperdreambooth.attach import attach, aux_basis
from hyperdreambooth.diffusion import BaseModel, encode_tokens, tokenize
from hyperdreambooth.lidb import LiDB, shared_start
from tests.hyperdreambooth.conftest import LIDB, random_lidb

PROMPTS = ["a photo of a [V] face", "a pencil sketch of a [V] person"]


def weights(base_model: BaseModel) -> Iterator[Tensor]:
    for network in (base_model.unet, base_model.text_encoder, base_model.vae):
        yield from network.state_dict().values()


@torch.no_grad()
def denoised(base_model: BaseModel, prompts: list[str], *, seeds: list[int]) -> Tensor:
    """The UNet's answer to fixed noise, one sample for each prompt and seed."""
    noise = [torch.randn(base_model.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.stack(noise).to(base_model.dtype)
    embeddings = encode_tokens(base_model, tokenize(base_model, prompts))
    answer: Tensor = base_model.unet(latents, torch.tensor(500), encoder_hidden_states=embeddings).sample
    return answer


def row(lidb: LiDB, index: int) -> LiDB:
    return LiDB(lidb.basis, lidb.a_train[index : index + 1], lidb.b_train[index : index + 1])


def test_a_fresh_lidb_changes_nothing(base_model: BaseModel) -> None:
    plain = denoised(base_model, PROMPTS, seeds=[1, 2])
    with attach(base_model, shared_start(aux_basis(base_model, LIDB), subjects=1)):
        attached = denoised(base_model, PROMPTS, seeds=[1, 2])
    assert torch.equal(plain, attached)


def test_an_attached_lidb_does_what_merged_weights_do(base_model_double: BaseModel) -> None:
    base_model, lidb = base_model_double, random_lidb(base_model_double, subjects=1, rank=2)
    with attach(base_model, lidb):
        attached = denoised(base_model, PROMPTS, seeds=[1, 2])
    targets = base_model.targets
    originals = {name: linear.weight.clone() for name, linear in targets.items()}
    for layer in lidb.basis.table.layers:
        weight = targets[layer.name].weight.data
        weight += lidb.delta(layer)[0].view_as(weight)
    merged = denoised(base_model, PROMPTS, seeds=[1, 2])
    for name, original in originals.items():
        targets[name].weight.data.copy_(original)
    torch.testing.assert_close(attached, merged, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(attached, denoised(base_model, PROMPTS, seeds=[1, 2]), atol=1e-3)


def test_detached_weights_are_bit_identical_and_so_are_answers(base_model: BaseModel) -> None:
    before, plain = [tensor.clone() for tensor in weights(base_model)], denoised(base_model, PROMPTS, seeds=[1, 2])
    with attach(base_model, random_lidb(base_model, subjects=1)):
        assert not torch.equal(denoised(base_model, PROMPTS, seeds=[1, 2]), plain)
    assert all(torch.equal(old, new) for old, new in zip(before, weights(base_model), strict=True))
    assert torch.equal(denoised(base_model, PROMPTS, seeds=[1, 2]), plain)


def test_an_exception_leaves_nothing_behind(base_model: BaseModel) -> None:
    plain = denoised(base_model, PROMPTS, seeds=[1, 2])
    with pytest.raises(RuntimeError, match="cancelled"), attach(base_model, random_lidb(base_model, subjects=1)):
        raise RuntimeError("cancelled")
    assert torch.equal(denoised(base_model, PROMPTS, seeds=[1, 2]), plain)


def test_a_basis_of_another_model_is_not_left_half_attached(base_model: BaseModel) -> None:
    plain = denoised(base_model, PROMPTS, seeds=[1, 2])
    lidb = random_lidb(base_model, subjects=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(base_model.targets, sorted(base_model.targets)[-1])
        with pytest.raises(KeyError), attach(base_model, lidb):
            pass
    assert torch.equal(denoised(base_model, PROMPTS, seeds=[1, 2]), plain)


def test_each_sample_of_a_mixed_batch_sees_its_own_subject(base_model_double: BaseModel) -> None:
    base_model, lidb = base_model_double, random_lidb(base_model_double, subjects=3, rank=2)
    subject_of_sample = torch.tensor([2, 0, 2, 1])
    prompts, seeds = [PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[0]], [1, 2, 3, 4]
    with attach(base_model, lidb, subject_of_sample=subject_of_sample):
        together = denoised(base_model, prompts, seeds=seeds)
    for sample, subject in enumerate(subject_of_sample.tolist()):
        with attach(base_model, row(lidb, subject)):
            alone = denoised(base_model, prompts[sample : sample + 1], seeds=seeds[sample : sample + 1])
        torch.testing.assert_close(together[sample], alone[0], rtol=1e-9, atol=1e-9)


def test_without_a_list_neighbouring_samples_belong_to_one_subject(base_model_double: BaseModel) -> None:
    base_model, lidb = base_model_double, random_lidb(base_model_double, subjects=2)
    prompts, seeds = PROMPTS * 2, [1, 2, 3, 4]
    with attach(base_model, lidb):
        implied = denoised(base_model, prompts, seeds=seeds)
    with attach(base_model, lidb, subject_of_sample=torch.tensor([0, 0, 1, 1])):
        said = denoised(base_model, prompts, seeds=seeds)
    torch.testing.assert_close(implied, said, rtol=1e-9, atol=1e-9)


def test_only_train_matrices_get_gradients(base_model: BaseModel) -> None:
    lidb = random_lidb(base_model, subjects=1)
    lidb.a_train.requires_grad_()
    lidb.b_train.requires_grad_()
    with attach(base_model, lidb):
        embeddings = encode_tokens(base_model, tokenize(base_model, PROMPTS[:1]))
        latents = torch.zeros(1, *base_model.latent_shape)
        base_model.unet(latents, torch.tensor(500), encoder_hidden_states=embeddings).sample.square().sum().backward()
    assert lidb.a_train.grad is not None
    # Every target layer takes part, the text encoder's too; its last layer norm hides no layer.
    assert all(lidb.a_train.grad[0, 0, a].any() for a, _ in lidb.basis.table.slices.values())
    assert all(
        tensor.grad is None for network in (base_model.unet, base_model.text_encoder) for tensor in network.parameters()
    )


def test_another_subject_is_no_other_hook(base_model: BaseModel) -> None:
    hooks = []
    for seed in range(3):
        with attach(base_model, random_lidb(base_model, subjects=1, seed=seed)):
            hooks.append([list(linear._forward_hooks.values()) for linear in base_model.targets.values()])
    assert hooks[0] == hooks[1] == hooks[2]
    assert all(len(own) == 1 for own in hooks[0])


def test_blocks_within_each_other_add_up_and_end_one_by_one(base_model_double: BaseModel) -> None:
    base_model = base_model_double
    inner, outer = random_lidb(base_model, subjects=1, seed=1), random_lidb(base_model, subjects=1, seed=2)
    both = LiDB(inner.basis, torch.cat([inner.a_train, outer.a_train], 1), torch.cat([inner.b_train, outer.b_train], 1))
    with attach(base_model, both):
        together = denoised(base_model, PROMPTS, seeds=[1, 2])
    with attach(base_model, outer):
        alone = denoised(base_model, PROMPTS, seeds=[1, 2])
        with attach(base_model, inner):
            nested = denoised(base_model, PROMPTS, seeds=[1, 2])
        assert torch.equal(denoised(base_model, PROMPTS, seeds=[1, 2]), alone)
    torch.testing.assert_close(nested, together, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(nested, alone, atol=1e-3)


def test_a_copy_is_nobody_and_goes_its_own_way(base_model: BaseModel) -> None:
    plain, lidb = denoised(base_model, PROMPTS, seeds=[1, 2]), random_lidb(base_model, subjects=1)
    lidb.a_train.requires_grad_()
    with attach(base_model, lidb):
        copied = copy.deepcopy(base_model)
        assert torch.equal(denoised(copied, PROMPTS, seeds=[1, 2]), plain)
        own = denoised(base_model, PROMPTS, seeds=[1, 2])
    with attach(copied, lidb):
        assert torch.equal(denoised(copied, PROMPTS, seeds=[1, 2]), own)
        assert torch.equal(denoised(base_model, PROMPTS, seeds=[1, 2]), plain)
