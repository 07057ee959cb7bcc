"""Maps that a network rounded up or down: labels of training, scores and predictions lie in the same places.

Every map tells where it is: element i of stride s holds (i + 0.5) s, and the label of pixel x is x + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from chiasm.contracts import Features, Level, Size, Space, View
from chiasm.features.views import stride_of
from chiasm.heads.answers import answer_of
from chiasm.heads.linear import LinearHead, joined_maps
from chiasm.training.recipes.head import HeadConfig, HeadRecipe, begun, fresh_head, spec_of
from chiasm.training.stored import Item, Stored, stored_for

SPACE = Space("rounding", (Level("stage1", 2, 4), Level("stage2", 2, 8), Level("stage3", 2, 16)), 16)
EDGE = 52  # 13 elements of stage1, 6.5 of stage2, 3.25 of stage3
DEPTH = spec_of("depth", [])


@dataclass(frozen=True)
class RampReader:
    """Maps of columns and of rows. up: whether the network rounds up."""

    up: bool

    def features(self, key: str, levels: Sequence[str]) -> tuple[Features, View, Size]:
        return {name: ramp(SPACE.level(name).stride, self.up) for name in levels}, View((EDGE, EDGE)), (EDGE, EDGE)


def ramp(stride: int, up: bool) -> torch.Tensor:
    count = -(-EDGE // stride) if up else EDGE // stride
    columns = ((torch.arange(count) + 0.5) * stride).expand(count, count)
    return torch.stack([columns, columns.T])[None]


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Three pictures whose depth is the column that one looks at, in units of half a pixel."""
    columns = np.broadcast_to((2 * np.arange(EDGE) + 1).astype(np.uint16), (EDGE, EDGE))
    Image.fromarray(columns.copy()).save(tmp_path / "depth.png")
    return [Item(f"{index:064x}", f"{index}", tmp_path / "depth.png", (EDGE, EDGE)) for index in range(3)]


def stored(items: list[Item], up: bool, reads: Sequence[str] = ()) -> tuple[LinearHead, Stored]:
    head = fresh_head(SPACE, DEPTH, "linear", reads)
    assert isinstance(head, LinearHead)
    found = stored_for(head, RampReader(up), SPACE, items)
    found.metres_per_unit = 0.5
    return head, found


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("reads", [(), ("stage3",), ("stage2", "stage1")])
def test_windows_hold_features_and_labels_of_the_same_places(items, up, reads):
    _, held = stored(items, up, reads)
    draws, seen = torch.Generator().manual_seed(0), 0
    for size in ((32, 48), (64, 64), (16, 16)):
        for index in range(30):
            maps, target, valid = held.window(index % 3, size, draws)
            assert target.shape[-2:] == valid.shape[-2:] == size
            for name, stride in held.strides.items():
                assert maps[name].shape[-2:] == (size[0] // stride, size[1] // stride)
                end = ramp(stride, up).shape[-1] * stride  # beyond it the border is repeated
                for column, x in enumerate(maps[name][0, 0, 0].tolist()):
                    cell = slice(column * stride, (column + 1) * stride)
                    if bool(valid[0, 0, 0, cell].all()) and target[0, 0, 0, cell].max() < end:
                        assert float(target[0, 0, 0, cell].mean()) == pytest.approx(x, abs=1e-3)
                        seen += 1
    assert seen > 150


@pytest.mark.parametrize("up", [True, False])
def test_maps_of_several_strides_are_joined_alike_in_a_window_and_in_the_whole(up):
    maps = {level.name: ramp(level.stride, up) for level in SPACE.levels}
    joined = joined_maps(maps, SPACE.levels)
    assert joined.shape == (1, 6, 13, 13)
    ends = {level.name: 32 // level.stride for level in SPACE.levels}
    parts = {name: x[..., : ends[name], : ends[name]] for name, x in maps.items()}
    window = joined_maps(parts, SPACE.levels)
    assert torch.allclose(window[..., :6, :6], joined[..., :6, :6])  # up to the middle of the window's last elements
    places = (torch.arange(13) + 0.5) * 4
    for channel, level in ((2, SPACE.levels[1]), (4, SPACE.levels[2])):
        first, last = maps[level.name].amin(), maps[level.name].amax()
        assert torch.allclose(joined[0, channel], places.clamp(first, last).expand(13, 13))


class Copied(nn.Module):
    """A head that answers the columns of one level."""

    def __init__(self, level: str) -> None:
        super().__init__()
        self.level, self.unused = level, nn.Parameter(torch.zeros(1))

    def forward(self, maps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"depth": maps[self.level][:, :1]}


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("level", SPACE.names)
def test_the_score_of_training_is_that_of_what_predict_answers(items, tmp_path, up, level):
    head, held = stored(items, up, [level])
    recipe = HeadRecipe.load(HeadConfig(), held, begun(head, ()))
    found = recipe.evaluate(Copied(level).eval(), tmp_path, 0)["rmse"]
    answer, size = ramp(SPACE.level(level).stride, up)[:, :1], (EDGE, EDGE)
    stride = stride_of(answer.shape[-2:], [(SPACE.level(level).stride, answer.shape[-2:])], size)
    values = answer_of(DEPTH, answer, size, stride, View(size)).values
    wanted = np.arange(EDGE) + 0.5
    assert found == pytest.approx(float(np.sqrt(np.square(values - wanted).mean())), abs=1e-3)
    inside = slice(8, ramp(SPACE.level(level).stride, up).shape[-1] * SPACE.level(level).stride - 8)
    np.testing.assert_allclose(values[:, inside], np.broadcast_to(wanted[inside], values[:, inside].shape), atol=1e-4)
