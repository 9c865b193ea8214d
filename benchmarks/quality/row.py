"""What a row is: something that makes pictures of a person. How they are judged is no business of a row."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from benchmarks.quality.bench import Bench
from benchmarks.quality.people import Person
from hyperdreambooth.baselines.personalized import Personalized, draw


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a row made of one person."""

    pictures: list[Image.Image]  # one for each question
    others: list[Image.Image]  # other people, drawn while the person was attached
    seconds: float  # to personalise; drawing isn't counted
    stored_bytes: int


class Row(Protocol):
    """`method` and `settings` name all that the outcome depends on beside base model, person and questions."""

    @property
    def name(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def iterations(self) -> int: ...
    @property
    def settings(self) -> str: ...
    @property
    def slow(self) -> bool: ...
    @property
    def needs_hypernetwork(self) -> bool: ...
    def run(self, bench: Bench, own: int) -> Outcome: ...


@dataclass(frozen=True)
class MethodRow:
    """Personalise, timed; then draw. Rows of one method with equal settings are one and are run once."""

    name: str
    method: str
    iterations: int
    settings: str
    personalize: Callable[[Bench, Person], Personalized]
    prepare: Callable[[Bench], object] = lambda bench: None  # what serves everybody is made before the clock starts
    slow: bool = False
    needs_hypernetwork: bool = False

    def run(self, bench: Bench, own: int) -> Outcome:
        person = bench.people[own]
        self.prepare(bench)
        began = time.perf_counter()
        personalized = self.personalize(bench, person)
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        prompts = [question.prompt for question in bench.asked] + bench.other_prompts
        seeds = [question.seed(person.seed) for question in bench.asked] + list(bench.other_seeds)
        drawn = draw(personalized, bench.base_model, prompts, seeds=seeds, config=bench.networks.config.sample)
        count = len(bench.asked)
        return Outcome(drawn[:count], drawn[count:], seconds, personalized.stored_bytes)


@dataclass(frozen=True)
class TrueRow:
    """Pictures that no method made: what 0 and 1 look like, and what the autoencoder alone takes away."""

    name: str
    picture: Callable[[Bench, int], list[Image.Image]]
    iterations: int = 0
    settings: str = ""
    slow: bool = False
    needs_hypernetwork: bool = False

    @property
    def method(self) -> str:
        return self.name

    def run(self, bench: Bench, own: int) -> Outcome:
        return Outcome(self.picture(bench, own), bench.others, 0.0, 0)
