"""A Mosaic's tiles and frame: the one place of black, white and white balance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chiasm.contracts import Sensor
from chiasm.errors import ShapeError
from chiasm.images import Mosaic, Picture

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SENSOR = Sensor((2.0, 1.0, 4.0), IDENTITY, 1e-4, 1e-6, "Maker Model", 100.0)


def mosaic(values: np.ndarray, black: tuple[float, ...] = (100.0, 110.0, 120.0, 130.0)) -> Mosaic:
    return Mosaic(values, black, 1130.0, SENSOR, "d", 7, "a.dng")


def test_each_site_loses_its_black_and_gains_its_balance():
    light = mosaic(np.full((4, 6), 630, np.uint16)).frame().pixels
    wanted = [[2 * 530 / 1030, 520 / 1020], [510 / 1010, 4 * 500 / 1000]]
    assert light.dtype == torch.float32
    torch.testing.assert_close(light, torch.tensor(wanted).repeat(2, 3)[None])


def test_nothing_is_clipped():
    values = np.array([[0, 0], [0, 0], [2130, 2130], [2130, 2130]], np.uint16)
    light = mosaic(values, (130.0,) * 4).frame().pixels[0]
    torch.testing.assert_close(light[:2], torch.tensor([[-0.26, -0.13], [-0.13, -0.52]]))
    torch.testing.assert_close(light[2:], torch.tensor([[4.0, 2.0], [2.0, 8.0]]))


def test_a_tile_at_any_offset_is_the_slice_of_the_whole(counts):
    whole = mosaic(counts).frame().pixels
    seen = 0
    for top in (0, 1, 2, 7, 39):
        for left in (0, 1, 2, 9, 59):
            for height, width in ((1, 1), (1, 4), (5, 1), (6, 7)):
                bottom, right = min(40, top + height), min(60, left + width)
                tile = mosaic(counts).tile(top, left, bottom, right)
                assert tile.is_contiguous()
                assert torch.equal(tile, whole[:, top:bottom, left:right])
                seen += 1
    assert seen == 100


def test_a_frame_brings_its_sensor(counts):
    frame = mosaic(counts).frame()
    assert (frame.kind, frame.sensor, frame.size) == ("raw", SENSOR, (40, 60))
    assert frame.pixels.shape == (1, 40, 60)


def test_pictures_and_mosaics_answer_alike(counts):
    shots = [mosaic(counts), Picture(np.zeros((4, 5, 3), np.uint8), "d", 1, "a.png")]
    assert [shot.kind for shot in shots] == ["raw", "rgb"]
    assert [shot.sensor for shot in shots] == [SENSOR, None]
    assert [shot.nbytes for shot in shots] == [4800, 60]
    assert [shot.tile(0, 1, 2, 4).shape for shot in shots] == [(1, 2, 3), (3, 2, 3)]


@pytest.mark.parametrize("box", [(0, 0, 41, 4), (0, 0, 4, 61), (-1, 0, 2, 2), (2, 2, 2, 3), (3, 2, 1, 4)])
def test_a_tile_outside_the_mosaic_is_refused(counts, box):
    with pytest.raises(ShapeError, match="inside 40 x 60"):
        mosaic(counts).tile(*box)


@pytest.mark.parametrize(
    "values",
    [np.zeros((4, 5), np.uint16), np.zeros((3, 4), np.uint16), np.zeros((4, 4)), np.zeros((0, 4), np.uint16)],
)
def test_other_arrays_are_no_mosaic(values):
    with pytest.raises(ShapeError, match="even H W"):
        mosaic(values)


@pytest.mark.parametrize("black", [(0.0, 0.0, 0.0, 1130.0), (-1.0, 0.0, 0.0, 0.0), (float("nan"),) * 4, (0.0,) * 3])
def test_levels_between_which_there_is_no_light_are_refused(black):
    with pytest.raises(ShapeError, match="below white"):
        mosaic(np.zeros((4, 4), np.uint16), black)


def test_counts_cannot_be_changed_and_tiles_can(counts):
    shot = mosaic(counts.copy())
    with pytest.raises(ValueError, match="read-only"):
        shot.values[0] = 1
    shot.tile(0, 0, 2, 2).add_(1)
    assert np.array_equal(shot.values, counts)
