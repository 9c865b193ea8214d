"""Where the time of our own batches goes, by kind of operator."""

from dataclasses import dataclass
from typing import assert_never

from torch.profiler import ProfilerActivity, profile

from benchmarks.many_subjects.orders import orders
from benchmarks.many_subjects.settings import Mix, Task
from benchmarks.many_subjects.ways import Way

# The first that fits an operator's name; what fits none is "other".
KINDS = {
    "compiled code": ("triton",),
    "convolutions": ("conv", "fprop", "dgrad", "wgrad", "winograd"),
    "attention": ("scaled_dot_product", "flash", "softmax", "fmha"),
    "deltas and batched products": ("bmm",),
    "matrix products": ("addmm", "mm", "linear", "matmul", "gemm", "cutlass", "xmma"),
    "norms": ("norm",),
    "activations": ("silu", "gelu", "sigmoid"),
    "copies": ("copy", "cat", "clone", "index", "gather", "contiguous", "upsample", "repeat", "fill", "zero"),
    "elementwise": ("mul", "add", "sub", "div", "lerp", "where", "pow", "sum", "mean", "sqrt", "elementwise", "reduce"),
}


@dataclass(frozen=True)
class Share:
    task: Task
    kind: str
    share: float


def time_shares(way: Way, task: Task, *, subjects: int) -> list[Share]:
    """Profile one batch."""
    way.prepare(range(subjects))
    _run(way, task, subjects=subjects)  # what is only done the first time is not of interest
    on_gpu = way.networks.base_model.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        _run(way, task, subjects=subjects)
    return _by_kind(profiler, task, on_gpu=on_gpu)


def _run(way: Way, task: Task, *, subjects: int) -> None:
    match task:
        case Task.PERSONALIZE:
            way.personalize(range(subjects))
        case Task.GENERATE:
            way.generate(orders(subjects, Mix.DISTINCT))
        case _:
            assert_never(task)


def _by_kind(profiler: profile, task: Task, *, on_gpu: bool) -> list[Share]:
    spent = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(spent.values())
    return [Share(task, kind, round(time / total, 4)) for kind, time in spent.items()]


def kind_of(operator: str) -> str:
    name = operator.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")
