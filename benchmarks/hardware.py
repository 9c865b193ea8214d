"""What computes, in words."""

from pathlib import Path

import psutil

CPU_INFO = Path("/proc/cpuinfo")


def describe(device: str) -> str:
    """`auto`, `cpu` or `cuda`: the chip's own name, and the cores beside it."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        chip = torch.cuda.get_device_name()
    else:
        lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "a CPU")
        chip = f"{model} with {torch.backends.cpu.get_cpu_capability()}"  # processors of one name differ by half in it
    return f"{chip}, {psutil.cpu_count()} cores, torch {torch.__version__}"
