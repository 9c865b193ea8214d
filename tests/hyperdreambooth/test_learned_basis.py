"""Aux matrices that are learned: what they hold, how they are kept, and who refuses a file made with others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.attach import aux_basis, layer_table
from hyperdreambooth.basis import LEARNED_FILE, LearnedAux, Matrix, load_learned, save_learned
from hyperdreambooth.diffusion import BaseModel, load_base_model, tokenize
from hyperdreambooth.errors import AuxMismatch, WeightsDamaged, WrongBaseModel
from hyperdreambooth.hypernetwork import load_hypernetwork, save_hypernetwork
from hyperdreambooth.learned_basis import GradientMoments, _leading
from hyperdreambooth.lora_export import LoraFormat, folded, to_lora
from hyperdreambooth.personalize import Networks, check_fits, generate, load_networks, personalize_faces
from tests.hyperdreambooth.conftest import CPU, LIDB, write_tiny_folder

TOKENS = "a photo of a [V] face"


def learned(base_model: BaseModel, *, people: int = 2) -> tuple[GradientMoments, dict[str, Matrix]]:
    """From random latents."""
    moments = GradientMoments(base_model, layer_table(base_model.unet, base_model.text_encoder, LIDB))
    for person in range(people):
        generator = torch.Generator().manual_seed(person)
        latents = torch.randn(4, *base_model.latent_shape, generator=generator)
        moments.add(latents, tokenize(base_model, [TOKENS]), generator, background=0.1)
    return moments, moments.aux_matrices()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model with learned aux matrices and no hypernetwork."""
    folder = tmp_path_factory.mktemp("learned") / "tiny"
    write_tiny_folder(folder, prediction_type="v_prediction")
    save_learned(learned(load_base_model(str(folder), device=CPU, dtype=torch.float32))[1], folder)
    return folder


@pytest.fixture(scope="module")
def networks(folder: Path) -> Networks:
    return load_networks(str(folder), device=CPU, dtype=torch.float32)


@pytest.fixture
def adapter(networks: Networks) -> Adapter:
    size = networks.base_model.resolution
    face = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8))
    (outcome,) = personalize_faces([[face]], networks, networks.config, seeds=[1], report=lambda *_: None)
    assert isinstance(outcome, Adapter)
    return outcome


def test_columns_are_orthonormal_and_hold_more_than_random_ones(base_model: BaseModel) -> None:
    moments, matrices = learned(base_model)
    drawn = aux_basis(base_model, LIDB)
    random: dict[str, Matrix] = {}
    for side, ending in ((drawn.up_sides, "a"), (drawn.down_sides, "b")):
        for group in side:
            for name, aux in zip(group.names, group.aux.numpy(), strict=True):
                random[f"{name}.{ending}"] = aux.T if ending == "a" else aux
    for layer in moments.table.layers:
        a_aux, b_aux = matrices[f"{layer.name}.a"], matrices[f"{layer.name}.b"]
        np.testing.assert_allclose(a_aux.T @ a_aux, np.eye(layer.a), atol=1e-5)
        np.testing.assert_allclose(b_aux @ b_aux.T, np.eye(layer.b), atol=1e-5)
    held, by_chance = moments.captured(matrices), moments.captured(random)
    for name, shares in held.items():
        for share, chance in zip(shares, by_chance[name], strict=True):
            assert chance - 1e-4 <= share <= 1 + 1e-4
    assert np.mean(list(held.values())) > 1.2 * np.mean(list(by_chance.values()))


def test_weights_are_as_they_were_and_want_no_gradients(base_model: BaseModel) -> None:
    learned(base_model, people=1)
    assert not any(parameter.requires_grad for parameter in base_model.unet.parameters())


def test_wide_matrices_are_iterated_on_to_the_same_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = torch.randn(60, 60, generator=torch.Generator().manual_seed(0)) * (0.7 ** torch.arange(60))
    moments = factors @ factors.T
    exact = _leading(moments, 5)
    monkeypatch.setattr("hyperdreambooth.learned_basis.EXACT_BELOW", 10)
    iterated = _leading(moments, 5)
    torch.testing.assert_close((exact.T @ iterated).abs(), torch.eye(5), atol=1e-3, rtol=0)


def test_a_folder_with_learned_matrices_uses_them(folder: Path, networks: Networks, adapter: Adapter) -> None:
    found = load_learned(folder)
    assert found is not None
    assert networks.basis.learned_hash == found.sha256 == adapter.provenance.aux_sha256
    layer = networks.basis.table.layers[0]
    side = next(side for side in networks.basis.up_sides if layer.name in side.names)
    np.testing.assert_array_equal(side.aux[side.names.index(layer.name)].T, found(layer)[0])
    read = Adapter.from_bytes(adapter.to_bytes())
    check_fits(networks, read)
    assert len(generate(networks, [read], ["{subject}"], seeds=[1], config=networks.config.sample)) == 1


def test_an_adapter_of_other_aux_matrices_is_refused(tiny_networks: Networks, adapter: Adapter) -> None:
    with pytest.raises(WrongBaseModel):
        check_fits(tiny_networks, adapter)


def test_an_export_needs_the_very_matrices(networks: Networks, adapter: Adapter) -> None:
    own = networks.basis.learned
    assert own is not None
    for other in (None, LearnedAux(own.matrices, "00" * 32)):
        with pytest.raises(AuxMismatch):
            to_lora(adapter, LoraFormat.DIFFUSERS, other)
    assert to_lora(adapter, LoraFormat.DIFFUSERS, own)
    (name, up, down), *_ = folded(adapter, own)
    factors = networks.resident.lidb([adapter]).factors()[name]
    np.testing.assert_allclose(up.T.astype(np.float32), factors[0][0], atol=2e-3 * float(factors[0].abs().max()))
    np.testing.assert_allclose(down.astype(np.float32), factors[1][0], atol=2e-3 * float(factors[1].abs().max()))


def test_a_hypernetwork_belongs_to_its_aux_matrices(
    tiny_networks: Networks, networks: Networks, tmp_path: Path
) -> None:
    assert tiny_networks.hypernetwork is not None
    save_hypernetwork(tiny_networks.hypernetwork, tmp_path)
    with pytest.raises(WeightsDamaged, match="aux matrices"):
        load_hypernetwork(tmp_path, networks.basis)


def test_a_file_that_lacks_a_layer_or_is_too_narrow_is_named(networks: Networks) -> None:
    own, layer = networks.basis.learned, networks.basis.table.layers[0]
    assert own is not None
    with pytest.raises(AuxMismatch, match="no layer"):
        own(replace(layer, name="unet.mid.7.self.q"))
    with pytest.raises(AuxMismatch, match=layer.name):
        own(replace(layer, a=layer.a + 1))
    assert own(replace(layer, a=3))[0].shape == (layer.n, 3)


def test_without_a_file_they_are_drawn(tmp_path: Path) -> None:
    assert load_learned(tmp_path) is None
    assert not (tmp_path / LEARNED_FILE).exists()
