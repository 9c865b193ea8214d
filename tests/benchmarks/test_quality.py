"""The table, from people to file, on a base model that draws noise: the anchors must come out all the same."""

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.quality import cache, learning_rates, trials
from benchmarks.quality.__main__ import chosen_rows, main, parse
from benchmarks.quality.bench import Bench
from benchmarks.quality.calibration import Judges, calibrated_judges
from benchmarks.quality.judging import METRICS, judge, make_gallery
from benchmarks.quality.report import sheet_line
from benchmarks.quality.row import MethodRow, Row
from benchmarks.quality.rows import RATES_FILE, all_rows, found_rates
from benchmarks.quality.settings import Settings
from hyperdreambooth.attach import attach
from hyperdreambooth.config import FinetuneConfig, PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, save_hypernetwork
from hyperdreambooth.lidb import LiDB
from hyperdreambooth.metrics.published import Clip, Dino
from hyperdreambooth.portraits.styles import Style
from tests.hyperdreambooth.conftest import random_lidb
from tests.hyperdreambooth.published_judges import write_clip, write_dino, write_facenet

NAMES = ["hyperdreambooth", "hypernetwork_only", "same_person", "stranger"]
# The rows that anyone who reads the file may count on.
PROMISED = [
    "hyperdreambooth",
    "hypernetwork_only",
    "no_hypernetwork",
    "one_pass",
    "passes_2",
    "passes_4",
    "steps_20",
    "steps_100",
    "steps_200",
    "steps_400",
    "mirrored",
    "no_hypernetwork_20",
    "dreambooth",
    "dreambooth_400",
    "dreambooth_40",
    "lora_1",
    "lora_4",
    "textual_inversion",
    "custom_diffusion",
    "svdiff",
    "lidb",
    "relaxed_lidb_2",
    "relaxed_lidb_4",
    "relaxed_lidb_8",
    "relaxed_lora_2",
    "relaxed_lora_4",
    "relaxed_lora_8",
    "no_subject",
    "round_trip",
    "same_person",
    "stranger",
]


@pytest.fixture(scope="module")
def settings(noisy_folder: Path, work: Path) -> Settings:
    return Settings(
        identities=2,
        seed=5,
        base_model=str(noisy_folder),
        work=work,
        calibration_people=3,
        photos=2,
        finetune_steps=2,
    )


