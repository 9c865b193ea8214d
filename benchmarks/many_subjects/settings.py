"""What a run of the benchmark needs to know, and what is measured."""

from dataclasses import dataclass, replace
from enum import StrEnum

import torch


class Task(StrEnum):
    PERSONALIZE = "personalize"
    GENERATE = "generate"


class Mix(StrEnum):
    """Whose pictures a batch of requests asks for (Punica, Chen et al. 2023, section 7.1)."""

    DISTINCT = "distinct"  # each request another subject
    UNIFORM = "uniform"  # about sqrt(n) subjects, equally popular
    SKEWED = "skewed"  # as many, each 1.5 times as popular as the next
    IDENTICAL = "identical"  # one subject


class Method(StrEnum):
    PEFT_LOOP = "peft_loop"  # diffusers and peft, one subject after another, as their users do
    PEFT_MIXED = "peft_mixed"  # peft's `adapter_names`: one batch, split by adapter in each layer
    HOTSWAP = "hotswap"  # diffusers' hot-swapping: one set of LoRA layers, their numbers exchanged
    MERGED = "merged"  # fused into the weights for each subject, and out again
    OURS = "ours"
    BASE = "base"  # the base model for everybody: no adapter at all, and nothing to learn


LOOPS = frozenset({Method.PEFT_LOOP, Method.HOTSWAP, Method.MERGED})  # one subject after another


@dataclass(frozen=True)
class Case:
    """One measurement that every method gets in its turn."""

    task: Task
    subjects: int  # people to personalise; pictures to draw, one for each request
    mix: Mix = Mix.DISTINCT


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The defaults fit two quiet cores and a quarter of an hour."""

    model: str = "mini"  # or `sd15`: random weights of Stable Diffusion 1.5's size; or a folder
    subjects: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    methods: tuple[Method, ...] = tuple(Method)
    tasks: tuple[Task, ...] = tuple(Task)
    mixes: tuple[Mix, ...] = tuple(Mix)
    mixed_subjects: int = 16  # other mixes than `distinct` are measured at the largest batch up to this
    rounds: int = 3
    case_seconds: int = 10  # what one method has spent on one batch; then it gets no more rounds
    steps: int | None = None  # of the finetuning; None is the model's own
    noise_draws: int | None = None
    sample_steps: int | None = None
    loop_subjects: int = 2  # so many are timed of a method that takes one subject after another
    checked: int = 2  # subjects of a batch that are also run alone
    double_subjects: int = 2  # the batch that is compared in float64 too; 0: none
    resident: int = 10_000  # adapters in memory while switching between them; 0: no switching
    switches: int = 50  # how often
    device: str = "auto"
    dtype: str = "auto"  # bfloat16 on a GPU, as the service has it; float32 elsewhere
    acceleration: str = "none"  # `compile`: our blocks, and the base model's, as `HDB_ACCELERATION=compile` has them
    threads: int = 0  # of the CPU; 0: torch's own choice

    @property
    def torch_device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        if self.dtype == "auto":
            return torch.bfloat16 if self.torch_device.type == "cuda" else torch.float32
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def cases(self) -> list[Case]:
        """Small batches first."""
        cases = []
        for task in self.tasks:
            cases += [Case(task, count) for count in self.subjects]
            if task is Task.GENERATE:
                count = max((count for count in self.subjects if count <= self.mixed_subjects), default=0)
                cases += [Case(task, count, mix) for mix in self.mixes if count and mix is not Mix.DISTINCT]
        return cases

    def timed(self, case: Case, method: Method) -> Case:
        """What is really run: a loop over distinct subjects takes as long for each, however many follow."""
        if method in LOOPS and case.mix is Mix.DISTINCT:
            return replace(case, subjects=min(case.subjects, self.loop_subjects))
        return case
