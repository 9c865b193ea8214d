import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import HypernetworkConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.hypernetwork import Hypernetwork
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.recipes.augmentation import jittered
from hyperdreambooth.recipes.pictures import PicturesConfig, block_path
from hyperdreambooth.recipes.schedule import TimeIsUp
from hyperdreambooth.recipes.train_hypernetwork import (
    TrainHypernetworkConfig,
    load_people,
    main,
    prediction_loss,
    random_batch,
    untrained,
)
from tests.hyperdreambooth.conftest import CPU, LIDB
from tests.hyperdreambooth.recipes.stops import StopAfter

PEOPLE, VIEWS, OTHER_STYLES = 24, 2, 2
STYLED = 100  # what the mean of a styled picture's latents has above the photo's
HYPERNETWORK = HypernetworkConfig(
    image_size=16, stem_channels=(8,), width=16, heads=2, encoder_layers=1, decoder_layers=1, refinement_passes=2
)


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Path, base_model: BaseModel) -> TrainHypernetworkConfig:
    """A work folder with the tiny base model and people whose pictures and latents are shades of their own."""
    shutil.copytree(tiny_folder, tmp_path / "base")
    pictures = PicturesConfig(folder=tmp_path, size=16, identities=PEOPLE, views=VIEWS, other_styles=OTHER_STYLES)
    rng = np.random.default_rng(0)
    records = [(who, view, style) for who in range(PEOPLE) for view in range(VIEWS) for style in (0, 3, 5)]
    records = [records[place] for place in rng.permutation(len(records))]
    shades = np.array([10 + who for who, _, _ in records], np.uint8)
    drawn = np.broadcast_to(shades[:, None, None, None], (len(records), 16, 16, 3))
    (tmp_path / "pictures").mkdir()
    np.savez(block_path(pictures, 0), pictures=drawn, records=np.array(records))
    means = np.array([10 + who + (0 if style == 0 else STYLED) for who, _, style in records])
    latents = rng.normal(size=(len(records), *base_model.latent_shape)) + means[:, None, None, None]
    np.save(tmp_path / "latents.npy", latents.astype(np.float16))
    return TrainHypernetworkConfig(
        pictures=pictures, hypernetwork=HYPERNETWORK, steps=3, batch=4, targets=3, held_out=8, threads=1
    )


def test_a_target_is_another_picture_of_the_person_in_the_reference(
    config: TrainHypernetworkConfig, base_model: BaseModel
) -> None:
    people = load_people(config, base_model)
    assert people.references.shape == (PEOPLE, VIEWS, 3, 16, 16)
    assert people.latents.shape[:2] == people.styles.shape == (PEOPLE, VIEWS * (1 + OTHER_STYLES))
    batch = random_batch(people, base_model, config, torch.Generator().manual_seed(0))
    shades = (batch.faces.mean(dim=(1, 2, 3)) + 1) * 127.5
    means = batch.latents.mean(dim=(1, 2, 3)).view(4, 3) % STYLED
    torch.testing.assert_close(means, shades[:, None].expand(4, 3), atol=0.5, rtol=0)


def test_photos_and_styles_come_in_their_shares(config: TrainHypernetworkConfig, base_model: BaseModel) -> None:
    people, generator = load_people(config, base_model), torch.Generator().manual_seed(0)
    batches = [random_batch(people, base_model, config, generator) for _ in range(50)]
    means = torch.cat([batch.latents.mean(dim=(1, 2, 3)) for batch in batches])
    # 600 draws: a half, give or take 5 standard errors.
    assert abs((means < STYLED).float().mean().item() - 0.5) < 0.1


def test_jitter_moves_a_face_a_little() -> None:
    face = torch.zeros(64, 3, 32, 32)
    face[:, :, 12:20, 12:20] = 1
    moved = jittered(face, torch.Generator().manual_seed(0))
    assert moved.shape == face.shape
    assert not torch.allclose(moved[0], moved[1], atol=0.1)
    torch.testing.assert_close(moved.mean(dim=(1, 2, 3)), face.mean(dim=(1, 2, 3)), atol=0.03, rtol=0)


def test_the_hypernetwork_learns_and_the_base_model_does_not(
    config: TrainHypernetworkConfig, base_model: BaseModel
) -> None:
    before = {name: tensor.clone() for name, tensor in base_model.unet.state_dict().items()}
    batch = random_batch(load_people(config, base_model), base_model, config, torch.Generator().manual_seed(0))
    drawn = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    batch = replace(batch, latents=drawn.to(batch.latents))
    hypernetwork = Hypernetwork(HYPERNETWORK, aux_basis(base_model, LIDB))
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(hypernetwork.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = prediction_loss(base_model, hypernetwork, batch)
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in base_model.unet.state_dict().items())


def test_a_run_exports_a_hypernetwork_that_the_base_model_opens_and_goes_on_where_it_was(
    config: TrainHypernetworkConfig, tiny_networks: Networks, capsys: pytest.CaptureFixture[str]
) -> None:
    main(config)
    networks = load_networks(str(config.folder / "base"), device=CPU, dtype=torch.float32)
    assert networks.hypernetwork is not None
    assert networks.hypernetwork.config == HYPERNETWORK
    assert networks.hypernetwork_hash != tiny_networks.hypernetwork_hash
    assert (config.folder / "hypernetwork.png").exists()
    first = capsys.readouterr().out
    main(config)  # the budget is spent: nothing is trained, everything is reported again
    assert first.splitlines()[-1].split("held-out")[1] == capsys.readouterr().out.splitlines()[-1].split("held-out")[1]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(config: TrainHypernetworkConfig) -> None:
    def checkpoint() -> dict[str, object]:
        (path,) = config.folder.glob("hypernetwork-*.pt")
        saved: dict[str, object] = torch.load(path, weights_only=True)
        path.unlink()
        return saved

    main(config)
    whole = checkpoint()
    with pytest.raises(TimeIsUp, match="1 of 3 steps"):
        main(replace(config, deadline=StopAfter(steps=1)))
    main(config)
    torch.testing.assert_close(checkpoint(), whole, rtol=0, atol=0)


def test_a_warm_start_takes_the_hypernetwork_over(
    config: TrainHypernetworkConfig, tiny_folder: Path, tiny_networks: Networks
) -> None:
    assert tiny_networks.hypernetwork is not None
    warm = untrained(replace(config, start=tiny_folder), tiny_networks.basis)
    torch.testing.assert_close(warm.state_dict(), tiny_networks.hypernetwork.state_dict(), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in warm.parameters())
    assert not torch.equal(untrained(config, tiny_networks.basis).decoder.heads, warm.decoder.heads)
