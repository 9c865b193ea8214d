"""Seconds of the wall and of the CPU, and the most memory in use, of one call."""

import ctypes
import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")
PEAK_RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 forgets the peak


@dataclass(frozen=True)
class Clocked(Generic[Result]):
    result: Result
    seconds: float
    cpu_seconds: float  # of all threads: hardly depends on what else the machine does
    peak_bytes: int  # of the GPU, or of this process


def clocked(call: Callable[[], Result], device: torch.device) -> Clocked[Result]:
    """Call once. The peak counts from here, on Linux; elsewhere from the process' start."""
    _give_memory_back()
    _reset_peak(device)
    began, cpu_began = time.perf_counter(), time.process_time()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Clocked(result, seconds, cpu_seconds, _peak(device))


def _give_memory_back() -> None:
    """What earlier, larger batches left with the C library would count as this one's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    elif PEAK_RESET.exists():
        PEAK_RESET.write_text("5")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if PEAK_RESET.exists():
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
