"""The face encoder learns who is on a photo from the renderer's own numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hyperdreambooth.config import HypernetworkConfig
from hyperdreambooth.hypernetwork import FaceEncoder
from hyperdreambooth.portraits.identity import make_identity
from hyperdreambooth.recipes import pictures
from hyperdreambooth.recipes.train_face_encoder import (
    FaceEncoderConfig,
    identity_numbers,
    load_face_encoder,
    main,
    photos_and_numbers,
)

SMALL = HypernetworkConfig(image_size=32, stem_channels=(8,), width=16, heads=2, encoder_layers=1)


def test_what_changes_a_person_changes_a_number() -> None:
    somebody = make_identity(3, slider_count=5)
    numbers = identity_numbers(somebody)
    assert np.isfinite(numbers).all()
    changes = (
        replace(somebody, skin=somebody.skin * 0.5),
        replace(somebody, beard=0.9),
        replace(somebody, hair=replace(somebody.hair, length=somebody.hair.length + 0.3)),
        replace(somebody, sliders=somebody.sliders + 0.1),
    )
    assert all((identity_numbers(changed) != numbers).any() for changed in changes)


def test_a_trained_encoder_is_found_by_the_hypernetwork_and_none_is_no_error(tmp_path: Path) -> None:
    people = pictures.PicturesConfig(folder=tmp_path, size=32, identities=6, block=6, processes=1, other_styles=1)
    pictures.main(people)
    config = FaceEncoderConfig(pictures=people, hypernetwork=SMALL, steps=3, batch=4, held_out=2)
    faces, numbers, rows = photos_and_numbers(config)
    assert faces.shape == (6 * 2, 32, 32, 3)
    assert rows.tolist() == [row for row in range(6) for _ in range(2)]
    torch.testing.assert_close(numbers[0], numbers[1])  # two views of one person

    encoder = FaceEncoder(SMALL)
    before = encoder.norm.weight.clone()
    assert not load_face_encoder(encoder, tmp_path)
    main(config)
    assert load_face_encoder(encoder, tmp_path)
    assert not torch.equal(encoder.norm.weight, before)
