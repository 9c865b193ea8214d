from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageOps

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.errors import Diverged, NoFace, WrongBaseModel
from hyperdreambooth.lidb import GroupedLiDB
from hyperdreambooth.personalize import Networks, Phase, drawn_as, examples_of, generate, personalize, predict, unpack

SAMPLE = SampleConfig(steps=3, guidance=2.0)


def personalized(networks: Networks, photos: Sequence[Image.Image], seeds: Sequence[int]) -> list[Adapter]:
    results = personalize([[photo] for photo in photos], networks, networks.config, seeds=seeds)
    assert all(isinstance(result, Adapter) for result in results), results
    return [result for result in results if isinstance(result, Adapter)]


def test_the_same_photo_and_seed_give_the_same_bytes(tiny_networks: Networks, photo: Image.Image) -> None:
    (one,), (same,), (other) = (personalized(tiny_networks, [photo], [seed]) for seed in (3, 3, 4))
    assert one.to_bytes() == same.to_bytes() != other[0].to_bytes()


def test_a_photo_without_a_face_harms_no_neighbour(tiny_networks: Networks, photo: Image.Image) -> None:
    coffee = Image.fromarray(skimage.data.coffee())
    first, refused, last = personalize(
        [[photo], [coffee], [ImageOps.mirror(photo)]], tiny_networks, tiny_networks.config, seeds=[1, 2, 3]
    )
    assert isinstance(refused, NoFace)
    assert isinstance(first, Adapter)
    assert isinstance(last, Adapter)
    alone = personalized(tiny_networks, [ImageOps.mirror(photo)], [3])[0]
    assert (first.provenance.seed, last.provenance.seed) == (1, 3)
    # float32, three steps of Adam: what differs is rounding, an eighth of the fp16 steps that are stored.
    np.testing.assert_allclose(last.a_train.astype(float), alone.a_train.astype(float), atol=2e-3)


def test_photos_that_are_all_refused_cost_no_finetuning(tiny_networks: Networks) -> None:
    phases: list[Phase] = []
    results = personalize(
        [[Image.fromarray(skimage.data.coffee())]],
        tiny_networks,
        tiny_networks.config,
        seeds=[1],
        on_progress=lambda phase, step, total: phases.append(phase),
    )
    assert isinstance(results[0], NoFace)
    assert set(phases) == {Phase.VALIDATING}


def test_progress_is_told_phase_by_phase(tiny_networks: Networks, photo: Image.Image) -> None:
    told: list[tuple[Phase, int, int]] = []
    personalize(
        [[photo]],
        tiny_networks,
        tiny_networks.config,
        seeds=[1],
        on_progress=lambda phase, step, total: told.append((phase, step, total)),
    )
    assert told == [
        (Phase.VALIDATING, 0, 1),
        (Phase.PREDICTING, 0, 1),
        (Phase.FINETUNING, 1, 3),
        (Phase.FINETUNING, 2, 3),
        (Phase.FINETUNING, 3, 3),
    ]


def test_a_subject_that_is_no_longer_wanted_stops_moving(tiny_networks: Networks, photo: Image.Image) -> None:
    coffee = Image.fromarray(skimage.data.coffee())

    def on_progress(phase: Phase, step: int, total: int) -> list[bool]:
        return [True, step < 1, True]  # the answer is about subjects: the refused one included

    photos, seeds = [[coffee], [photo], [photo]], [1, 2, 2]
    results = personalize(photos, tiny_networks, tiny_networks.config, seeds=seeds, on_progress=on_progress)
    _, stopped, finished = results
    assert isinstance(stopped, Adapter)
    assert isinstance(finished, Adapter)
    assert stopped.to_bytes() != finished.to_bytes()


def test_a_bad_photo_among_several_is_named(tiny_networks: Networks, photo: Image.Image) -> None:
    coffee = Image.fromarray(skimage.data.coffee())
    refused, made = personalize(
        [[photo, photo, coffee, coffee], [photo]], tiny_networks, tiny_networks.config, seeds=[1, 2]
    )
    assert isinstance(refused, NoFace)
    assert refused.photo == 2
    assert isinstance(made, Adapter)


