"""The rows of the table, by name: what is compared with what, and at which settings."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image

from benchmarks.quality.bench import Bench
from benchmarks.quality.people import Person
from benchmarks.quality.row import MethodRow, Row, TrueRow
from hyperdreambooth.baselines import budgets
from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.custom_diffusion import custom_diffusion
from hyperdreambooth.baselines.dreambooth import dreambooth
from hyperdreambooth.baselines.lidb import hyperdreambooth, lidb_alone, refinement_passes
from hyperdreambooth.baselines.lora import lora
from hyperdreambooth.baselines.personalized import Personalized
from hyperdreambooth.baselines.relaxed_lora import relaxed_lora
from hyperdreambooth.baselines.svdiff import svdiff
from hyperdreambooth.baselines.textual_inversion import textual_inversion
from hyperdreambooth.config import FinetuneConfig, to_json
from hyperdreambooth.diffusion import BaseModel, decode_latents, encode_images
from hyperdreambooth.personalize import Networks, examples_of, predict

RATES_FILE = Path(__file__).with_name("learning_rates.json")  # found by `learning_rates.py` on other people

# Our own curve of identity over seconds, beside DreamBooth's; and the photo with its mirror image in turns.
FURTHER: dict[str, dict[str, int]] = {
    "steps_20": {"steps": 20},
    "steps_100": {"steps": 100},
    "steps_200": {"steps": 200},
    "steps_400": {"steps": 400},
    "mirrored": {"views": 2},
}


@dataclass(frozen=True)
class NobodyAttached:
    """The base model, asked for its class noun."""

    subject: str
    stored_bytes: int = 0

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return nullcontext(base_model)


def all_rows(bench: Bench, rates: Mapping[str, float] | None = None) -> dict[str, Row]:
    """Every row there is, in the order of the table; `rates` in the place of the learning rates that were found."""
    if rates is None:
        settings = {row.name: row.settings for row in all_rows(bench, {}).values()}
        rates = found_rates(bench.base_model.weights_hash, settings)
    rows = (*_own_rows(bench, rates), *_baseline_rows(bench, rates), *_relaxed_rows(bench, rates), *_anchors())
    return {row.name: row for row in rows}


def found_rates(base_model_hash: str, settings: Mapping[str, str], path: Path = RATES_FILE) -> dict[str, float]:
    """By row; what was found on another base model or with other settings says nothing here.

    `settings`: each row's, as they are when nothing was found.
    """
    searches = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, float] = {}
    for name, search in searches.items():
        if search["base_model"] == base_model_hash and search["settings"] == settings.get(name):
            found |= search["rates"]
    return found


def _own_rows(bench: Bench, rates: Mapping[str, float]) -> Iterator[Row]:
    finetune, from_start = _finetune(bench), _limited(bench, bench.networks.config.finetune_from_start)
    same_work = replace(finetune, learning_rate=rates.get("no_hypernetwork", from_start.learning_rate))
    guess = replace(finetune, steps=0, rank=bench.networks.prediction_rank)
    yield _hyper_row(bench, "hyperdreambooth", finetune)
    yield _hyper_row(bench, "hypernetwork_only", guess)
    alone = (
        ("no_hypernetwork", same_work, False),
        ("no_hypernetwork_20", replace(same_work, steps=bench.limited(20)), True),
        ("lidb", replace(from_start, learning_rate=rates.get("lidb", from_start.learning_rate)), True),
    )
    for name, config, slow in alone:
        yield MethodRow(
            name,
            "lidb",
            config.steps,
            to_json(config),
            lambda bench, person, config=config: lidb_alone(  # type: ignore[misc]  # bound now, not when called
                bench.networks, person.portrait, config, seed=person.seed
            ),
            slow=slow,
        )
    for name, passes in (("one_pass", 1), ("passes_2", 2), ("passes_4", 4)):
        yield _hyper_row(bench, name, finetune, passes=passes, slow=True)
    for name, settings in FURTHER.items():
        further = _limited(bench, replace(bench.networks.config.finetune, **settings))
        yield _hyper_row(bench, name, further, slow=True)
    for name, networks in bench.other_networks.items():
        yield _hyper_row(bench, name, finetune, networks=networks)
        yield _hyper_row(bench, f"{name}_only", guess, networks=networks)


def _hyper_row(
    bench: Bench,
    name: str,
    finetune: FinetuneConfig,
    *,
    passes: int | None = None,
    slow: bool = False,
    networks: Networks | None = None,
) -> Row:
    """`passes`: the k of iterative prediction, if it isn't the one that the hypernetwork was trained with."""
    own_networks = networks or bench.networks
    hypernetwork = own_networks.hypernetwork
    trained = None if hypernetwork is None else hypernetwork.decoder.refinement_passes

    def personalize(bench: Bench, person: Person) -> Personalized:
        with refinement_passes(own_networks, passes) if passes else nullcontext():
            return hyperdreambooth(own_networks, person.portrait, finetune, seed=person.seed)

    settings = f"{to_json(finetune)} passes {passes or trained} {own_networks.hypernetwork_hash}"
    return MethodRow(name, "hyperdreambooth", finetune.steps, settings, personalize, slow=slow, needs_hypernetwork=True)


