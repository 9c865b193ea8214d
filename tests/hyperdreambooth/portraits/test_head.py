"""Reading the assets: meshes, targets, sliders; and a cache that changes nothing."""

import gzip
from pathlib import Path

import numpy as np

from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.head import Head, make_sliders
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.shape import head_shape
from hyperdreambooth.portraits.surface import vertex_normals
from hyperdreambooth.portraits.wavefront import read_mesh, read_target

CUBE_SIDE = """
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
g square
f 1/1 2/2 3/3 4/4
g half
f 1/1 2/2 3/3
"""


def test_a_mesh_is_read_with_its_groups_and_triangles_become_quads(tmp_path: Path) -> None:
    path = tmp_path / "side.obj"
    path.write_text(CUBE_SIDE)
    mesh = read_mesh(path)
    assert mesh.vertices.shape == (4, 3)
    assert mesh.quads.tolist() == [[0, 1, 2, 3], [0, 1, 2, 2]]
    assert mesh.groups["half"].tolist() == [1]
    np.testing.assert_allclose(vertex_normals(mesh.vertices, mesh.quads), [[0, 0, 1]] * 4)


def test_a_target_moves_the_vertices_it_names(tmp_path: Path) -> None:
    path = tmp_path / "nose.target.gz"
    with gzip.open(path, "wt") as file:
        file.write("# a comment of four words\n2 0.5 -1 0\n")
    assert read_target(path, vertex_count=4).tolist() == [[0, 0, 0], [0, 0, 0], [0.5, -1, 0], [0, 0, 0]]


def test_opposite_targets_share_a_slider_and_sides_move_together() -> None:
    names = ["nose/nose-hump-decr", "nose/nose-hump-incr", "eyes/l-eye-scale-up", "eyes/l-eye-scale-down"]
    names += ["eyes/r-eye-scale-up", "eyes/r-eye-scale-down", "head/head-square", "expression/smile"]
    sliders = {slider.name: slider for slider in make_sliders(sorted(names))}
    assert set(sliders) == {"nose-hump", "l-eye-scale", "head-square"}
    assert sliders["nose-hump"].above == ("nose/nose-hump-incr",)
    assert sliders["l-eye-scale"].below == ("eyes/l-eye-scale-down", "eyes/r-eye-scale-down")
    assert sliders["head-square"].below == ()


def test_the_cache_gives_back_the_same_head(head: Head, tmp_path: Path) -> None:
    fresh, cached = (Head.load(cache=tmp_path) for _ in range(2))
    np.testing.assert_allclose(cached.targets, fresh.targets, atol=2e-3)  # the cache is half precision
    np.testing.assert_array_equal(cached.targets, head.targets.astype(np.float16).astype(np.float32))


def test_the_eyes_are_where_the_canonical_space_says(head: Head) -> None:
    left, right = head.eyes(head.canonical)
    np.testing.assert_allclose((left + right) / 2, 0, atol=1e-5)
    assert np.isclose(np.linalg.norm(left - right), 1, atol=1e-5)


def test_a_smile_moves_the_mouth_alone(head: Head, somebody: Identity) -> None:
    moved = np.abs(head_shape(head, somebody, Context(smile=1)) - head_shape(head, somebody, Context())).max(1)
    assert moved[head.canonical[:, 1] > 0.6].max() < 1e-6
    assert moved[head.canonical[:, 1] < -0.6].max() > 0.05