def test_the_same_photo_twice_is_one_photo(tiny_networks: Networks, photo: Image.Image) -> None:
    results = personalize([[photo], [photo, photo]], tiny_networks, tiny_networks.config, seeds=[1, 1])
    once, twice = (result for result in results if isinstance(result, Adapter))
    # As between neighbours: what differs is rounding.
    np.testing.assert_allclose(once.a_train.astype(float), twice.a_train.astype(float), atol=2e-3)


def test_every_photo_of_a_subject_counts(tiny_networks: Networks, photo: Image.Image) -> None:
    mirrored = ImageOps.mirror(photo)
    results = personalize([[photo], [photo, mirrored], [mirrored]], tiny_networks, tiny_networks.config, seeds=[1] * 3)
    one, both, other = (result.a_train for result in results if isinstance(result, Adapter))
    assert np.linalg.norm(both - one) < np.linalg.norm(other - one) > np.linalg.norm(both - other)
    assert min(np.linalg.norm(both - one), np.linalg.norm(both - other)) > 0.1 * np.linalg.norm(other - one)


def _predicted(networks: Networks, faces: list[list[Image.Image]]) -> torch.Tensor:
    """From the faces alone: among several views of each there would be the mirror image of either."""
    finetune, seeds = replace(networks.config.finetune, views=1), list(range(len(faces)))
    examples = examples_of(networks.base_model, faces, networks.config, finetune, seeds=seeds)
    return predict(networks, examples).b_train


def test_a_prediction_from_several_photos_is_their_mean(tiny_networks: Networks, photo: Image.Image) -> None:
    faces = [photo.resize((16, 16)), ImageOps.mirror(photo).resize((16, 16))]
    one, other = _predicted(tiny_networks, [[face] for face in faces])
    together = _predicted(tiny_networks, [faces, faces[:1]])
    # The autoencoder rounds two pictures at once otherwise.
    torch.testing.assert_close(together[0], (one + other) / 2, rtol=0, atol=1e-4)
    assert torch.equal(together[1], one)
    assert (one - other).abs().max() > 3e-3


def test_an_adapter_says_what_it_was_made_with(tiny_networks: Networks, photo: Image.Image) -> None:
    (adapter,) = personalized(tiny_networks, [photo], [3])
    read = Adapter.from_bytes(adapter.to_bytes()).provenance
    assert read.base_model_hash == tiny_networks.base_model.weights_hash
    assert read.hypernetwork_hash == tiny_networks.hypernetwork_hash
    assert (read.a, read.b, read.rank, read.seed) == (12, 6, 2, 3)
    assert (read.trigger, read.method) == ("[V] face", "hyperdreambooth")
    assert read.finetune["steps"] == 3


def test_without_a_hypernetwork_everybody_starts_from_the_shared_start(
    tiny_networks: Networks, photo: Image.Image
) -> None:
    networks = replace(tiny_networks, hypernetwork=None, hypernetwork_hash=None)
    (adapter,) = personalized(networks, [photo], [3])
    assert adapter.provenance.method == "lidb"
    assert adapter.provenance.hypernetwork_hash is None
    assert adapter.a_train.any()


def test_a_finetuning_that_diverges_is_the_subjects_own_failure(tiny_networks: Networks, photo: Image.Image) -> None:
    config = tiny_networks.config
    config = replace(config, finetune=replace(config.finetune, learning_rate=float("inf")))
    assert isinstance(personalize([[photo]], tiny_networks, config, seeds=[1])[0], Diverged)


def test_a_picture_depends_on_its_own_adapter_prompt_and_seed_alone(
    tiny_networks: Networks, photo: Image.Image
) -> None:
    one, two = personalized(tiny_networks, [photo, ImageOps.mirror(photo)], [1, 2])
    prompts = ["a photo of a {subject}", "a pencil sketch of a {subject}", "a photo of a {subject}"]
    together = generate(tiny_networks, [two, one, one], prompts, seeds=[5, 6, 7], config=SAMPLE)
    alone = generate(tiny_networks, [one], prompts[1:2], seeds=[6], config=SAMPLE)
    assert np.abs(np.asarray(together[1], int) - np.asarray(alone[0], int)).max() <= 2  # of 255


