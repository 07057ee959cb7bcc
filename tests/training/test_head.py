"""The recipe `head`: stored features and labels in, a head's file out; no pixel is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import models
from chiasm.contracts import TaskSpec
from chiasm.errors import ConfigError, ImageError
from chiasm.flow.pipeline import Pipeline
from chiasm.training.loop import Where, train
from chiasm.training.recipes.head import HeadConfig, HeadRecipe, class_names, fresh_head, spec_of
from chiasm.training.stored import Stored, fingerprint, items_of, shrunk

COUNT, SIZE = 12, (72, 90)
SEMANTICS = TaskSpec("semantics", 2, "classes", ("dark", "bright"))


def half(seed: int) -> np.ndarray:
    """A bright half beside a dark one, with some noise: H x W x 3 uint8."""
    draws = np.random.default_rng(seed)
    pixels = draws.normal(60, 12, (*SIZE, 3))
    pixels[:, 20 + 4 * seed :] += 120
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of twelve pictures, whose files are gone, and labels for them."""
    folder = tmp_path_factory.mktemp("own")
    pictures = folder / "photos"
    names = ("photos", "masks", "depth", "normals", "edges", "clean")
    for name in names:
        (folder / name).mkdir()
    lines = ["picture,class"]
    for seed in range(COUNT):
        pixels = half(seed)
        Image.fromarray(pixels).save(pictures / f"{seed}.png")
        mask = np.zeros(SIZE, np.uint8)
        mask[:, 20 + 4 * seed :] = 1
        mask[:3] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{seed}.png")
        Image.fromarray(np.where(mask == 1, 1000, 3000).astype(np.uint16)).save(folder / "depth" / f"{seed}.png")
        Image.fromarray(np.full((*SIZE, 3), (127, 127, 0), np.uint8)).save(folder / "normals" / f"{seed}.png")
        Image.fromarray((mask == 1) * np.uint8(255)).save(folder / "edges" / f"{seed}.png")
        Image.fromarray(pixels).save(folder / "clean" / f"{seed}.png")
        lines.append(f"{seed}.png,{'left' if seed < COUNT // 2 else 'right'}")
    (folder / "kinds.csv").write_text("\n".join(lines))
    with Pipeline.load("ns-rgb", store=folder / "own.lance", writable=True, precision="float32") as pipeline:
        pipeline.encode([pictures], workers=0)
    for path in pictures.iterdir():
        path.unlink()
    return folder


@pytest.fixture
def pipeline(place):
    with Pipeline.load("ns-rgb", store=place / "own.lance", precision="float32") as opened:
        yield opened


def trained(pipeline: Pipeline, labels: Path, task: TaskSpec, out: Path, steps: int = 30):
    stored = Stored(pipeline, task, items_of(pipeline, labels, task), whole=task.name == "denoise")
    head = fresh_head(pipeline.spec, task, models.beginnings(task.name, pipeline.spec.name))
    config = HeadConfig(steps=steps, batch=4, height=64, width=64, warmup=2, decay=0.8, rate=2e-3)
    recipe = HeadRecipe.load(config, stored, head)
    before = recipe.evaluate(recipe.modules().eval(), out, 0)
    module = train(recipe, out, Where("cpu", 1, "32-true"), lambda line: None)
    return recipe, before, recipe.evaluate(module, out, steps)


def test_a_head_learns_classes_of_places_without_a_pixel(pipeline, place, tmp_path):
    recipe, _, after = trained(pipeline, place / "masks", SEMANTICS, tmp_path / "run", 60)
    assert len(recipe.training) + len(recipe.held) == COUNT
    assert not {item.name for item in recipe.training.items} & {item.name for item in recipe.held.items}
    assert after["miou"] > 0.8
    key = recipe.held.items[0].key
    answer = pipeline.predict(key, [], recipe.head)["semantics"]
    assert answer.values.shape == SIZE
    assert answer.task == SEMANTICS


