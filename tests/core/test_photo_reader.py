"""The decoders' processes: a crash, a flood of memory or an endless loop costs one photo and nothing else."""

from collections.abc import Iterator

import pytest

from core.errors import PhotoTooLarge, PhotoTooManyPixels, PhotoUnreadable
from core.photo_reader import PhotoReader
from core.settings import Settings
from tests.core import misbehaving
from tests.core import photo_corpus as corpus


@pytest.fixture(scope="module")
def reader() -> Iterator[PhotoReader]:
    reader = PhotoReader(Settings(max_photo_bytes=1_000_000))
    yield reader
    reader.close()


def test_a_photo_comes_back_upright_from_its_process(reader: PhotoReader) -> None:
    photo = reader.read(corpus.turned_heic(6))
    assert (photo.width, photo.height) == (corpus.WIDTH, corpus.HEIGHT)


def test_a_refusal_keeps_its_class_and_its_words(reader: PhotoReader) -> None:
    with pytest.raises(PhotoTooManyPixels, match=r"at most 50,000,000 pixels"):
        reader.read(corpus.bomb())


def test_too_many_bytes_never_reach_a_process(reader: PhotoReader) -> None:
    with pytest.raises(PhotoTooLarge):
        reader.read(bytes(1_000_001))


def test_a_decoder_that_dies_or_hangs_is_replaced(reader: PhotoReader, monkeypatch: pytest.MonkeyPatch) -> None:
    for misbehaviour in ("abort", "hang"):
        monkeypatch.setattr("core.photo_reader.SECONDS", 1)
        monkeypatch.setattr("core.photo_reader.normalise", getattr(misbehaving, misbehaviour))
        with pytest.raises(PhotoUnreadable):
            reader.read(b"anything")
    monkeypatch.undo()
    assert reader.read(corpus.turned_jpeg(3)).width == corpus.WIDTH


def test_a_decoder_may_not_take_all_memory(reader: PhotoReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.photo_reader.normalise", misbehaving.gorge)
    with pytest.raises(MemoryError):
        reader.read(b"anything")
