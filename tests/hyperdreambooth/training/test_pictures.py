"""Reading, cutting and keeping pictures."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hyperdreambooth.personalize import Networks
from hyperdreambooth.training.pictures import NoPictures, prepare_pictures, read_pictures


def test_a_folder_and_a_webdataset_of_it_hold_the_same_pictures(faces: Path, tmp_path: Path) -> None:
    for number, chosen in enumerate(("person-*/*", "*.*")):  # a sample's files stay in one shard
        with tarfile.open(tmp_path / f"faces-00{number}.tar", "w") as shard:
            for path in sorted(faces.glob(chosen)):
                shard.add(path, str(path.relative_to(faces)))
    shards = str(tmp_path / "faces-{000..001}.tar")
    from_folder, from_shards = list(read_pictures(str(faces))), list(read_pictures(shards))

    assert {(one.person, one.name, one.caption) for one in from_folder} == {
        ("alone", "alone", None),
        ("nobody", "nobody", None),
        ("person-0", "1", "a photo of a person"),
        ("person-0", "2", None),
        ("person-1", "1", None),
        ("person-1", "2", None),
        ("person-2", "1", None),
        ("person-2", "2", None),
    }
    pixels = {(one.person, one.name): np.asarray(one.image) for one in from_folder}
    assert len(from_shards) == len(from_folder)
    for one in from_shards:
        np.testing.assert_array_equal(np.asarray(one.image), pixels[one.person, one.name])


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (turned,) = read_pictures(str(tmp_path))
    difference = np.asarray(turned.image, float) - np.asarray(photo.convert("RGB"), float)
    assert np.abs(difference).mean() < 3


def test_faces_are_cut_and_encoded_once(faces: Path, tmp_path: Path, tiny_networks: Networks) -> None:
    base_model = tiny_networks.base_model
    pictures = prepare_pictures(str(faces), base_model, tmp_path, size=24, faces=True)
    assert [name for name, _ in pictures.people] == ["alone", "person-0", "person-1", "person-2"]  # nobody is left out
    assert [len(rows) for _, rows in pictures.people] == [1, 2, 2, 2]
    assert pictures.latents.shape == (7, *base_model.latent_shape)
    assert pictures.pixels.shape == (7, 24, 24, 3)
    row = pictures.people[1][1][0]
    assert pictures.captions[row] == "a photo of a person"

    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = prepare_pictures(str(faces), base_model, tmp_path, size=24, faces=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stored
    torch.testing.assert_close(again.latent_rows([row]), pictures.latent_rows([row]))


def test_a_folder_without_faces_is_refused(tmp_path: Path, tiny_networks: Networks) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    content = io.BytesIO()
    Image.new("RGB", (100, 100)).save(content, "PNG")
    (folder / "black.png").write_bytes(content.getvalue())
    with pytest.raises(NoPictures, match="1 without exactly one clear face"):
        prepare_pictures(str(folder), tiny_networks.base_model, tmp_path / "cache", size=16, faces=True)
