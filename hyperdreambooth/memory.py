"""How much memory is left for this process on a device, and how much of it a piece of work took at its peak."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

# Of what is free, the share that may be planned with: a GPU is ours alone, a machine's memory is not.
GPU_SHARE, CPU_SHARE = 0.8, 0.5
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`
CGROUPS, MEMINFO, SELF = Path("/sys/fs/cgroup"), Path("/proc/meminfo"), Path("/proc/self")
FORGET_THE_PEAK = "5"  # what `clear_refs` understands; see proc(5)


def available_bytes(device: torch.device) -> int:
    """What may be planned with, a margin left out."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(GPU_SHARE * (free + cached))
    return int(CPU_SHARE * min((machine_room(), *cgroup_rooms())))


def watch_peak(device: torch.device) -> int:
    """What is in use now, in bytes; from here on `peak_bytes` tells the most that was."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):  # not everywhere, and not for everybody: then the peak is that since the process began
        (SELF / "clear_refs").write_text(FORGET_THE_PEAK)
    return _kilobytes("VmRSS", SELF / "status")


def peak_bytes(device: torch.device) -> int:
    """The most that was in use: rather too much than too little."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    told = _kilobytes("VmHWM", SELF / "status")
    return told or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def machine_room(meminfo: Path = MEMINFO) -> int:
    """What the machine can still give; where nobody tells, all that it has."""
    return _kilobytes("MemAvailable", meminfo) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cgroup_rooms(root: Path = CGROUPS, memberships: Path = SELF / "cgroup") -> Iterator[int]:
    """What each group around this process may still take, in both versions of Linux's control groups."""
    for line in _text(memberships).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _rooms(root, path, limit="memory.max", used="memory.current")
        elif "memory" in controllers.split(","):
            yield from _rooms(root / "memory", path, limit="memory.limit_in_bytes", used="memory.usage_in_bytes")


def _rooms(top: Path, path: str, *, limit: str, used: str) -> Iterator[int]:
    """From the process's own group up. In a container the names may be those of the host: then only the top is seen."""
    own = top / path.strip("/")
    for folder in (own, *own.parents):
        most, taken = _text(folder / limit).strip(), _text(folder / used).strip()
        if most.isdecimal() and taken.isdecimal():
            yield max(0, int(most) - int(taken) + _reclaimable(folder))
        if folder == top:
            return


def _kilobytes(name: str, file: Path) -> int:
    """A line `name: 123 kB` as bytes; 0 where nobody tells."""
    lines = _text(file).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _reclaimable(folder: Path) -> int:
    """Files that were read, like the networks' weights, count as used but give way."""
    pairs = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
    return int(pairs.get("inactive_file", 0))


def _text(file: Path) -> str:
    """Nothing where there is no such file, or none that we may read: no worker fails for want of a hint."""
    try:
        return file.read_text()
    except OSError:
        return ""
