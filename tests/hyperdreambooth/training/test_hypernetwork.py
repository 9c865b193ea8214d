"""`hdb train hypernetwork` and `hdb train fit`, on a base model of a few thousand weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.bank import flatten
from hyperdreambooth.config import FinetuneConfig, to_json
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.hypernetwork import FOLDER
from hyperdreambooth.lidb import LiDB, shared_start
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.training.config import FitRunConfig, HypernetworkRunConfig
from hyperdreambooth.training.fit import fitted_lidb, load_fitted
from hyperdreambooth.training.fit import main as fit
from hyperdreambooth.training.hypernetwork import check_fitted, main, weight_space_loss
from hyperdreambooth.training.pictures import NoPictures
from hyperdreambooth.training.run import OtherRun
from tests.hyperdreambooth.conftest import LIDB
from tests.hyperdreambooth.training.conftest import shown, train_in_two_processes


def weights(config: HypernetworkRunConfig) -> dict[str, torch.Tensor]:
    return load_file(config.folder / "model" / FOLDER / "model.safetensors")


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_the_run_that_was_not(
    hypernetwork_run: HypernetworkRunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    straight = replace(hypernetwork_run, output=str(tmp_path / "straight"), steps=20, show_every=20)
    main(straight)
    killed = replace(straight, output=str(tmp_path / "killed"))
    (tmp_path / "config.json").write_text(to_json(killed))
    command = ["train", "hypernetwork", killed.base_model, killed.pictures, "--config", str(tmp_path / "config.json")]
    with (tmp_path / "log").open("wb") as log:
        threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # the order of sums depends on them
        process = subprocess.Popen([sys.executable, "-m", "cli.main", *command], stdout=log, stderr=log, env=threads)
    deadline = time.monotonic() + 240
    while not (killed.folder / "checkpoints" / "0000002").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed.folder / "model").exists()

    newest = max((killed.folder / "checkpoints").glob("???????"))
    assert json.loads((newest / "config.json").read_text()) == json.loads(to_json(killed))
    capfd.readouterr()
    main(killed)
    assert f"going on from step {int(newest.name)}\n" in "".join(capfd.readouterr())
    assert weights(killed).keys() == weights(straight).keys()
    for name, weight in weights(straight).items():
        assert torch.equal(weights(killed)[name], weight), name


def test_a_hypernetwork_is_trained_exported_and_judged(hypernetwork_run: HypernetworkRunConfig) -> None:
    main(hypernetwork_run)
    figures = json.loads((hypernetwork_run.folder / "figures.json").read_text())
    assert figures["step"] == hypernetwork_run.steps
    assert {"face_found", "identity_sface", "top1_sface"} <= figures.keys()
    assert list((hypernetwork_run.folder / "sheets").glob("validation-*.png"))
    assert shown(hypernetwork_run.folder)["images"] == ["validation"]
    assert {"loss", "identity_sface"} <= set(shown(hypernetwork_run.folder)["scalars"])
    model = load_networks(str(hypernetwork_run.folder / "model"), device=torch.device("cpu"), dtype=torch.float32)
    assert model.hypernetwork is not None


@pytest.mark.gpu
def test_one_gpu_trains_a_hypernetwork_in_half_precision(hypernetwork_run: HypernetworkRunConfig) -> None:
    main(replace(hypernetwork_run, mixed_precision="bf16"))
    figures = json.loads((hypernetwork_run.folder / "figures.json").read_text())
    assert {"face_found", "identity_sface", "top1_sface"} <= figures.keys()
    trained = weights(hypernetwork_run).values()
    assert all(bool(weight.isfinite().all()) for weight in trained)


def test_another_config_needs_another_folder(hypernetwork_run: HypernetworkRunConfig) -> None:
    main(hypernetwork_run)
    with pytest.raises(OtherRun, match="learning_rate"):
        main(replace(hypernetwork_run, learning_rate=1.0))


def test_with_fitted_people_a_run_starts_at_their_mean(
    base_model: BaseModel, hypernetwork_run: HypernetworkRunConfig, tmp_path: Path
) -> None:
    fitting = FitRunConfig(
        base_model=hypernetwork_run.base_model,
        pictures=hypernetwork_run.pictures,
        output=str(tmp_path / "fit"),
        batch=3,
        finetune=FinetuneConfig(steps=3, rank=1, noise_draws=2, learning_rate=0.1),
    )
    fit(fitting)
    fitted, basis = load_fitted(fitting.folder), aux_basis(base_model, LIDB)
    assert sorted(fitted) == ["alone", "person-0", "person-1", "person-2"]
    with Image.open(fitting.folder / "sheets" / "fitted-0000000.png") as sheet:
        assert sheet.width == 3 * base_model.resolution, "the first batch's photos, and under each its pictures"
    assert shown(fitting.folder)["images"] == ["fitted"]
    assert "identity_sface" in shown(fitting.folder)["scalars"]

    with_beta = replace(hypernetwork_run, beta=1.0, fitted=str(fitting.folder), steps=2, show_every=2)
    main(with_beta)
    without = replace(hypernetwork_run, output=str(tmp_path / "without"), steps=2, show_every=2)
    main(without)
    people = fitted_lidb([fitted[name] for name in sorted(fitted)[hypernetwork_run.held_out :]], basis)
    mean = people.a_train.mean(dim=0)
    assert mean.abs().max() > 0.008  # four times as far as two steps lead
    torch.testing.assert_close(weights(with_beta)["start_a"].float(), mean, rtol=0, atol=3e-3)
    assert weights(without)["start_a"].abs().max() < 3e-3


def test_fitted_weights_are_of_the_rank_asked_for_and_differ_by_the_pictures_alone(
    base_model: BaseModel, hypernetwork_run: HypernetworkRunConfig, tmp_path: Path
) -> None:
    people = tmp_path / "people"
    shutil.copytree(hypernetwork_run.pictures, people)
    shutil.copytree(people / "person-0", people / "twin")
    fitting = FitRunConfig(
        base_model=hypernetwork_run.base_model,
        pictures=str(people),
        output=str(tmp_path / "fit"),
        batch=3,  # the twin is in another batch, at another place
        finetune=FinetuneConfig(steps=3, rank=2, noise_draws=2),
    )
    fit(fitting)
    fitted = load_fitted(fitting.folder)
    check_fitted(fitted, 2, aux_basis(base_model, LIDB))
    torch.testing.assert_close(fitted["twin"], fitted["person-0"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(fitted["person-1"], fitted["person-0"], rtol=1e-4, atol=1e-5)


def test_a_fit_that_was_broken_off_goes_on(hypernetwork_run: HypernetworkRunConfig, tmp_path: Path) -> None:
    finetune = FinetuneConfig(steps=2, rank=1, noise_draws=2)
    given = hypernetwork_run.base_model, hypernetwork_run.pictures
    fitting = FitRunConfig(
        base_model=given[0], pictures=given[1], output=str(tmp_path / "fit"), batch=2, finetune=finetune
    )
    fit(fitting)
    first, second = sorted((fitting.folder / "fitted").iterdir())
    whole, kept = load_fitted(fitting.folder), first.stat().st_mtime_ns
    second.unlink()
    fit(fitting)
    assert first.stat().st_mtime_ns == kept
    again = load_fitted(fitting.folder)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_two_processes_fit_everybody_and_train_one_hypernetwork_in_half_precision(
    hypernetwork_run: HypernetworkRunConfig, base_model: BaseModel, tmp_path: Path
) -> None:
    given = hypernetwork_run.base_model, hypernetwork_run.pictures
    finetune = FinetuneConfig(steps=3, rank=1, noise_draws=2, learning_rate=0.1)
    fitting = FitRunConfig(
        base_model=given[0],
        pictures=given[1],
        output=str(tmp_path / "fit"),
        batch=2,
        finetune=finetune,
        mixed_precision="bf16",
    )
    done = train_in_two_processes("fit", fitting, tmp_path)
    assert done.returncode == 0, done.stderr
    together, start = load_fitted(fitting.folder), shared_start(aux_basis(base_model, LIDB), subjects=1)
    alone = replace(fitting, output=str(tmp_path / "alone"), mixed_precision="no")
    fit(alone)
    for name, exact in load_fitted(alone.folder).items():
        assert (
            0
            < torch.linalg.vector_norm(together[name] - exact)
            < 0.3 * torch.linalg.vector_norm(exact - flatten(start)[0])
        ), name

    run = replace(hypernetwork_run, beta=1.0, fitted=str(fitting.folder), mixed_precision="bf16")
    done = train_in_two_processes("hypernetwork", run, tmp_path)
    assert done.returncode == 0, done.stderr
    single = replace(run, output=str(tmp_path / "single"))
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps what the first run of a process was told
    main(single)
    assert weights(run).keys() == weights(single).keys()
    assert all(weight.isfinite().all() for weight in weights(run).values())
    assert any(not torch.equal(weight, weights(single)[name]) for name, weight in weights(run).items()), "other batches"


def test_everybody_must_have_been_fitted(hypernetwork_run: HypernetworkRunConfig, tmp_path: Path) -> None:
    with pytest.raises(NoPictures, match="no fitted weights of"):
        main(replace(hypernetwork_run, beta=0.1, fitted=str(tmp_path)))


def test_fitted_weights_of_another_rank_are_no_target(base_model: BaseModel) -> None:
    basis = aux_basis(base_model, LIDB)
    fitted = {"ann": torch.zeros(basis.table.total_a + basis.table.total_b)}
    check_fitted(fitted, 1, basis)
    with pytest.raises(NoPictures, match=r"the fitted weights of ann are .* numbers; rank 2 has"):
        check_fitted(fitted, 2, basis)


def test_the_weight_space_loss_is_the_mean_square_and_zero_at_the_target(tiny_networks: Networks) -> None:
    start = shared_start(tiny_networks.basis, subjects=2)
    numbers = torch.cat([start.a_train.flatten(1), start.b_train.flatten(1)], dim=1)
    torch.testing.assert_close(weight_space_loss(start, numbers), torch.zeros(2))
    moved = LiDB(start.basis, start.a_train + 0.5, start.b_train + 0.5)
    torch.testing.assert_close(weight_space_loss(moved, numbers), torch.full((2,), 0.25))
