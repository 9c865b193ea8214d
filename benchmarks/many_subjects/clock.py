"""Seconds of the wall and of the CPU, and the most memory in use, of one call."""

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from hyperdreambooth.memory import peak_bytes, watch_peak

Result = TypeVar("Result")


@dataclass(frozen=True)
class Clocked(Generic[Result]):
    result: Result
    seconds: float
    cpu_seconds: float  # of all threads: hardly depends on what else the machine does
    peak_bytes: int  # of the GPU, or of this process


def clocked(call: Callable[[], Result], device: torch.device) -> Clocked[Result]:
    """Call once. The peak counts from here, on Linux; elsewhere from the process' start."""
    _give_memory_back()
    if device.type == "cuda":
        torch.cuda.synchronize()
    watch_peak(device)
    began, cpu_began = time.perf_counter(), time.process_time()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Clocked(result, seconds, cpu_seconds, peak_bytes(device))


def _give_memory_back() -> None:
    """What earlier, larger batches left with the C library would count as this one's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