@pytest.mark.parametrize(
    ("task", "labels", "score"),
    [
        ("depth", "depth", "rmse"),
        ("normals", "normals", "angle"),
        ("edges", "edges", "cross_entropy"),
        ("denoise", "clean", "psnr"),
        ("classes", "kinds.csv", "accuracy"),
    ],
)
def test_every_other_task_trains_and_is_scored(pipeline, place, tmp_path, task, labels, score):
    spec = spec_of(task, class_names(None, place / labels, task))
    recipe, before, after = trained(pipeline, place / labels, spec, tmp_path / "run", 6)
    assert list(before) == list(after) == [score]
    assert np.isfinite(after[score])
    (answer,) = pipeline.predict(recipe.held.items[0].key, [], recipe.head.eval()).values()
    assert answer.values.shape[:2] == ((2,) if task == "classes" else SIZE)


def test_windows_carry_their_targets(pipeline, place):
    """Where the picture is bright the window's label says so, mirrored or not."""
    stored = Stored(pipeline, SEMANTICS, items_of(pipeline, place / "masks", SEMANTICS))
    seen = 0
    for seed in range(12):
        features, target, valid = stored.window(seed % COUNT, (48, 48), torch.Generator().manual_seed(seed))
        bright = features["context"][0, 0]
        small = torch.nn.functional.avg_pool2d((target * valid).float(), 4)[0, 0]
        known = torch.nn.functional.avg_pool2d(valid.float(), 4)[0, 0] == 1
        if 0.1 < small[known].mean() < 0.9:
            one, other = bright[known & (small == 1)].mean(), bright[known & (small == 0)].mean()
            assert one > other + 1
            seen += 1
    assert seen >= 4


def test_labels_of_a_large_picture_lie_where_its_small_features_are(tmp_path):
    (tmp_path / "masks").mkdir()
    mask = np.zeros((64, 700), np.uint8)
    mask[:, 300:] = 1
    Image.fromarray((60 + 120 * mask[..., None]).repeat(3, 2)).save(tmp_path / "long.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "long.png")
    with Pipeline.load("ns-rgb", store=tmp_path / "l.lance", writable=True, precision="float32") as pipeline:
        pipeline.encode([tmp_path / "long.png"], workers=0)
        stored = Stored(pipeline, SEMANTICS, items_of(pipeline, tmp_path / "masks", SEMANTICS))
        features, target, valid = stored[0]
    assert target.shape == valid.shape == (1, 1, 32, 352)
    assert int(valid.sum()) == 32 * 350
    bright = features["detail"][0, 0].float() > 0
    assert torch.equal(bright, target[0, 0, ::2, 1::2] == 1)


def test_a_picture_without_a_level_is_named(tmp_path):
    (tmp_path / "masks").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "masks" / "a.png"):
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(path)
    with Pipeline.load("ns-rgb", store=tmp_path / "l.lance", writable=True, precision="float32") as pipeline:
        pipeline.encode([tmp_path / "a.png"], workers=0, levels=("context",))
        stored = Stored(pipeline, SEMANTICS, items_of(pipeline, tmp_path / "masks", SEMANTICS))
        with pytest.raises(ConfigError, match=r"a.* was stored without level 'detail'; encode it again"):
            stored[0]


def test_windows_are_no_larger_than_the_largest_picture(pipeline, place):
    stored = Stored(pipeline, SEMANTICS, items_of(pipeline, place / "masks", SEMANTICS))
    head = fresh_head(pipeline.spec, SEMANTICS)
    assert HeadRecipe.load(HeadConfig(height=64, width=66), stored, head).window == (64, 64)
    assert HeadRecipe.load(HeadConfig(), stored, head).window == (72, 92)
    large = replace(stored, items=[replace(item, size=(600, 1300)) for item in stored.items])
    assert HeadRecipe.load(HeadConfig(height=640, width=640), large, head).window == (152, 328)


def test_one_picture_is_never_on_both_sides(pipeline, place):
    stored = Stored(pipeline, SEMANTICS, items_of(pipeline, place / "masks", SEMANTICS))
    twice = [replace(item, name=f"{name}/{item.name}") for item in stored.items for name in ("a", "b", "c")]
    recipe = HeadRecipe.load(HeadConfig(), replace(stored, items=twice), fresh_head(pipeline.spec, SEMANTICS))
    assert not {item.key for item in recipe.training.items} & {item.key for item in recipe.held.items}
    assert len(recipe.training) + len(recipe.held) == len(twice)
    with pytest.raises(ConfigError, match="expected two labelled pictures or more, of which one is held out, got 1"):
        HeadRecipe.load(HeadConfig(), replace(stored, items=twice[:3]), recipe.head)


