"""Each baseline's best learning rate on mini, found on people that the table doesn't use.

`python -m benchmarks.quality.learning_rates --identities 4 --rows dreambooth,lora_4` tries multiples of the published
rates, judges identity by both judges, and writes `learning_rates.json`, which the table reads. Factors that were tried
before, with the same settings, as many people and the same base model, stay in it.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.__main__ import measure
from benchmarks.quality.bench import Bench
from benchmarks.quality.calibration import calibrated_judges
from benchmarks.quality.judging import make_gallery
from benchmarks.quality.people import LEARNING_RATES
from benchmarks.quality.rows import RATES_FILE, all_rows
from benchmarks.quality.settings import Settings
from benchmarks.quality.table import learning_rate

FACTORS = (0.3, 1.0, 3.0, 10.0, 30.0)  # a model of a few million weights wants larger steps than Stable Diffusion
# What is found for one is multiplied into the rates of its kin too: iterations times rate are the same for DreamBooth's
# 400 and 1 200 iterations, and the ranks of a LoRA share one rate where they were published.
KIN = {
    "dreambooth_400": ("dreambooth",),
    "lora_4": ("lora_1",),
    "relaxed_lora_4": ("relaxed_lora_2", "relaxed_lora_8"),
}


def main(settings: Settings, names: Sequence[str], factors: Sequence[float], path: Path) -> None:
    bench = Bench(settings, first_person=LEARNING_RATES)
    for name in names:
        if name not in all_rows(bench) or not _learns(bench, name):
            raise SystemExit(f"there is no row {name} whose learning rate is sought")
    judges = calibrated_judges(bench.head, settings, size=bench.size)
    gallery = make_gallery(judges, bench.people, bench.others)
    searches = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        rates = {own: published_rate(bench, own) for own in (name, *KIN.get(name, ()))}
        about = {
            "published": rates[name],
            "settings": all_rows(bench, {})[name].settings,
            "identities": len(bench.people),
            "seed": settings.seed,
            "base_model": bench.base_model.weights_hash,
        }
        before = searches.get(name, {})
        known = before.get("identity_by_factor", {}) if before.items() >= about.items() else {}
        tried = {float(factor): identity for factor, identity in known.items()}
        for factor in factors:
            row = all_rows(bench, {name: rates[name] * factor})[name]
            _, measured = measure(bench, judges, gallery, row)
            scores = [person.scores for person in measured.people]
            tried[factor] = float(np.mean([[one["identity_sface"], one["identity_dlib"]] for one in scores]))
        best = max(tried, key=lambda factor: tried[factor])
        found = {own: rate * best for own, rate in rates.items()}
        searches[name] = about | {"identity_by_factor": tried, "rates": found}
        path.write_text(json.dumps(searches, indent=2, sort_keys=True) + "\n")


def _learns(bench: Bench, name: str) -> bool:
    """Whether another rate makes it another row."""
    plain, other = (all_rows(bench, rates)[name].settings for rates in ({}, {name: 1.0}))
    return plain != other


def published_rate(bench: Bench, name: str) -> float:
    """As the row has it when nothing was found; what wasn't published is ours."""
    return learning_rate(all_rows(bench, {})[name].settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.learning_rates")
    parser.add_argument("--identities", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", required=True, help="names of baselines, separated by commas")
    parser.add_argument("--factors", type=float, nargs="+", default=list(FACTORS), help="of the published rate")
    parser.add_argument("--calibration-people", type=int, help="as the table's, so that both share what was kept")
    parser.add_argument("--base-model", default=Settings.base_model, help="a folder or hub id instead of mini")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=Settings.device)
    parser.add_argument("--out", type=Path, default=RATES_FILE)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chosen = Settings(identities=given.identities, seed=given.seed, base_model=given.base_model, device=given.device)
    if given.calibration_people is not None:
        chosen = replace(chosen, calibration_people=given.calibration_people)
    main(chosen, given.rows.split(","), given.factors, given.out)