def _relaxed_rows(bench: Bench, rates: Mapping[str, float]) -> Iterator[Row]:
    """Rank by rank, both forms from the same prediction."""
    for rank in (2, 4, 8):
        finetune = replace(_finetune(bench), rank=rank)
        yield _hyper_row(bench, f"relaxed_lidb_{rank}", finetune, slow=rank != bench.networks.config.finetune.rank)
    for rank in (2, 4, 8):
        finetune = replace(_finetune(bench), rank=rank)
        finetune = replace(finetune, learning_rate=rates.get(f"relaxed_lora_{rank}", finetune.learning_rate))
        settings = f"{to_json(finetune)} {bench.networks.hypernetwork_hash}"
        yield MethodRow(
            f"relaxed_lora_{rank}",
            "relaxed_lora",
            finetune.steps,
            settings,
            lambda bench, person, finetune=finetune: _relaxed_lora(bench, person, finetune),  # type: ignore[misc]
            slow=True,
            needs_hypernetwork=True,
        )


def _relaxed_lora(bench: Bench, person: Person, finetune: FinetuneConfig) -> Personalized:
    config = bench.networks.config
    examples = examples_of(bench.base_model, [[person.portrait]], config, finetune, seeds=[person.seed])
    prediction = predict(bench.networks, examples)
    return relaxed_lora(bench.base_model, prediction, examples, finetune, subject=config.subject)


def _baseline_rows(bench: Bench, rates: Mapping[str, float]) -> Iterator[Row]:
    def row(
        name: str,
        budget: Budget,
        personalize: Callable[[Bench, Person, Budget], Personalized],
        prepare: Callable[[Bench], object] = lambda bench: None,
    ) -> Row:
        budget = replace(budget.at(rates.get(name, budget.learning_rate)), iterations=bench.limited(budget.iterations))
        return MethodRow(
            name,
            name,
            budget.iterations,
            json.dumps(asdict(budget), sort_keys=True),
            lambda bench, person: personalize(bench, person, budget),
            prepare,
            slow=True,
        )

    def class_images(bench: Bench) -> object:
        return bench.class_images

    yield row("dreambooth", budgets.DREAMBOOTH, _dreambooth, class_images)
    yield row("dreambooth_400", budgets.DREAMBOOTH_400, _dreambooth, class_images)
    yield row("dreambooth_40", budgets.DREAMBOOTH_40, _dreambooth, class_images)
    for rank in (1, 4):
        yield row(
            f"lora_{rank}",
            budgets.LORA,
            lambda bench, person, budget, rank=rank: lora(  # type: ignore[misc]  # bound now, not when called
                bench.base_model, bench.networks.config, bench.example(person), budget, rank=rank
            ),
        )
    yield row("textual_inversion", budgets.TEXTUAL_INVERSION, _textual_inversion)
    yield row("custom_diffusion", budgets.CUSTOM_DIFFUSION, _custom_diffusion, class_images)
    yield row("svdiff", budgets.SVDIFF, _svdiff, lambda bench: (bench.class_images, bench.spectra))


def _dreambooth(bench: Bench, person: Person, budget: Budget) -> Personalized:
    config = bench.networks.config
    return dreambooth(bench.base_model, config, bench.example(person), budget, prior=bench.class_images)


def _textual_inversion(bench: Bench, person: Person, budget: Budget) -> Personalized:
    return textual_inversion(bench.base_model, bench.networks.config, bench.example(person), budget)


def _custom_diffusion(bench: Bench, person: Person, budget: Budget) -> Personalized:
    config = bench.networks.config
    return custom_diffusion(bench.base_model, config, bench.example(person), budget, prior=bench.class_images)


def _svdiff(bench: Bench, person: Person, budget: Budget) -> Personalized:
    config, example = bench.networks.config, bench.example(person)
    return svdiff(bench.base_model, config, example, budget, prior=bench.class_images, spectra=bench.spectra)


def _anchors() -> Iterator[Row]:
    yield MethodRow(
        "no_subject",
        "no_subject",
        0,
        "",
        lambda bench, person: NobodyAttached(bench.networks.config.class_noun),
        slow=True,
    )
    yield TrueRow("same_person", lambda bench, own: bench.true_pictures(own))
    yield TrueRow("round_trip", _round_trip)
    yield TrueRow("stranger", _stranger)


def _round_trip(bench: Bench, own: int) -> list[Image.Image]:
    return decode_latents(bench.base_model, encode_images(bench.base_model, bench.true_pictures(own)))


def _stranger(bench: Bench, own: int) -> list[Image.Image]:
    """The next person's pictures, passed off as this one's."""
    return bench.true_pictures((own + 1) % len(bench.people))


def _finetune(bench: Bench) -> FinetuneConfig:
    return _limited(bench, bench.networks.config.finetune)


def _limited(bench: Bench, finetune: FinetuneConfig) -> FinetuneConfig:
    return replace(finetune, steps=bench.limited(finetune.steps))
