"""Generated rooms and streets: consistent targets, a picture for a seed, and Mitsuba's picture of the same thing."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chiasm.contracts import Intrinsics
from chiasm.datasets.vocabulary import JOINT as CLASSES
from chiasm.datasets.vocabulary import ROOM as ROOM_CLASSES
from chiasm.datasets.vocabulary import STREET as STREET_CLASSES
from chiasm.errors import ConfigError, MissingExtraError
from chiasm.scenes import mitsuba
from chiasm.scenes.furniture import body, bounds, turned
from chiasm.scenes.generated import Scenes
from chiasm.scenes.primitives import Primitive, Scene, View, looking, nearest
from chiasm.scenes.rooms import room
from chiasm.scenes.shading import cast
from chiasm.scenes.textures import Look, Material

SMALL = (61, 83)


@pytest.fixture(scope="module", params=["room", "street"])
def scenes(request):
    return Scenes(request.param, count=3, seed=5, size=SMALL)


@pytest.fixture(scope="module")
def drawn(scenes):
    return [scenes.rendered(index) for index in range(len(scenes))]


def test_samples_have_the_shapes_units_and_ids_of_their_tasks(scenes, drawn):
    assert list(scenes.tasks) == ["depth", "normals", "edges", "semantics"]
    for item in drawn:
        sample = item.sample
        assert sample.frame.pixels.shape == (3, *SMALL)
        assert sample.frame.pixels.dtype == torch.float32
        assert 0.0 <= float(sample.frame.pixels.min()) <= float(sample.frame.pixels.max()) <= 1.0
        for task in scenes.specs:
            target, valid = sample.targets[task.name], sample.valid[task.name]
            assert target.shape == (3 if task.name == "normals" else 1, *SMALL)
            assert target.dtype == (torch.int64 if task.name == "semantics" else torch.float32)
            assert valid.shape == SMALL
            assert bool(torch.isfinite(target.float()).all())
            assert not bool(target[:, ~valid].any())
        ids = sample.targets["semantics"]
        assert 0 <= int(ids.min()) <= int(ids.max()) < len(CLASSES)
        assert set(sample.targets["edges"].unique().tolist()) == {0.0, 1.0}
        assert item.pose.shape == (4, 4)


def test_depth_and_normals_tell_of_the_same_surfaces(drawn):
    for item in drawn:
        lens, depth = item.sample.camera, item.sample.targets["depth"][0].double()
        normals, valid = item.sample.targets["normals"].double(), item.sample.valid["depth"]
        v, u = torch.meshgrid(*(torch.arange(edge).double() for edge in SMALL), indexing="ij")
        points = torch.stack([(u - lens.cx) / lens.fx * depth, (v - lens.cy) / lens.fy * depth, depth])
        across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
        found = torch.nn.functional.normalize(torch.linalg.cross(down, across, dim=0), dim=0)
        wanted = normals[:, 1:-1, 1:-1]
        around = torch.nn.functional.unfold(normals[None], 3).reshape(3, 9, *found.shape[1:])
        bodies = torch.from_numpy(cast(item.scene, SMALL).index.reshape(1, 1, *SMALL).astype(float))
        bodies = torch.nn.functional.unfold(bodies, 3).reshape(9, *found.shape[1:])
        even = ((around * wanted[:, None]).sum(0) > 0.9999).all(0) & valid[1:-1, 1:-1]
        even &= (bodies == bodies[4]).all(0)
        close = (found * wanted).sum(0) > 0.999
        assert float(even.float().mean()) > 0.1
        assert float(close[even].float().mean()) > 0.99  # and all but what float32 rounds far away
        np.testing.assert_allclose(normals.norm(dim=0)[valid], 1.0, atol=1e-5)
        assert float((normals * points).sum(0)[valid].max()) <= 1e-5  # towards the camera


def test_the_sky_is_a_class_without_depth():
    sample = Scenes("street", 1, 5, size=SMALL)[0]
    sky = sample.targets["semantics"][0] == CLASSES.index("Sky")
    assert bool(sky.any())
    assert not bool(sample.valid["depth"][sky].any())
    assert not bool(sample.valid["normals"][sky].any())
    assert bool(sample.valid["semantics"][sky].all())


def test_a_seed_is_a_picture_and_another_seed_another(scenes, drawn):
    again = Scenes(scenes.kind, count=3, seed=5, size=SMALL)[1]
    assert torch.equal(again.frame.pixels, drawn[1].sample.frame.pixels)
    assert all(torch.equal(again.targets[task], target) for task, target in drawn[1].sample.targets.items())
    other = Scenes(scenes.kind, count=3, seed=6, size=SMALL)[1]
    assert not torch.equal(again.frame.pixels, other.frame.pixels)


def test_classes_choose_the_ids_and_what_is_not_among_them_is_invalid(scenes, drawn):
    names = ("floor", "wall", "Road", "Sky")
    some = Scenes(scenes.kind, count=3, seed=5, size=SMALL, classes=names)[0]
    full = drawn[0].sample.targets["semantics"]
    for number, name in enumerate(names):
        there = full == CLASSES.index(name)
        assert bool((some.targets["semantics"][there] == number).all())
        assert bool(some.valid["semantics"][there[0]].all())
    listed = torch.isin(full, torch.tensor([CLASSES.index(name) for name in names]))
    assert torch.equal(some.valid["semantics"], listed[0])


def test_instances_end_in_edges(drawn):
    for item in drawn:
        differ = item.instances[:, 1:] != item.instances[:, :-1]
        edges = item.sample.targets["edges"][0] > 0
        assert bool((edges[:, 1:] | edges[:, :-1])[differ].all())


def test_rooms_are_of_believable_size_and_their_camera_is_inside():
    for seed in range(6):
        scene = room(Look(np.random.default_rng(seed)), Intrinsics(60.0, 60.0, 40.0, 30.0))
        shell = bounds([part for part in scene.primitives if part.label in ("floor", "ceiling")])
        size = shell[1] - shell[0]
        assert (size[:2] >= 1.99).all()
        assert (size[:2] <= 8.01).all()
        assert ((scene.view.origin > shell[0]) & (scene.view.origin < shell[1])).all()
        assert 0.6 < scene.view.origin[2] < 2.0
        assert {part.label for part in scene.primitives} <= set(ROOM_CLASSES)
        assert len(scene.primitives) > 20


def test_pieces_of_furniture_do_not_interpenetrate():
    scene = room(Look(np.random.default_rng(2)), Intrinsics(60.0, 60.0, 40.0, 30.0))
    labels = {"sofa", "bed", "cabinet", "dresser", "bookshelf", "bathtub", "toilet", "counter"}
    things: dict[int, list[Primitive]] = {}
    for part in scene.primitives:
        if part.label in labels:
            things.setdefault(part.instance, []).append(part)
    boxes = [bounds(parts) for parts in things.values()]
    for k, one in enumerate(boxes):
        for other in boxes[:k]:
            assert not ((one[0] + 0.03 < other[1]) & (other[0] + 0.03 < one[1])).all()


def test_wrong_options_are_sentences():
    with pytest.raises(ConfigError, match="room"):
        Scenes("rom")
    with pytest.raises(ConfigError, match="mitsuba"):
        Scenes(renderer="mitsba")
    with pytest.raises(ConfigError, match="8 x 8"):
        Scenes(size=(4, 40))
    with pytest.raises(IndexError):
        _ = Scenes(count=1)[1]
    assert len(CLASSES) == 50 == len(set(CLASSES))
    assert len(STREET_CLASSES) == 11


def test_photographs_cover_surfaces():
    picture = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    plain, covered = (Scenes("room", 1, 5, size=SMALL, photographs=set_)[0] for set_ in ((), (picture,)))
    assert not torch.equal(plain.frame.pixels, covered.frame.pixels)


def test_without_mitsuba_the_message_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chiasm\[scenes\]"'):
        _ = Scenes("room", 1, 5, "mitsuba", SMALL)[0]


def test_mitsuba_is_asked_for_a_plain_variant_once(monkeypatch):
    chosen: list[str] = []
    fake = SimpleNamespace(variant=lambda: chosen[-1] if chosen else None, set_variant=chosen.append)
    monkeypatch.setitem(sys.modules, "mitsuba", fake)
    assert mitsuba.library() is fake
    assert mitsuba.library() is fake
    assert chosen == ["scalar_rgb"]


def _bodies(glow: float = 1.0) -> tuple[Primitive, ...]:
    white = Material(np.full((8, 8, 3), 0.9, dtype=np.float32), emission=glow)
    parts = [
        body("box", "box", (-0.9, 4.0, 0.3), (0.35, 0.3, 0.4), white),
        body("sphere", "lamp", (0.1, 4.0, 0.6), (0.4, 0.3, 0.3), white),
        body("cylinder", "Pole", (1.0, 4.0, 0.0), (0.25, 0.25, 0.5), white),
        body("plane", "picture", (0.0, 3.5, -0.6), (0.4, 0.3, 0.0), white),
    ]
    tilt = turned(0.6) @ turned(0.5, 0)
    return tuple(Primitive(p.kind, p.centre, p.half, tilt, p.material, p.label) for p in parts)


def test_meshes_lie_on_the_bodies_and_close():
    for part in _bodies():
        corners, texture, faces = mitsuba.mesh(part)
        assert len(corners) == len(texture)
        assert 0 <= faces.min() <= faces.max() < len(corners)
        own = (corners - part.centre) @ part.turn / np.maximum(part.half, 1e-9)
        if part.kind == "sphere":
            np.testing.assert_allclose(np.linalg.norm(own, axis=-1), 1.0, atol=1e-9)
        middle = corners[faces].mean(1)
        eye = np.array([0.0, 0.0, 0.0])
        hits = nearest((part,), eye, middle - eye)
        assert float((hits.index >= 0).mean()) > 0.9
        assert (hits.depth[hits.index >= 0] < 1.0 + 1e-2).all()


def test_mitsuba_draws_the_silhouettes_that_the_ray_caster_sees():
    if importlib.util.find_spec("mitsuba") is None:
        pytest.skip('needs Mitsuba: pip install "chiasm[scenes]"')
    view = View(looking((0.05, 0.0, 0.1), 0.05, 0.02, 0.03), Intrinsics(90.0, 90.0, 62.3, 49.1))
    size = (91, 121)
    scene = Scene(_bodies(), (), np.zeros(3), view)
    light = mitsuba.path_traced(scene, size, samples=4, bounces=2).mean(-1)
    seen = cast(scene, size).index.reshape(size) >= 0
    shifted = [np.roll(seen, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    inner, outer = np.logical_and.reduce(shifted), np.logical_or.reduce(shifted)
    assert inner.sum() > 500
    assert (light[inner] > 0.5).all()
    assert (light[~outer] == 0.0).all()
