"""A blind trial for a human reader: `python -m hyperdreambooth.recipes.blind --out FOLDER`, then `--grade FOLDER`.

Who is it, and which style is it? The people were never trained on. The folder gets two numbered sheets, `match.png` and
`styles.png`, an empty `answers.json`, and `key.json`, which nobody should open before the answers are written.
"""

import argparse
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import FIRST_HELD_OUT_SEED
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.evaluate import draw_in, personalised, photo_of
from hyperdreambooth.recipes.progress import say
from hyperdreambooth.recipes.sheets import labelled, sheet_of, titled

KEY, ANSWERS = "key.json", "answers.json"
MOST_PEOPLE = 26  # one letter each
STYLE_COLUMNS = 8
Answers = dict[str, dict[str, str]]  # of each sheet, by number


@dataclass(frozen=True, kw_only=True)
class BlindConfig:
    """Another seed is another trial: other people, other pictures of them, another order."""

    out: Path
    folder: Path = Path("hyperdreambooth/mini")
    cache: Path = Path("runs/mini/cache")
    seed: int = 0
    people: int = 8
    each_style: int = 3


@dataclass(frozen=True)
class Puzzle:
    """Pictures in an order that tells nothing, and what each of them is."""

    pictures: list[Image.Image]
    truth: list[str]

    @classmethod
    def shuffled(cls, pictures: Sequence[Image.Image], truth: Sequence[str], rng: np.random.Generator) -> "Puzzle":
        order = rng.permutation(len(pictures))
        return cls([pictures[place] for place in order], [truth[place] for place in order])

    @property
    def key(self) -> dict[str, str]:
        return {str(number): answer for number, answer in enumerate(self.truth, 1)}

    def sheet(self, *, columns: int) -> Image.Image:
        return labelled_sheet(self.pictures, list(self.key), columns=columns)


def main(config: BlindConfig) -> None:
    """Personalise strangers, draw them, and write what a reader needs to guess."""
    assert config.people <= MOST_PEOPLE, "there is a letter for each person"
    networks = load_networks(str(config.folder), device=torch.device("cpu"), dtype=torch.float32)
    head = Head.load(cache=config.cache)
    first = FIRST_HELD_OUT_SEED + MOST_PEOPLE * config.seed
    selfies = [photo_of(head, seed, view=0) for seed in range(first, first + config.people)]
    adapters = personalised(networks, selfies, networks.config)
    rng = np.random.default_rng(config.seed)
    letters = list(string.ascii_uppercase[: config.people])
    drawn = draw_in(Style.PHOTO, networks, adapters, first_seed=int(rng.integers(1 << 31)))
    match = Puzzle.shuffled(drawn, letters, rng)
    styles = style_puzzle(networks, adapters, config, rng)
    config.out.mkdir(parents=True, exist_ok=True)
    references = labelled_sheet(selfies, letters, columns=config.people)
    question = "Above: one photo of each person. Below: the same people, drawn anew. Which letter is each number?"
    titled(question, [references, match.sheet(columns=config.people)]).save(config.out / "match.png")
    question = f"Which style is each number? {', '.join(Style)}"
    titled(question, [styles.sheet(columns=STYLE_COLUMNS)]).save(config.out / "styles.png")
    write_answers(config.out, {"match": match.key, "styles": styles.key})
    say(f"blind  look at the sheets in {config.out}, fill in {ANSWERS}, then --grade {config.out}")


def style_puzzle(
    networks: Networks, adapters: Sequence[Adapter], config: BlindConfig, rng: np.random.Generator
) -> Puzzle:
    """As many pictures of each style; who is on them goes round."""
    pictures: list[Image.Image] = []
    for style in Style:
        who = [adapters[(len(pictures) + number) % len(adapters)] for number in range(config.each_style)]
        pictures += draw_in(style, networks, who, first_seed=int(rng.integers(1 << 31)))
    return Puzzle.shuffled(pictures, [style for style in Style for _ in range(config.each_style)], rng)


def labelled_sheet(pictures: Sequence[Image.Image], labels: Sequence[str], *, columns: int) -> Image.Image:
    framed = [labelled(picture, label) for picture, label in zip(pictures, labels, strict=True)]
    return sheet_of(framed, columns=columns, enlarge=1)


def write_answers(folder: Path, key: Answers) -> None:
    """The key, and the same file with nothing filled in."""
    empty = {sheet: dict.fromkeys(answers, "") for sheet, answers in key.items()}
    for name, content in ((KEY, key), (ANSWERS, empty)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def grade(folder: Path) -> dict[str, int]:
    """How many answers of each sheet are right. Whoever guesses one answer among n gets one of n right."""
    key: Answers = json.loads((folder / KEY).read_text())
    given: Answers = json.loads((folder / ANSWERS).read_text())
    right: dict[str, int] = {}
    for sheet, truth in key.items():
        wrong = [number for number, answer in truth.items() if not same(answer, given[sheet][number])]
        right[sheet] = len(truth) - len(wrong)
        chance = len(truth) / len(set(truth.values()))
        mistakes = ", ".join(f"{number} is {truth[number]}" for number in wrong)
        say(f"{sheet}  {right[sheet]} of {len(truth)} right, by chance {chance:g}; wrong: {mistakes or 'none'}")
    return right


def same(truth: str, answer: str) -> bool:
    return answer.strip().casefold() == truth.casefold()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hyperdreambooth.recipes.blind", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="write a trial to this folder")
    what.add_argument("--grade", type=Path, metavar="FOLDER", help="compare the answers in this folder with its key")
    parser.add_argument("--seed", type=int, default=BlindConfig.seed)
    parser.add_argument("--people", type=int, default=BlindConfig.people)
    parser.add_argument("--folder", type=Path, default=BlindConfig.folder, help="the model on trial")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    if options.grade:
        grade(options.grade)
    else:
        main(BlindConfig(out=options.out, folder=options.folder, seed=options.seed, people=options.people))
