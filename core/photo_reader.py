"""Decoders read what strangers send, so they run in processes of their own, with limits on memory and time."""

import multiprocessing
import resource
import sys
import warnings
from concurrent.futures import TimeoutError as FutureTimeoutError

from pebble import ProcessExpired, ProcessPool

from core.errors import PhotoTooLarge, PhotoUnreadable
from core.photos import Limits, Photo, normalise
from core.settings import Settings

PROCESSES = 2
SECONDS = 20
MEMORY_BYTES = 1_500_000_000  # 50 megapixels take 200 MB a copy, and a decoder holds several
PHOTOS_PER_PROCESS = 500  # whatever a decoder leaks ends with its process


class PhotoReader:
    """A few warm processes that turn bytes into photos. A crash or a time-out costs one process and one photo."""

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits(max_bytes=settings.max_photo_bytes, max_pixels=settings.max_photo_pixels)
        self._pool = ProcessPool(
            max_workers=PROCESSES,
            max_tasks=PHOTOS_PER_PROCESS,
            initializer=_limit_memory,
            context=multiprocessing.get_context("spawn"),
        )

    def read(self, content: bytes) -> Photo:
        """Check and re-encode a photo; PhotoRejected for what can't be used. Blocks: call it in a thread."""
        if len(content) > self._limits.max_bytes:
            raise PhotoTooLarge(f"at most {self._limits.max_bytes:,} bytes")
        future = self._pool.schedule(normalise, args=(content, self._limits), timeout=SECONDS)
        try:
            photo: Photo = future.result()
        except FutureTimeoutError as error:
            raise PhotoUnreadable("decoding took too long") from error
        except ProcessExpired as error:
            raise PhotoUnreadable("the picture could not be decoded") from error
        return photo

    def close(self) -> None:
        """End the processes."""
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble annotates most, not this
        self._pool.join()


def _limit_memory() -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")  # damaged files make Pillow talk; the verdict says what matters
