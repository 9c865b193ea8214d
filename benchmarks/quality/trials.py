"""The method's own settings, tried on people that neither the table nor any training uses.

`python -m benchmarks.quality.trials --identities 24 --out FILE --try finetune.learning_rate=0.003 --try ...` judges the
method as it is shipped, then with each `--try`: fields of `PersonalizeConfig`, several joined by commas. FILE holds
every trial with its difference to the shipped settings, person by person; a trial that it already has is not run again.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.bench import Bench
from benchmarks.quality.calibration import Judges, calibrated_judges
from benchmarks.quality.judging import METRICS, Gallery, judge, make_gallery
from benchmarks.quality.people import LEARNING_RATES
from benchmarks.quality.report import hardware, write_json
from benchmarks.quality.settings import Settings
from benchmarks.quality.table import interval
from hyperdreambooth.adapter import Adapter
from hyperdreambooth.config import PersonalizeConfig, from_json
from hyperdreambooth.personalize import generate, personalize_faces
from hyperdreambooth.recipes.progress import say

SHIPPED = "as shipped"
AT_ONCE = 4  # people whose pictures are drawn in one batch
SHOWN = ("identity_sface", "identity_dlib", "top1_sface", "prompt", "harm", "copy")
Scores = dict[str, float]


def main(settings: Settings, tries: Sequence[str], out: Path) -> None:
    """The report is written anew after each trial."""
    bench = Bench(settings, first_person=LEARNING_RATES)
    judges = calibrated_judges(bench.head, settings, size=bench.size)
    gallery = make_gallery(judges, bench.people, bench.others)
    key = {
        "base_model_hash": bench.base_model.weights_hash,
        "hypernetwork_hash": bench.networks.hypernetwork_hash,
        "people": [person.seed for person in bench.people],
    }
    document: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if {name: document.get(name) for name in key} != key:
        document = {**key, "hardware": hardware(bench.device), "trials": {}}
    trials = document["trials"]
    for name in (SHIPPED, *tries):
        if name not in trials:
            config = changed(bench.networks.config, name) if name != SHIPPED else bench.networks.config
            trials[name] = summary(scores_of(bench, judges, gallery, config), trials)
            write_json(out, document)
        say(f"{name:48s}" + "  ".join(f"{metric} {_told(trials[name], metric)}" for metric in SHOWN))


def scores_of(bench: Bench, judges: Judges, gallery: Gallery, config: PersonalizeConfig) -> list[Scores]:
    """Everybody personalised in one batch, then asked for the table's pictures."""
    people, networks = bench.people, bench.networks
    faces, seeds = [[person.portrait] for person in people], [person.seed for person in people]
    outcomes = personalize_faces(faces, networks, config, seeds=seeds, report=lambda phase, step, total: None)
    adapters = [outcome for outcome in outcomes if isinstance(outcome, Adapter)]
    if len(adapters) < len(people):
        raise SystemExit(f"the finetuning diverged for {len(people) - len(adapters)} people")
    prompts = [question.prompt for question in bench.asked] + bench.other_prompts
    scores: list[Scores] = []
    for start in range(0, len(people), AT_ONCE):
        group = range(start, min(start + AT_ONCE, len(people)))
        own_seeds = [[question.seed(seeds[own]) for question in bench.asked] + [*bench.other_seeds] for own in group]
        drawn = generate(
            networks,
            [adapters[own] for own in group for _ in prompts],
            prompts * len(group),
            seeds=list(chain(*own_seeds)),
            config=config.sample,
        )
        for place, own in enumerate(group):
            pictures = drawn[place * len(prompts) : (place + 1) * len(prompts)]
            count = len(bench.asked)
            scores.append(judge(judges, gallery, own, bench.asked, pictures[:count], pictures[count:]))
    return scores


def changed(config: PersonalizeConfig, assignments: str) -> PersonalizeConfig:
    """`finetune.learning_rate=0.003,sample.guidance=4` put in the place of what is shipped."""
    values = asdict(config)
    for assignment in assignments.split(","):
        path, _, value = assignment.partition("=")
        *groups, name = path.split(".")
        place: Any = values
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise SystemExit(f"{group} in {assignment!r} is no group of settings")
        place[name] = _parsed(value)
    try:
        return from_json(PersonalizeConfig, json.dumps(values))
    except ValueError as error:
        raise SystemExit(f"{assignments!r}: {error}") from error


def _parsed(value: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Text needs no quotes."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def summary(scores: Sequence[Scores], trials: Mapping[str, Any]) -> dict[str, Any]:
    """Means with their intervals; `less_shipped` compares person by person."""
    each = {name: [own[name] for own in scores] for name in (*METRICS, "text")}
    told: dict[str, Any] = {"each": each, "metrics": {name: interval(values) for name, values in each.items()}}
    if SHIPPED in trials:
        shipped = trials[SHIPPED]["each"]
        told["less_shipped"] = {
            name: interval([one - other for one, other in zip(values, shipped[name], strict=True)])
            for name, values in each.items()
        }
    return told


def _told(trial: Mapping[str, Any], metric: str) -> str:
    own = f"{trial['metrics'][metric]['mean']:.3f}"
    if "less_shipped" not in trial:
        return own
    gained = trial["less_shipped"][metric]
    return f"{own} ({gained['low']:+.3f} to {gained['high']:+.3f})"


def parsed(arguments: Sequence[str] | None = None) -> tuple[Settings, list[str], Path, int]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.trials", description=__doc__)
    parser.add_argument("--identities", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base-model", default=Settings.base_model)
    parser.add_argument("--device", choices=("cpu", "cuda"), default=Settings.device)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="NAME=VALUE[,...]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    settings = Settings(identities=given.identities, seed=given.seed, base_model=given.base_model, device=given.device)
    return settings, given.tries, given.out, given.threads


if __name__ == "__main__":
    settings, tries, out, threads = parsed()
    torch.set_num_threads(threads)
    main(settings, tries, out)
