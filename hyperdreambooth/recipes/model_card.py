"""The model card of `mini`: what it is, what it is not, and every figure with the command that measured it."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from hyperdreambooth.basis import LEARNED_FILE
from hyperdreambooth.recipes.architecture import DOWNSCALE

TEXT = """# mini

A complete small Stable Diffusion, with its hypernetwork, that draws portraits of 64 x 64 pixels: enough to run the
whole service on a laptop and to test it truly in seconds. It learned from renders alone, from nothing; one command,
`make mini`, trains another like it{history}.

| part | what | weights |
|---|---|---|
{parts}

Beside them lies `aux_basis.safetensors` ({basis:.1f} MB): the learned aux matrices of {layers} target layers, without
which an adapter says nothing. All weights are half precision; no file is larger than 16 MiB.

## Data and licence

Every picture it learned from was drawn by `hyperdreambooth/portraits`: invented people, on the MakeHuman head (CC0),
in eight styles, with captions that follow from how they were drawn. No photograph, no scraped picture and no real
person is in it, and no other network's weights or judgements. The weights are released under the licence of this
repository. Identities from seed 1 000 000 on were never trained on; the figures below are about them.

## What it can do

Styles: photo, pencil sketch, cartoon, oil painting, watercolor, pixel art, black and white, pop art. Words for age,
gender, hair, a fringe, buns, curls, beard, moustache, freckles, a smile, glasses, a cap, a beanie, a sun hat, and the
colours of clothes and background. `[V] face` is the person it is personalised to.

## What it can't do

- **Real faces.** It has only ever seen renders that look like characters of a game. A real selfie is accepted, but what
  comes out is a rendered stranger with, at best, the right hair and skin. Real faces need a Stable Diffusion and a GPU.
- Anything but one person's head and shoulders, from the front. It knows no scenes; words it doesn't know are ignored.
- A likeness in the strict sense. Skin, hair, beard and build of the person come through, the shape of the face in part,
  and much of the photo's own pose with them: the benchmark `quality` has the figures, with two face judges.
- Fine detail: the autoencoder keeps 1 number of {kept_of}. What it doesn't keep, its decoder invents: plausible, but
  not this person's.
- Its people are as varied as its renderer makes them, and no more: no child, no scarf, no hair that is done otherwise.

## Figures

Measured by `python -m hyperdreambooth.recipes.evaluate`, with judges that took no part in training (YuNet finds faces,
SFace compares them). A cosine of rendered strangers is no zero: compare with the anchors in the table.

For eyes of your own, `python -m hyperdreambooth.recipes.blind --out FOLDER` writes a blind trial about people whom
nobody trained on: which drawing is of whom, and which style is which. Fill in its `answers.json`; `--grade FOLDER`
then counts what is right.

| figure | value |
|---|---|
{figures}
"""
HISTORY = "HISTORY.md"  # of weights that weren't made in one go
PARTS = {
    "vae": "AutoencoderKL, 8 x 8 latents of {channels} channels",
    "unet": "UNet2DConditionModel, widths {widths}",
    "text_encoder": "CLIPTextModel, {text_layers} layers, width {text_width}; {tokens} tokens",
    "hypernetwork": "latents of a face to LiDB train matrices (a = {a}, b = {b}, rank {rank}, {layers} layers)",
}


def write_model_card(folder: Path, figures: dict[str, float]) -> None:
    """README.md beside the weights."""
    sizes = _sizes(folder)
    parts = [
        f"| `{name}` | {what.format(**sizes)} | {_megabytes(folder / name):.1f} MB |" for name, what in PARTS.items()
    ]
    rows = [f"| {name} | {figure:.3f} |" for name, figure in figures.items()]
    (folder / "README.md").write_text(
        TEXT.format(
            parts="\n".join(parts),
            figures="\n".join(rows),
            basis=_megabytes(folder),
            layers=sizes["layers"],
            history="; how these weights came about is told in `HISTORY.md`" if (folder / HISTORY).exists() else "",
            kept_of=3 * DOWNSCALE**2 // sizes["channels"],
        )
    )


def _sizes(folder: Path) -> dict[str, Any]:
    """What the folder's own files say of its networks."""
    vae, unet, text_encoder, hypernetwork = (
        json.loads((folder / name / "config.json").read_text())
        for name in ("vae", "unet", "text_encoder", "hypernetwork")
    )
    with safe_open(folder / LEARNED_FILE, "np") as learned:
        layers = len(list(learned.keys())) // 2  # two matrices each
    return {
        "channels": vae["latent_channels"],
        "widths": " and ".join(map(str, unet["block_out_channels"])),
        "text_layers": text_encoder["num_hidden_layers"],
        "text_width": text_encoder["hidden_size"],
        "tokens": text_encoder["max_position_embeddings"],
        "a": hypernetwork["lidb"]["a"],
        "b": hypernetwork["lidb"]["b"],
        "rank": hypernetwork["hypernetwork"]["rank"],
        "layers": layers,
    }


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