@pytest.fixture(scope="module")
def out(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "quality.json"
    main(settings, NAMES, path)
    return path


@pytest.fixture(scope="module")
def document(out: Path) -> dict[str, Any]:
    return dict(json.loads(out.read_text()))


def test_the_file_has_the_promised_shape(document: dict[str, Any]) -> None:
    assert (document["identities"], document["seed"]) == (2, 5)
    assert isinstance(document["hardware"], str)
    assert [row["name"] for row in document["rows"]] == NAMES
    for row in document["rows"]:
        assert set(row["metrics"]) == set(METRICS)
        assert all(value["low"] <= value["mean"] <= value["high"] for value in row["metrics"].values())
        for name, value in row["metrics"].items():
            assert np.mean(row["each"][name]) == pytest.approx(value["mean"], abs=1e-4)
        assert len(row["each"]["seed"]) == 2


def test_the_anchors_come_out(document: dict[str, Any]) -> None:
    rows = {row["name"]: row["metrics"] for row in document["rows"]}
    for name in ("identity_sface", "identity_dlib"):
        assert rows["same_person"][name]["mean"] > rows["stranger"][name]["mean"] + 0.3
    assert rows["same_person"]["prompt"]["mean"] > 0.7


def test_steps_and_bytes_are_those_of_the_run(document: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in document["rows"]}
    assert rows["hyperdreambooth"]["iterations"] == 2
    assert rows["hyperdreambooth"]["learning_rate"] == FinetuneConfig().learning_rate
    assert rows["hypernetwork_only"]["learning_rate"] is rows["stranger"]["learning_rate"] is None
    assert rows["hypernetwork_only"]["iterations"] == 0
    assert rows["hyperdreambooth"]["bytes"] > rows["hypernetwork_only"]["bytes"] > 0
    assert rows["hyperdreambooth"]["seconds"] > rows["hypernetwork_only"]["seconds"] > 0


def test_a_table_and_a_sheet_lie_beside_the_file(out: Path) -> None:
    text = out.with_suffix(".md").read_text()
    assert all(f"| {name} |" in text for name in NAMES)
    sheet = Image.open(out.with_suffix(".png"))
    assert len(np.unique(np.asarray(sheet))) > 50


def test_a_second_run_draws_nothing_again(settings: Settings, out: Path, tmp_path: Path) -> None:
    drawn = {path: path.stat().st_mtime_ns for path in settings.work.rglob("*.npz")}
    again = tmp_path / "again.json"
    main(settings, NAMES, again)
    assert {path: path.stat().st_mtime_ns for path in settings.work.rglob("*.npz")} == drawn
    assert again.read_text() == out.read_text()


def test_rows_that_differ_in_nothing_but_their_name_are_run_once(
    settings: Settings, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "twice.json"
    monkeypatch.setattr(MethodRow, "run", lambda row, bench, own: pytest.fail(f"{row.name} was run again"))
    main(settings, ["hyperdreambooth", "relaxed_lidb_2"], kept)
    one, other = json.loads(kept.read_text())["rows"]
    assert one["metrics"] == other["metrics"]
    assert one["seconds"] == other["seconds"]


def test_what_another_computer_took_is_not_this_ones(
    settings: Settings, bench: Bench, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, who = all_rows(bench)["hyperdreambooth"], bench.people[0].seed
    assert cache.Cache(bench, row).outcome(who) is not None
    monkeypatch.setattr(cache, "hardware", lambda device: "another processor")
    assert cache.Cache(bench, row).outcome(who) is None


def test_rows_that_an_earlier_run_had_are_taken_over(settings: Settings, out: Path, tmp_path: Path) -> None:
    kept = tmp_path / "carried.json"
    main(replace(settings, carry=out), ["stranger", "no_subject"], kept)
    rows = {row["name"]: row for row in json.loads(kept.read_text())["rows"]}
    assert list(rows) == ["hyperdreambooth", "hypernetwork_only", "no_subject", "same_person", "stranger"]
    assert [name for name, row in rows.items() if "hardware" in row] == [
        "hyperdreambooth",
        "hypernetwork_only",
        "same_person",
    ]
    compared = [one["than"] for one in json.loads(kept.read_text())["comparisons"]]
    assert compared == ["hypernetwork_only", "no_subject", "same_person", "stranger"]
    before, sheet = (Image.open(path.with_suffix(".png")) for path in (out, kept))
    assert sheet_line(sheet, 0).tobytes() == sheet_line(before, 0).tobytes(), "the carried pictures too"
    assert sheet_line(sheet, 3).tobytes() == sheet_line(before, 2).tobytes(), "of the same person, lower by no_subject"
    assert sheet_line(sheet, 2).tobytes() not in {sheet_line(before, line).tobytes() for line in range(len(NAMES))}


def test_an_earlier_file_of_other_people_is_refused(settings: Settings, out: Path, tmp_path: Path) -> None:
    for carry, said in ((out, "another seed: 5, here 6"), (tmp_path / "none.json", "No such file")):
        with pytest.raises(SystemExit, match=said):
            main(replace(settings, seed=6, carry=carry), ["stranger"], tmp_path / "other.json")


def test_every_row_runs_from_end_to_end(settings: Settings, tmp_path: Path) -> None:
    """With two iterations each: that a baseline learns is held beside it."""
    kept = tmp_path / "all.json"
    main(replace(settings, identities=1), [], kept)
    rows = {row["name"]: row for row in json.loads(kept.read_text())["rows"]}
    assert set(PROMISED) <= set(rows)
    assert {row["identities"] for row in rows.values()} == {1}
    assert max(row["iterations"] for row in rows.values()) == 2
    trained = [row for row in rows.values() if row["iterations"]]
    assert all(row["bytes"] > 0 < row["seconds"] for row in trained)


def test_harm_is_how_far_other_people_were_moved(settings: Settings, bench: Bench, out: Path) -> None:
    judges = calibrated_judges(bench.head, settings, size=bench.size)
    before, somebody_else = bench.true_pictures(0), bench.true_pictures(1)
    gallery = make_gallery(judges, bench.people, before)

    def judged(others: Sequence[Image.Image]) -> dict[str, float]:
        return judge(judges, gallery, 0, bench.asked, before, others)

    assert judged(before)["harm"] == pytest.approx(0, abs=1e-5)
    assert judged(somebody_else)["harm"] > 0.5
    assert judged(before)["top1_sface_photo"] == judged(before)["top1_dlib_photo"] == 1
    assert judged(before)[f"identity_sface/{Style.PHOTO}"] > 0.5


def test_likeness_to_a_portrait_that_no_method_saw_is_told_beside(settings: Settings, bench: Bench, out: Path) -> None:
    judges = calibrated_judges(bench.head, settings, size=bench.size)
    before = bench.true_pictures(0)
    gallery = make_gallery(judges, bench.people, before)
    own, others = (judge(judges, gallery, 0, bench.asked, bench.true_pictures(who), before) for who in (0, 1))
    for name in ("sface", "dlib"):
        assert own[f"other_portrait_{name}"] > others[f"other_portrait_{name}"] + 0.3
        assert own[f"other_portrait_{name}"] != own[f"identity_{name}"]


def test_the_papers_judges_are_remarks_and_change_nothing_else(settings: Settings, bench: Bench, out: Path) -> None:
    judges = calibrated_judges(bench.head, settings, size=bench.size)
    gallery = make_gallery(judges, bench.people, bench.others)
    pictures = bench.true_pictures(0)

    def judged(with_judges: Judges) -> dict[str, float]:
        return judge(with_judges, gallery, 0, bench.asked, pictures, bench.others)

    plain, more = judged(judges), judged(replace(judges, clip=cast(Clip, Colours()), dino=cast(Dino, Colours())))
    assert {name: more[name] for name in plain} == plain
    photo, *colours = Colours().images([bench.people[0].portrait, *pictures])
    of_prompts = Colours().prompts(["" for _ in pictures])
    assert more["dino"] == more["clip_i"] == pytest.approx(np.mean([colour @ photo for colour in colours]))
    assert more["clip_t"] == pytest.approx(np.mean(np.sum(np.stack(colours) * of_prompts, axis=1)))


def test_the_papers_judges_are_those_that_were_given(settings: Settings, bench: Bench, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_dino(tmp_path / "dino")
    write_facenet(tmp_path / "facenet.onnx")
    given = ["--clip", f"{tmp_path}/clip", "--dino", f"{tmp_path}/dino", "--facenet", f"{tmp_path}/facenet.onnx"]
    asked, _, _, _ = parse(["--identities", "2", "--out", "FILE", *given])
    theirs = replace(settings, clip=asked.clip, dino=asked.dino, facenet=asked.facenet, work=tmp_path)
    judges = calibrated_judges(bench.head, theirs, size=bench.size)
    gallery = make_gallery(judges, bench.people, bench.others)
    scores = judge(judges, gallery, 0, bench.asked, bench.true_pictures(0), bench.others)
    assert {"identity_facenet", "top1_facenet", "clip_i", "clip_t", "dino"} <= scores.keys()


@dataclass(frozen=True)
class Attached:
    """Anybody's weights, large enough to be seen."""

    lidb: LiDB
    subject: str = "a face"
    stored_bytes: int = 0

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return attach(base_model, self.lidb)


def test_other_people_are_drawn_while_somebody_is_attached(bench: Bench) -> None:
    """Which is what harm is measured on."""

    def apart(row: Row) -> int:
        pairs = zip(row.run(bench, 0).others, bench.others, strict=True)
        return max(int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max()) for one, other in pairs)

    somebody = Attached(random_lidb(bench.base_model, subjects=1, rank=2))
    assert apart(all_rows(bench)["no_subject"]) <= 2  # of 255
    assert apart(MethodRow("somebody", "somebody", 0, "", lambda bench, person: somebody)) > 8


class Colours:
    """In the place of CLIP and DINO: a picture is its mean colour, and every prompt is red."""

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        means = np.stack([np.asarray(picture.convert("RGB"), float).mean(axis=(0, 1)) for picture in pictures])
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))

    def prompts(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile([1.0, 0.0, 0.0], (len(texts), 1))


def test_a_slow_row_that_took_its_minutes_gets_no_more_people(
    settings: Settings, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "short.json"
    three = replace(settings, identities=3, row_minutes=0)
    main(three, ["hypernetwork_only", "passes_2"], kept)
    rows = {row["name"]: row["identities"] for row in json.loads(kept.read_text())["rows"]}
    assert rows == {"hypernetwork_only": 3, "passes_2": 2}, "slow rows alone, and two people at least"
    main(replace(settings, identities=3, slow_identities=1), ["hypernetwork_only", "passes_2"], kept)
    rows = {row["name"]: row["identities"] for row in json.loads(kept.read_text())["rows"]}
    assert rows == {"hypernetwork_only": 3, "passes_2": 1}, "the first of all"


def test_a_rate_that_is_found_serves_its_kin(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    learning_rates.main(settings, ["relaxed_lora_4"], [0.5, 2.0], path)
    tried = json.loads(path.read_text())["relaxed_lora_4"]
    best = max(tried["identity_by_factor"], key=tried["identity_by_factor"].get)
    expected = tried["published"] * float(best)
    bench = Bench(settings)
    published = {row.name: row.settings for row in all_rows(bench, {}).values()}
    rates = found_rates(bench.base_model.weights_hash, published, path)
    assert rates == dict.fromkeys(("relaxed_lora_2", "relaxed_lora_4", "relaxed_lora_8"), expected)
    assert found_rates("another base model", published, path) == {}
    assert found_rates(bench.base_model.weights_hash, published | {"relaxed_lora_4": "changed"}, path) == {}
    for name in rates:
        assert f'"learning_rate":{expected}' in all_rows(bench, rates)[name].settings

    learning_rates.main(settings, ["relaxed_lora_4"], [4.0], path)
    again = json.loads(path.read_text())["relaxed_lora_4"]["identity_by_factor"]
    assert again.keys() == {"0.5", "2.0", "4.0"}, "what was tried before stays"
    assert {factor: again[factor] for factor in ("0.5", "2.0")} == tried["identity_by_factor"]
    learning_rates.main(replace(settings, identities=1), ["relaxed_lora_4"], [1.0], path)
    fewer = json.loads(path.read_text())["relaxed_lora_4"]["identity_by_factor"]
    assert fewer.keys() == {"1.0"}, "unless it was tried on other people"
    learning_rates.main(replace(settings, identities=1, finetune_steps=1), ["relaxed_lora_4"], [2.0], path)
    shorter = json.loads(path.read_text())["relaxed_lora_4"]["identity_by_factor"]
    assert shorter.keys() == {"2.0"}, "or with other settings"


@pytest.mark.parametrize("name", ["hyperdreambooth", "stranger", "typo"])
def test_a_rate_is_only_sought_where_there_is_one(settings: Settings, tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match=f"no row {name} whose"):
        learning_rates.main(settings, [name], [1.0], tmp_path / "rates.json")


def test_the_rates_that_were_found_are_those_of_the_shipped_model() -> None:
    bench = Bench(Settings(identities=0, seed=0))
    published = {row.name: row.settings for row in all_rows(bench, {}).values()}
    found = found_rates(bench.base_model.weights_hash, published)
    assert found.keys() == {name for search in json.loads(RATES_FILE.read_text()).values() for name in search["rates"]}


def test_without_a_hypernetwork_equal_work_is_done_at_a_rate_of_its_own(settings: Settings) -> None:
    bench = Bench(settings)
    rows = all_rows(bench, {"no_hypernetwork": 0.7})
    ours, alone = (
        json.JSONDecoder().raw_decode(rows[name].settings)[0] for name in ("hyperdreambooth", "no_hypernetwork")
    )
    assert alone == ours | {"learning_rate": 0.7}


def test_trials_compare_with_what_is_shipped(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "trials.json"
    trials.main(settings, ["sample.steps=1"], out)
    found = json.loads(out.read_text())["trials"]
    assert list(found) == ["as shipped", "sample.steps=1"]
    gained = found["sample.steps=1"]["less_shipped"]["image"]
    difference = found["sample.steps=1"]["metrics"]["image"]["mean"] - found["as shipped"]["metrics"]["image"]["mean"]
    assert gained["mean"] == pytest.approx(difference)
    assert gained["low"] <= gained["mean"] <= gained["high"]
    before = out.stat().st_mtime_ns
    trials.main(settings, ["sample.steps=1"], out)
    assert out.stat().st_mtime_ns == before, "what is known is not run again"
    assert "sample.steps=1" in capsys.readouterr().out


@pytest.mark.parametrize("assignments", ["finetune.speed=3", "sample.steps.more=1", "nothing"])
def test_a_misspelt_setting_is_refused(assignments: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(assignments.split("=")[0].split(".")[-1])):
        trials.changed(PersonalizeConfig(), assignments)


def test_settings_are_changed_by_name() -> None:
    config = trials.changed(PersonalizeConfig(), "finetune.learning_rate=0.5,sample.negative_prompt=a face")
    assert (config.finetune.learning_rate, config.sample.negative_prompt) == (0.5, "a face")
    assert (
        replace(config, finetune=PersonalizeConfig().finetune, sample=PersonalizeConfig().sample) == PersonalizeConfig()
    )


@pytest.fixture(scope="module")
def bench(settings: Settings) -> Bench:
    return Bench(settings)


def test_every_promised_row_is_there(bench: Bench) -> None:
    assert set(PROMISED) <= set(all_rows(bench))


def test_an_unknown_row_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(SystemExit, match="no such row: typo"):
        chosen_rows(bench, ["hyperdreambooth", "typo"])


def test_more_people_begin_with_the_same(bench: Bench, settings: Settings) -> None:
    fewer = Bench(Settings(**{**vars(settings), "identities": 1}))
    assert fewer.people[0].seed == bench.people[0].seed
    assert fewer.people[0].portrait.tobytes() == bench.people[0].portrait.tobytes()


def test_another_hypernetwork_gets_rows_of_its_own(settings: Settings, bench: Bench, tmp_path: Path) -> None:
    assert bench.networks.hypernetwork is not None
    another = Hypernetwork(bench.networks.hypernetwork.config, bench.networks.basis, bench.base_model.latent_shape)
    another.reset_parameters(torch.Generator().manual_seed(1))
    save_hypernetwork(another, tmp_path / FOLDER)
    with_beta = Bench(replace(settings, identities=1, hypernetworks=(("beta", tmp_path),)))
    rows = all_rows(with_beta)
    assert rows["beta"].iterations == rows["hyperdreambooth"].iterations
    assert rows["beta_only"].iterations == 0
    own, other = (rows[name].run(with_beta, 0).pictures[0] for name in ("hypernetwork_only", "beta_only"))
    assert own.tobytes() != other.tobytes()
    assert rows["beta"].settings != rows["hyperdreambooth"].settings, "or they would share what is kept"


@pytest.mark.parametrize("said", ["beta", "=folder", "beta="])
def test_a_hypernetwork_needs_a_name_and_a_folder(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--identities", "1", "--out", "x.json", "--hypernetwork", said])
    assert "isn't NAME=FOLDER" in capsys.readouterr().err


def test_the_command_line_says_who_and_which() -> None:
    settings, names, out, _ = parse(["--identities", "3", "--seed", "9", "--out", "x.json", "--rows", "a,b"])
    assert settings.hypernetworks == ()
    assert (settings.identities, settings.seed, names, out) == (3, 9, ["a", "b"], Path("x.json"))
