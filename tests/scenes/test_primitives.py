"""The ray-caster against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from chiasm.contracts import Intrinsics
from chiasm.scenes.furniture import body, turned
from chiasm.scenes.primitives import Light, Primitive, Scene, View, looking, nearest, shadowed
from chiasm.scenes.shading import cast, radiance
from chiasm.scenes.textures import WAYS, Look, Material

GREY = Material(np.full((4, 4, 3), 0.5, dtype=np.float32))
LENS = Intrinsics(100.0, 100.0, 16.0, 12.0)
SIZE = (25, 33)
FRONT = View(looking((0.0, 0.0, 0.0), 0.0), LENS)  # looks along y


def _seen(*bodies: Primitive, view: View = FRONT):
    hits = cast(Scene(bodies, (), np.ones(3), view), SIZE)
    normals = hits.normal @ view.pose[:3, :3].T
    return hits.depth.reshape(SIZE), normals.reshape(*SIZE, 3), hits.index.reshape(SIZE)


def _rays():
    v, u = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    return np.stack([(u - 16.0) / 100.0, (v - 12.0) / 100.0, np.ones(SIZE)], axis=-1)


def test_a_pose_is_a_rotation_that_sees_up_as_minus_y():
    view = View(looking((1.0, 2.0, 3.0), 0.7, 0.2, 0.1), LENS)
    turn = view.pose[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    np.testing.assert_allclose(view.origin, (1.0, 2.0, 3.0))
    level = looking((0, 0, 0), 0.0)[:3, :3]
    right_up_ahead = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_allclose(level @ right_up_ahead, np.diag([1.0, -1.0, 1.0]), atol=1e-12)


def test_a_floor_has_the_depth_of_its_height_over_the_rays_fall():
    depth, normals, index = _seen(body("plane", "floor", (0, 0, -1.5), (1e4, 1e4, 0), GREY))
    fall = _rays()[..., 1]
    below = fall > 0
    np.testing.assert_allclose(depth[below], 1.5 / fall[below], rtol=1e-9)
    np.testing.assert_allclose(normals[below], np.tile([0.0, -1.0, 0.0], (below.sum(), 1)), atol=1e-12)
    assert np.isinf(depth[~below]).all()
    assert (index[~below] == -1).all()


def test_a_sphere_has_the_depth_of_the_quadratic_and_normals_along_its_radius():
    depth, normals, index = _seen(body("sphere", "lamp", (0.1, 5.0, 0.05), (0.4, 0.4, 0.4), GREY))
    rays, centre = _rays(), np.array([0.1, -0.05, 5.0])
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - 0.16
    hit = b**2 - a * c > 0
    assert hit.sum() > 100
    np.testing.assert_array_equal(index >= 0, hit)
    wanted = (b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a
    np.testing.assert_allclose(depth[hit], wanted[hit], rtol=1e-9)
    points = rays[hit] * depth[hit][:, None]
    np.testing.assert_allclose(normals[hit], (points - centre) / 0.4, atol=1e-7)


def test_a_box_shows_its_front_and_a_turned_box_its_edge():
    depth, normals, index = _seen(body("box", "box", (0, 3.0, 0), (0.2, 0.5, 0.1), GREY))
    inside = (np.abs(_rays()[..., 0]) * 2.5 < 0.2) & (np.abs(_rays()[..., 1]) * 2.5 < 0.1)
    np.testing.assert_allclose(depth[inside], 2.5)
    np.testing.assert_allclose(normals[inside], np.tile([0.0, 0.0, -1.0], (inside.sum(), 1)), atol=1e-12)
    straight = body("box", "box", (0, 3.0, 0), (0.5, 0.5, 0.5), GREY)
    tilted = Primitive("box", straight.centre, straight.half, turned(np.pi / 4), GREY, "box")
    depth, normals, _ = _seen(tilted)
    assert depth[12, 16] == pytest.approx(3.0 - np.sqrt(0.5))
    np.testing.assert_allclose(normals[12, 20], [np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(normals[12, 12], [-np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-12)


def test_a_cylinder_is_round_across_flat_at_its_end():
    depth, normals, _ = _seen(body("cylinder", "Pole", (0, 4.0, 0), (0.3, 0.3, 9.0), GREY))
    assert depth[12, 16] == pytest.approx(3.7)
    x = _rays()[12, 20, 0]
    a, b, c = 1 + x * x, 4.0, 16.0 - 0.09
    wanted = (b - np.sqrt(b * b - a * c)) / a
    assert depth[12, 20] == pytest.approx(wanted)
    np.testing.assert_allclose(normals[12, 20], np.array([x * wanted, 0, wanted - 4.0]) / 0.3, atol=1e-9)
    above = View(looking((0, 4.0, 11.0), 0.0, -np.pi / 2), LENS)
    depth, normals, _ = _seen(body("cylinder", "Pole", (0, 4.0, 0), (0.3, 0.3, 9.0), GREY), view=above)
    assert depth[12, 16] == pytest.approx(2.0)
    np.testing.assert_allclose(normals[12, 16], [0, 0, -1], atol=1e-9)


def test_what_is_behind_the_camera_is_not_seen_and_a_box_is_seen_from_within():
    behind = [body(kind, "box", (0, -3.0, 0), (0.5, 0.5, 0.5), GREY) for kind in ("box", "sphere", "cylinder", "plane")]
    assert (_seen(*behind)[2] == -1).all()
    depth, normals, _ = _seen(body("box", "wall", (0, 0, 0), (2.0, 3.0, 2.0), GREY))
    np.testing.assert_allclose(depth, 3.0)
    assert (normals[..., 2] < 0).all()


def test_a_shadow_falls_behind_a_body_and_nowhere_else():
    shade = body("box", "box", (0, 0, 1.0), (0.2, 0.2, 0.1), GREY)
    points = np.array([[0, 0, 0.0], [0.1, 0.1, 0.0], [1.0, 0, 0], [0, 0, 1.5]])
    assert shadowed([shade], np.array([0, 0, 3.0]), points).tolist() == [True, True, False, False]
    floor = body("plane", "floor", (0, 0, 0), (5.0, 5.0, 0), GREY)
    view = View(looking((0, 0, 2.0), 0.0, -np.pi / 2), LENS)
    scene = Scene((floor,), (Light(np.array([0, 0, 2.0]), np.ones(3), 2.0),), np.zeros(3), view)
    rays = view.rays(np.array([16.0]), np.array([12.0]))
    light = radiance(scene, nearest(scene.primitives, view.origin, rays), rays, np.ones(1))
    np.testing.assert_allclose(light, 0.5)  # reflectance 1/2, irradiance 1 at 2 m, straight from above


def test_every_texture_is_a_tile_of_reflectance_and_a_function_of_the_seed():
    for way in WAYS:
        one, two = (Look(np.random.default_rng(3)).tile(way, np.full(3, 0.4), np.full(3, 0.1)) for _ in range(2))
        assert one.shape == (128, 128, 3)
        assert one.dtype == np.float32
        assert 0.0 < one.min() <= one.max() < 1.0
        np.testing.assert_array_equal(one, two)
    assert len(WAYS) == 10