def test_any_mix_of_subjects_and_configs_draws_each_picture_as_alone(
    tiny_networks: Networks, photo: Image.Image
) -> None:
    one, two = personalized(tiny_networks, [photo, ImageOps.mirror(photo)], [1, 2])
    adapters = [two, one, two, one, two]
    prompts = ["a photo of a {subject}", "a pencil sketch of a {subject}", "", "a photo of a {subject}", "a face"]
    configs = [
        SampleConfig(steps=5, guidance=2.0),
        SampleConfig(steps=3, guidance=4.0, negative_prompt="a person"),
        SampleConfig(steps=4, guidance=2.0, width=24, height=12),
        SampleConfig(steps=3, guidance=2.0, width=24, height=12),
        SampleConfig(steps=5, guidance=0.5, negative_prompt="a person"),
    ]
    together = generate(tiny_networks, adapters, prompts, seeds=range(5), config=configs)
    for place, image in enumerate(together):
        (alone,) = generate(tiny_networks, [adapters[place]], [prompts[place]], seeds=[place], config=configs[place])
        assert image.size == alone.size
        assert np.abs(np.asarray(image, int) - np.asarray(alone, int)).max() <= 2  # of 255


def test_adapters_of_different_rank_draw_side_by_side(tiny_networks: Networks, photo: Image.Image) -> None:
    config = tiny_networks.config
    wide = replace(config, finetune=replace(config.finetune, rank=4))
    (narrow,) = personalized(tiny_networks, [photo], [1])
    (broad,) = (result for result in personalize([[photo]], tiny_networks, wide, seeds=[1]))
    assert isinstance(broad, Adapter)
    lidb = unpack(tiny_networks, [narrow, broad])
    assert lidb.numbers.shape[1] == 4
    own = np.concatenate([narrow.a_train, narrow.b_train], axis=1)
    in_file = lidb.numbers[..., lidb.basis.grouping.argsort()]
    torch.testing.assert_close(in_file[0, :2], torch.from_numpy(own.astype(np.float32)))
    assert not in_file[0, 2:].any()


def test_an_adapter_of_another_base_model_is_refused(tiny_networks: Networks, photo: Image.Image) -> None:
    (adapter,) = personalized(tiny_networks, [photo], [1])
    stranger = replace(tiny_networks, base_model=replace(tiny_networks.base_model, weights_hash="0" * 64))
    with pytest.raises(WrongBaseModel):
        generate(stranger, [adapter], ["a {subject}"], seeds=[1], config=SAMPLE)


def test_one_subject_is_in_the_weights_and_several_stand_beside_them(
    tiny_networks: Networks, photo: Image.Image
) -> None:
    layers = list(tiny_networks.base_model.targets.values())
    before = [layer.weight.clone() for layer in layers]
    both = unpack(tiny_networks, personalized(tiny_networks, [photo, ImageOps.mirror(photo)], [1, 2]))
    alone = GroupedLiDB(both.basis, both.numbers[:1])
    changed = {}
    for name, lidb in (("both", both), ("alone", alone)):
        with drawn_as(tiny_networks, lidb, torch.zeros(2, dtype=torch.long)):
            changed[name] = [not torch.equal(layer.weight, own) for layer, own in zip(layers, before, strict=True)]
    assert not any(changed["both"])
    assert all(changed["alone"])


def test_drawing_a_subject_leaves_the_base_model_as_it_was(tiny_networks: Networks, photo: Image.Image) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_networks.base_model.unet.state_dict().items()}
    (adapter,) = personalized(tiny_networks, [photo], [1])
    generate(tiny_networks, [adapter], ["a {subject}"], seeds=[1], config=SAMPLE)
    after = tiny_networks.base_model.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
