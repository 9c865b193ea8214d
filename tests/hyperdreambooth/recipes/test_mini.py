"""Everything from nothing: renders, autoencoder, base model, hypernetwork, figures and card, in seconds."""

from pathlib import Path

from hyperdreambooth.recipes import evaluate, mini


def test_the_whole_chain_makes_a_folder_that_personalises(tmp_path: Path) -> None:
    config = mini.MiniConfig(
        work=tmp_path / "work",
        target=tmp_path / "mini",
        identities=100,
        vae_minutes=0.03,
        base_minutes=0.03,
        face_encoder_minutes=0.03,
        hypernetwork_minutes=0.03,
        decoder_minutes=0.03,
        evaluation=evaluate.EvaluateConfig(people=8, photos=2, styled=1, pictures_each=1, probe_people=10),
    )
    mini.main(config)
    for part in ("vae", "unet", "text_encoder", "hypernetwork"):
        assert list((config.target / part).glob("*.safetensors"))
    card = (config.target / "README.md").read_text()
    assert "personalised, right photo of 8" in card
    assert (config.work / "evaluate-people.png").exists()
