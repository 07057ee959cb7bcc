"""Heads on spaces that are not the shipped one: any names, strides and views; labels lie where the encoder saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from chiasm.contracts import Features, Level, Size, Space, TaskSpec, View
from chiasm.errors import ConfigError, ShapeError
from chiasm.heads.answers import answer_of
from chiasm.heads.linear import ConvHead, LinearHead, PooledHead
from chiasm.heads.saved import read_head, write_head
from chiasm.heads.trunk import folded
from chiasm.training.loop import Where, train
from chiasm.training.recipes.head import HeadConfig, HeadRecipe, begun, fresh_head, spec_of
from chiasm.training.stored import Item, seen, stored_for

SPACE = Space("vit-small/abc", (Level("block-11", 3, 14), Level("block-5", 2, 28), Level("cls", 4, 0)), 28)
VIEWS = {
    "native": View((140, 168)),
    "smaller": View((112, 112), (0.8, 0.75)),
    "larger and moved": View((224, 252), (1.5, 1.4), (10.0, 14.0)),
    "much larger": View((336, 392), (2.5, 2.6), (0.0, 4.0)),
}
SIZE = (130, 149)
COUNT = 12


@dataclass(frozen=True)
class MeansReader:
    """Pictures as an encoder of means of cells sees them: resized and moved as the view says."""

    pictures: dict[str, np.ndarray]
    view: View

    def features(self, key: str, levels: Sequence[str]) -> tuple[Features, View, Size]:
        pixels = torch.from_numpy(self.pictures[key]).permute(2, 0, 1).float()
        seen_pixels, _ = seen(pixels, torch.ones(SIZE).bool(), self.view, "mean")
        colour = seen_pixels[None]
        fine, coarse = F.avg_pool2d(colour, 14), F.avg_pool2d(colour, 28)[:, :2]
        vector = torch.cat([colour.mean(dim=(2, 3)), colour.amax(dim=(2, 3))[:, :1]], dim=1)
        known = {"block-11": fine, "block-5": coarse, "cls": vector}
        return {name: known[name] for name in levels}, self.view, SIZE


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("labels")
    pictures = {}
    for seed in range(COUNT):
        draws = np.random.default_rng(seed)
        edge = 30 + 7 * seed
        pixels = draws.normal(80, 10, (*SIZE, 3))
        pixels[:, edge:] += 90
        pictures[f"{seed:064x}"] = pixels.clip(0, 255).astype(np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        mask[:, edge:] = 1
        Image.fromarray(mask).save(folder / f"{seed}.png")
        Image.fromarray(np.where(mask == 1, 2000, 5000).astype(np.uint16)).save(folder / f"{seed}.depth.png")
    return folder, pictures


def recipe_of(place, task: TaskSpec, view: View, network: str, reads: Sequence[str] = (), suffix: str = "png"):
    folder, pictures = place
    torch.manual_seed(0)
    head = begun(fresh_head(SPACE, task, network, reads), ())  # type: ignore[arg-type]
    labels: dict[str, Path | int] = {key: folder / f"{i}.{suffix}" for i, key in enumerate(pictures)}
    if task.kind == "label":
        labels = {key: int(i >= COUNT // 2) for i, key in enumerate(pictures)}
    items = [Item(key, key, label, SIZE) for key, label in labels.items()]
    rate = 5e-3 if network == "convolutional" else 1e-3
    config = HeadConfig(steps=80, batch=4, height=112, width=112, warmup=2, rate=rate, decay=0.9)
    return HeadRecipe.load(config, stored_for(head, MeansReader(pictures, view), SPACE, items), head)


def trained(recipe: HeadRecipe, out: Path) -> dict[str, float]:
    module = train(recipe, out, Where("cpu", 1, "32-true"), lambda line: None)
    return recipe.evaluate(module, out, recipe.config.steps)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("network", ["linear", "convolutional"])
def test_a_head_learns_classes_of_places_in_any_view(place, tmp_path, view, network):
    task = spec_of("ground-cover", ["dark", "bright"], "classes")
    recipe = recipe_of(place, task, VIEWS[view], network)
    assert type(recipe.head) is (LinearHead if network == "linear" else ConvHead)
    assert recipe.head.reads == ("block-11", "block-5")
    assert all(n % 28 == 0 for n in recipe.window)
    assert trained(recipe, tmp_path)["miou"] > 0.85
    again = folded(read_head(write_head(recipe.head.eval()), SPACE, "mine"))
    features, held, size = recipe.held.reader.features(recipe.held.items[0].key, again.reads)
    with torch.inference_mode():
        found = again(features)["ground-cover"]
    values = answer_of(task, found, size, 14, held).values
    wanted = np.array(Image.open(recipe.held.items[0].label))
    assert values.shape == SIZE
    assert (values == wanted).mean() > 0.93


def test_distances_and_labels_of_whole_pictures(place, tmp_path):
    depth = recipe_of(place, spec_of("depth", []), VIEWS["smaller"], "auto", ["block-11"], "depth.png")
    before = depth.evaluate(depth.modules().eval(), tmp_path, 0)
    assert trained(depth, tmp_path / "a")["rmse"] < 0.5 * before["rmse"]
    for reads in ((), ("block-5", "cls")):
        side = recipe_of(place, spec_of("side", ["left", "right"], "label"), VIEWS["native"], "auto", reads)
        assert type(side.head) is PooledHead
        assert side.head.reads == (reads or ("cls",))
        assert trained(side, tmp_path / f"b{len(reads)}")["accuracy"] == 1.0


def test_a_label_is_seen_where_the_picture_is():
    """A bright square of the picture and its label meet after any view."""
    mask = torch.zeros(1, *SIZE)
    mask[:, 40:80, 60:100] = 1
    for view in (*VIEWS.values(), View((56, 56), (0.5, 0.5), (-5.0, -10.0))):
        soft, known = seen(mask, torch.ones(SIZE).bool(), view, "mean")
        ids, also = seen(mask.long(), torch.ones(SIZE).bool(), view, "middle")
        assert soft.shape == ids.shape == (1, *view.size)
        assert known.shape == also.shape == view.size
        rows, columns = (ids[0] == 1).nonzero().T
        for found, first, last, axis in ((rows, 40, 80, 0), (columns, 60, 100, 1)):
            ends = [min(max(edge * view.scale[axis] + view.offset[axis], 0), view.size[axis]) for edge in (first, last)]
            assert int(found.min()) == pytest.approx(ends[0], abs=1)
            assert int(found.max()) + 1 == pytest.approx(ends[1], abs=1)
        assert ((soft[0] > 0.5) != (ids[0] == 1)).float().mean() < 0.03


def test_what_a_network_cannot_do_is_said():
    zones, label = spec_of("zones", ["a", "b"], "classes"), spec_of("sort", ["a", "b"], "label")
    with pytest.raises(ShapeError, match="'cls' of 'vit-small/abc' is a vector; there are block-11, block-5"):
        fresh_head(SPACE, zones, "linear", ["cls"])
    with pytest.raises(ShapeError, match="has no level 'block-12'"):
        fresh_head(SPACE, zones, "linear", ["block-12"])
    with pytest.raises(ConfigError, match="the network dense reads context and detail, got space"):
        fresh_head(SPACE, zones, "dense")
    with pytest.raises(ConfigError, match="the network convolutional does not answer a label"):
        fresh_head(SPACE, label, "convolutional")
    with pytest.raises(ConfigError, match="'denoise' is, is answered by the network dense .* got linear on space 'vit"):
        fresh_head(SPACE, spec_of("denoise", []))
    with pytest.raises(ConfigError, match="'zones' expects a kind of answer, got none; add --kind"):
        spec_of("zones", [])
    with pytest.raises(ConfigError, match=r"called '\.\./zones'"):
        spec_of("../zones", ["a", "b"], "classes")
    with pytest.raises(ShapeError, match="reads level 'block-5', got block-11"):
        fresh_head(SPACE, zones)({"block-11": torch.zeros(1, 3, 4, 4)})
