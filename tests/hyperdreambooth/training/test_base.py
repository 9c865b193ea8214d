"""`hdb train base`, on a base model of a few thousand weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import BaseModel, load_base_model, sample
from hyperdreambooth.training.base import main
from hyperdreambooth.training.config import BaseRunConfig
from hyperdreambooth.training.run import Run
from tests.hyperdreambooth.training.conftest import shown, train_in_two_processes


@pytest.fixture
def config(tiny_folder: Path, faces: Path, tmp_path: Path) -> BaseRunConfig:
    """A run of seconds."""
    return BaseRunConfig(
        base_model=str(tiny_folder),
        pictures=str(faces),
        output=str(tmp_path / "run"),
        steps=3,
        batch=4,
        warmup_steps=1,
        learning_rate=1e-3,
        save_every=2,
        show_every=3,
    )


def trained(config: BaseRunConfig) -> BaseModel:
    return load_base_model(str(config.folder / "base"), device=torch.device("cpu"), dtype=torch.float32)


def test_a_base_model_is_trained_and_exported_as_a_folder_that_draws(config: BaseRunConfig) -> None:
    main(config)
    before = load_base_model(config.base_model, device=torch.device("cpu"), dtype=torch.float32)
    after = trained(config)
    assert after.weights_hash != before.weights_hash
    for name, weight in before.vae.state_dict().items():
        assert torch.equal(after.vae.state_dict()[name], weight), name
    assert not (config.folder / "base" / "hypernetwork").exists()
    (picture,) = sample(after, ["a photo"], seeds=[0], config=SampleConfig(steps=2))
    assert picture.size == (after.resolution, after.resolution)
    assert len(list((config.folder / "sheets").glob("samples-*.png"))) == 1
    assert shown(config.folder)["images"] == ["samples"]


def test_a_run_may_be_made_longer(config: BaseRunConfig, capfd: pytest.CaptureFixture[str]) -> None:
    main(replace(config, steps=2))
    first = trained(config).weights_hash
    main(replace(config, steps=4))
    assert "going on from step 2\n" in "".join(capfd.readouterr())
    assert trained(config).weights_hash != first


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(
    config: BaseRunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(config)
    stopped, taken = replace(config, output=str(tmp_path / "stopped")), list[int]()
    optimize = Run.optimize

    def counted(run: Run, *arguments: object) -> None:
        if taken == [0, 1]:  # both are in the checkpoint
            taken.append(-1)
            raise InterruptedError
        taken.append(run.step)
        optimize(run, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "optimize", counted)
    with pytest.raises(InterruptedError):
        main(stopped)
    main(stopped)
    assert taken == [0, 1, -1, 2]
    one, other = trained(config), trained(stopped)
    assert other.weights_hash == one.weights_hash


@pytest.mark.slow
def test_two_processes_train_one_model_and_refuse_another_config(config: BaseRunConfig, tmp_path: Path) -> None:
    done = train_in_two_processes("base", config, tmp_path)
    assert done.returncode == 0, done.stderr
    alone = replace(config, output=str(tmp_path / "alone"))
    main(alone)
    before = load_base_model(config.base_model, device=torch.device("cpu"), dtype=torch.float32)
    # The same average of other batches: neither nothing, nor what one process learns.
    assert len({trained(config).weights_hash, trained(alone).weights_hash, before.weights_hash}) == 3
    refused = train_in_two_processes("base", replace(config, learning_rate=1.0), tmp_path)
    assert refused.returncode != 0
    assert "holds a run with another learning_rate" in refused.stdout + refused.stderr


def test_half_precision_trains_the_same_weights_less_exactly(config: BaseRunConfig, tmp_path: Path) -> None:
    main(config)
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps what the first run of a process was told
    half = replace(config, output=str(tmp_path / "half"), mixed_precision="bf16")
    main(half)
    before = load_base_model(config.base_model, device=torch.device("cpu"), dtype=torch.float32)
    start, full, rounded = (
        torch.cat([weight.flatten() for weight in model.unet.parameters()])
        for model in (before, trained(config), trained(half))
    )
    assert 0 < torch.linalg.vector_norm(rounded - full) < 0.3 * torch.linalg.vector_norm(full - start)
