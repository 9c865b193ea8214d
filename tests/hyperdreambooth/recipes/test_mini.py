"""Everything from nothing: renders, autoencoder, base model, hypernetwork, figures and card, in seconds."""

from pathlib import Path

import pytest

from hyperdreambooth.basis import load_learned
from hyperdreambooth.recipes import evaluate, mini
from hyperdreambooth.recipes.schedule import Deadline
from hyperdreambooth.recipes.stage import CPU


def test_the_whole_chain_makes_a_folder_that_personalises(tmp_path: Path) -> None:
    config = mini.MiniConfig(
        work=tmp_path / "work",
        target=tmp_path / "mini",
        plan=mini.Plan(
            identities=100,
            vae_steps=2,
            base_steps=2,
            basis_people=2,
            fitted_people=100,
            fit_steps=1,
            hypernetwork_steps=2,
            decoder_steps=2,
        ),
        evaluation=evaluate.EvaluateConfig(people=8, photos=2, styled=1, pictures_each=1, probe_people=10),
    )
    mini.main(config)
    for part in ("vae", "unet", "text_encoder", "hypernetwork"):
        assert list((config.target / part).glob("*.safetensors"))
    assert load_learned(config.target) is not None
    card = (config.target / "README.md").read_text()
    assert "personalised, right photo of 8" in card
    assert (config.work / "evaluate-people.png").exists()


def test_a_run_whose_time_is_up_ends_with_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mini.main(mini.MiniConfig(work=tmp_path / "work", target=tmp_path / "mini", deadline=Deadline(minutes=0)))
    assert "time is up: pictures, not begun; after it vae, base, aux basis, fitted people" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_changes_what_it_names_and_nothing_else() -> None:
    config = mini.parsed(["--device", "cpu", "--stop-after", "8", "--base-steps", "0", "--from", "shipped"])
    assert config.plan == mini.Plan(base_steps=0)
    assert config.deadline.minutes == 8
    assert (config.device, config.start, config.work) == (CPU, Path("shipped"), mini.MiniConfig.work)
    assert mini.parsed(["--device", "cuda"]).plan == mini.GPU_PLAN
