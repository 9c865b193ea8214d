"""Pictures to train on: a folder or a WebDataset, read once, kept as latents, small pictures and captions.

    people/anna/01.jpg, people/anna/02.jpg      two pictures of one person
    people/4711.jpg                             one picture of another
    people/anna/01.txt                          the caption of anna/01.jpg, if there is one

A WebDataset's keys follow the same rule.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import webdataset
from PIL import Image, ImageOps
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_expander

from hyperdreambooth.diffusion import BaseModel, encode_images
from hyperdreambooth.errors import FaceError
from hyperdreambooth.faces import FaceDetector, align_face
from hyperdreambooth.recipes.progress import say

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
ENCODED_AT_ONCE = 8
INDEX = "index.json"


class NoPictures(ValueError):
    """Nothing to train on was found."""


@dataclass(frozen=True)
class Picture:
    """One picture as its source holds it."""

    person: str
    name: str
    image: Image.Image
    caption: str | None


@dataclass(frozen=True, eq=False)
class Pictures:
    """All pictures, ready to train on; arrays stay on the disk until rows of them are asked for."""

    latents: np.ndarray  # [n, c, h, w] float16
    pixels: np.ndarray  # [n, size, size, 3] uint8: what judges and sheets see
    people: tuple[tuple[str, tuple[int, ...]], ...]  # name and rows, sorted by name
    captions: tuple[str | None, ...]

    def rows_of(self, people: slice) -> list[tuple[int, ...]]:
        """The rows of some people."""
        return [rows for _, rows in self.people[people]]

    def latent_rows(self, rows: list[int]) -> Tensor:
        return torch.from_numpy(np.stack([self.latents[row] for row in rows])).float()

    def image(self, row: int) -> Image.Image:
        return Image.fromarray(self.pixels[row])


def read_pictures(source: str) -> Iterator[Picture]:
    """Every picture of a folder or of a WebDataset's shards, in the same order each time."""
    pictures = _read_folder(Path(source)) if Path(source).is_dir() else _read_shards(source)
    for key, content, caption in pictures:
        path = PurePosixPath(key)
        person = str(path.parent) if path.parent.name else path.stem
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        yield Picture(person, path.name, image, caption)


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes, str | None]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            caption = path.with_suffix(".txt")
            text = caption.read_text().strip() if caption.exists() else None
            yield str(path.relative_to(folder).with_suffix("")), path.read_bytes(), text


def _read_shards(urls: str) -> Iterator[tuple[str, bytes, str | None]]:
    for url in webdataset.shardlists.expand_urls(urls):
        with webdataset.gopen(url) as stream:
            for sample in group_by_keys(tar_file_expander([{"url": url, "stream": stream}])):
                content = next((sample[suffix[1:]] for suffix in SUFFIXES if suffix[1:] in sample), None)
                if content is not None:
                    yield sample["__key__"], content, sample["txt"].decode().strip() if "txt" in sample else None


def prepare_pictures(source: str, base_model: BaseModel, cache: Path, *, size: int, faces: bool) -> Pictures:
    """Read, cut, encode and store once; later runs of the same source, base model and size open what is there.

    With `faces` each picture is cut to its aligned face, and one without exactly one usable face is left out.
    """
    description = {"source": source, "base_model": base_model.weights_hash, "size": size, "faces": faces}
    folder = cache / hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    if not (folder / INDEX).exists():
        _write(source, base_model, folder, description)
    return open_pictures(folder)


def open_pictures(folder: Path) -> Pictures:
    """What `prepare_pictures` has stored."""
    index = json.loads((folder / INDEX).read_text())
    count, size = len(index["names"]), index["size"]
    rows: dict[str, list[int]] = {}
    for row, person in enumerate(index["people"]):
        rows.setdefault(person, []).append(row)
    return Pictures(
        latents=np.memmap(folder / "latents", np.float16, "r", shape=(count, *index["latent_shape"])),
        pixels=np.memmap(folder / "pixels", np.uint8, "r", shape=(count, size, size, 3)),
        people=tuple((person, tuple(rows[person])) for person in sorted(rows)),
        captions=tuple(index["captions"]),
    )


def _write(source: str, base_model: BaseModel, folder: Path, description: dict[str, object]) -> None:
    """The index comes last, so that half a cache is none."""
    folder.mkdir(parents=True, exist_ok=True)
    size, detector = int(str(description["size"])), FaceDetector() if description["faces"] else None
    kept: list[Picture] = []
    left_out: list[str] = []
    with (folder / "latents").open("wb") as latents, (folder / "pixels").open("wb") as pixels:

        def flush(waiting: list[Picture]) -> None:
            if waiting:
                encoded = encode_images(base_model, [picture.image for picture in waiting])
                latents.write(encoded.cpu().to(torch.float16).numpy().tobytes())
            for picture in waiting:
                small = picture.image.resize((size, size), Image.Resampling.LANCZOS)
                pixels.write(np.asarray(small).tobytes())
                kept.append(Picture(picture.person, picture.name, small, picture.caption))

        waiting: list[Picture] = []
        for picture in read_pictures(source):
            cut = _cut(picture, base_model.resolution, detector)
            if cut is None:
                left_out.append(f"{picture.person}/{picture.name}")
                continue
            waiting.append(cut)
            if len(waiting) == ENCODED_AT_ONCE:
                flush(waiting)
                waiting = []
                say(f"pictures  {len(kept)} encoded, {len(left_out)} left out")
        flush(waiting)
    if not kept:
        raise NoPictures(f"{source} holds no picture to train on ({len(left_out)} without exactly one clear face)")
    index = description | {
        "names": [picture.name for picture in kept],
        "people": [picture.person for picture in kept],
        "captions": [picture.caption for picture in kept],
        "left_out": left_out,
        "latent_shape": base_model.latent_shape,
    }
    (folder / INDEX).write_text(json.dumps(index))


def _cut(picture: Picture, resolution: int, detector: FaceDetector | None) -> Picture | None:
    """The aligned face, or the middle square; None where there is no face to be had."""
    if detector is None:
        image = ImageOps.fit(picture.image, (resolution, resolution), Image.Resampling.LANCZOS)
    else:
        try:
            image = align_face(picture.image, detector, size=resolution, min_face_pixels=resolution // 6)
        except FaceError:
            return None
    return Picture(picture.person, picture.name, image, picture.caption)