@pytest.mark.parametrize("task", [SEMANTICS, TaskSpec("depth", 1, "distance", unit="metre")])
def test_without_a_valid_pixel_there_is_no_score(pipeline, place, tmp_path, task):
    void = 255 if task is SEMANTICS else 0
    for seed in range(COUNT):
        Image.fromarray(np.full(SIZE, void, np.uint8 if void else np.uint16)).save(tmp_path / f"{seed}.png")
    stored = Stored(pipeline, task, items_of(pipeline, tmp_path, task))
    recipe = HeadRecipe.load(HeadConfig(), stored, fresh_head(pipeline.spec, task))
    assert recipe.evaluate(recipe.modules().eval(), tmp_path, 0) == {}


def test_shrinking_labels():
    ids = torch.arange(36).view(1, 6, 6)
    small, known = shrunk(ids, torch.ones(6, 6).bool(), 4)
    assert small.tolist() == [[[14, 17], [32, 35]]]
    assert known.tolist() == [[True, False], [False, False]]
    mean, known = shrunk(torch.ones(1, 6, 6), torch.ones(6, 6).bool(), 4)
    assert torch.equal(mean, torch.ones(1, 2, 2))
    assert known.tolist() == [[True, True], [True, False]]


def test_thin_edges_survive_shrinking():
    line = torch.zeros(1, 64, 64)
    line[..., 33] = 1.0
    for factor in (2, 4, 8):
        small, known = shrunk(line, torch.ones(64, 64).bool(), factor, strongest=True)
        assert small[0, :, 33 // factor].min() == 1
        assert small.sum() == 64 // factor
        assert known.all()


def test_one_picture_under_two_names_keeps_two_labels(pipeline, place):
    items = items_of(pipeline, place / "masks", SEMANTICS)
    twin = replace(items[0], name="twin", label=1)
    stored = Stored(pipeline, TaskSpec("classes", 2, "label", ("a", "b")), [replace(items[0], label=0), twin])
    assert [int(stored[index][1]) for index in (0, 1)] == [0, 1]
    assert fingerprint(items, SEMANTICS) == fingerprint(items, SEMANTICS)
    others = ([*items[:-1], replace(items[-1], label=1)], items[:-1])
    assert all(fingerprint(each, SEMANTICS) != fingerprint(items, SEMANTICS) for each in others)


def test_what_is_wrong_with_labels_is_one_sentence(pipeline, place, tmp_path):
    extra = tmp_path / "extra"
    extra.mkdir()
    for name in ("0", "stranger"):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(extra / f"{name}.png")
    with pytest.raises(ConfigError, match=r"1 labels of 2 \(stranger\) whose pictures are not in the store"):
        items_of(pipeline, extra, SEMANTICS)
    (extra / "stranger.png").unlink()
    Image.fromarray(np.zeros((70, 90), np.uint8)).save(extra / "0.png")
    items = items_of(pipeline, extra, SEMANTICS)
    with pytest.raises((ConfigError, ImageError), match=r"70 x 90.*72 x 90|72 x 90.*70 x 90"):
        Stored(pipeline, SEMANTICS, items)[0]
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(extra / "0.png")
    with pytest.raises(ConfigError, match="ids 0 to 1 or 255 for void, got 7"):
        Stored(pipeline, SEMANTICS, items)[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="expected pictures, got none"):
        items_of(pipeline, empty, SEMANTICS)
    table = tmp_path / "kinds.csv"
    kinds = TaskSpec("classes", 2, "label", ("left", "right"))
    for text, told in (("0.png,up", "no class 'up'"), ("0.png", "expected `picture,class`"), ("", "holds none")):
        table.write_text(text)
        with pytest.raises(ConfigError, match=told):
            items_of(pipeline, table, kinds)


def test_classes_are_asked_for_where_they_are_needed():
    with pytest.raises(ConfigError, match="expects two classes or more, got 1"):
        spec_of("semantics", ["road"])
    with pytest.raises(ConfigError, match="'road' is named twice"):
        spec_of("semantics", ["road", "sky", "road"])
    with pytest.raises(ConfigError, match="'depth' has no classes, got 2"):
        spec_of("depth", ["near", "far"])
