"""Pads, crops and tiles: what was grown is cut back, what was cut is joined, down to a single pixel."""

from __future__ import annotations

import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.features.layout import Window, assemble, blank, count, crop, cut, pad, padded, tiles

SIZES = [(1, 1), (1, 7), (9, 1), (4, 4), (5, 7), (33, 64), (70, 37)]
STRIDES = {"context": 4, "detail": 2}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [1, 2, 4, 16])
def test_a_padded_size_is_the_smallest_multiple_that_holds(size, grid):
    grown = padded(size, grid)
    assert all(n % grid == 0 and old <= n < old + grid for old, n in zip(size, grown, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_padding_repeats_the_last_row_and_column_and_cropping_undoes_it(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    height, width = padded(size, 16)
    grown = pad(x, (height, width))
    assert grown.shape == (2, 3, height, width)
    assert torch.equal(crop(grown, size), x)
    rows, columns = torch.arange(height).clamp(max=size[0] - 1), torch.arange(width).clamp(max=size[1] - 1)
    assert torch.equal(grown, x[..., rows[:, None], columns])
    assert torch.equal(pad(x[0], (height, width)), grown[0])


def test_padding_to_the_same_size_copies_nothing():
    x = torch.zeros(3, 4, 8)
    assert pad(x, (4, 8)) is x


def test_padding_to_a_smaller_size_is_an_error_with_both_sizes():
    with pytest.raises(ShapeError, match=r"at least \(4, 8\), got \(4, 7\)"):
        pad(torch.zeros(3, 4, 8), (4, 7))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edge", [1, 4, 16, 64])
def test_tiles_cover_every_pixel_once_and_are_as_many_as_counted(size, edge):
    seen, windows = torch.zeros(size, dtype=torch.int64), list(tiles(size, edge))
    for window in windows:
        assert 0 < window.size[0] <= edge
        assert 0 < window.size[1] <= edge
        seen[window.at(1)] += 1
    assert bool((seen == 1).all())
    assert len(windows) == count(size, edge)
    assert windows == sorted(windows, key=lambda window: (window.top, window.left))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edge", [4, 16, 64])
def test_maps_cut_into_tiles_are_assembled_to_the_same_maps(size, edge):
    whole = padded(size, 4)
    maps = {name: torch.rand(1, 3, whole[0] // s, whole[1] // s) for name, s in STRIDES.items()}
    parts = [(window, cut(maps, STRIDES, window)) for window in tiles(whole, edge)]
    joined = assemble(Window(0, 0, *whole), parts, STRIDES)
    assert joined.keys() == maps.keys()
    assert all(torch.equal(joined[name], x) for name, x in maps.items())


def test_a_window_across_tiles_is_assembled_from_those_it_meets():
    whole, met = (24, 36), 0
    maps = {name: torch.rand(1, 3, whole[0] // s, whole[1] // s) for name, s in STRIDES.items()}
    parts = [(window, cut(maps, STRIDES, window)) for window in tiles(whole, 16)]
    for window in tiles(whole, 8):
        outer = window.grown(4, whole)
        joined = assemble(outer, parts, STRIDES)
        for name, x in cut(maps, STRIDES, outer).items():
            assert torch.equal(joined[name], x)
            met += 1
    assert met == 2 * count(whole, 8)


def test_windows_grow_inside_the_picture_meet_and_move():
    window = Window(8, 12, 16, 20)
    assert window.size == (8, 8)
    assert window.grown(4, (18, 100)) == Window(4, 8, 18, 24)
    assert window.grown(100, (18, 100)) == Window(0, 0, 18, 100)
    assert window.meet(Window(0, 0, 9, 13)) == Window(8, 12, 9, 13)
    assert window.meet(Window(16, 12, 20, 20)) is None
    assert window.within(window.grown(4, (18, 100))) == Window(4, 4, 12, 12)
    assert window.at(4) == (slice(2, 4), slice(3, 5))
    assert Window(0, 0, 5, 7).at(4) == (slice(0, 2), slice(0, 2))


def test_a_window_of_one_pixel_is_everything_of_a_picture_of_one_pixel():
    window = Window(0, 0, 1, 1)
    assert list(tiles((1, 1), 1024)) == [window]
    assert window.grown(24, (1, 1)) == window.within(window) == window.meet(Window(0, 0, 9, 9)) == window


def test_padding_a_mosaic_keeps_the_place_of_every_colour():
    cell = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    grown = pad(cell.repeat(3, 5)[None], (8, 12), cell=2)
    assert torch.equal(grown[0], cell.repeat(4, 6))


def test_a_mask_grows_by_what_is_not_valid():
    grown = blank(torch.ones(1, 2, 3, dtype=torch.bool), (4, 5))
    assert grown.dtype == torch.bool
    assert grown.sum() == 6
    assert bool(grown[:, :2, :3].all())


@pytest.mark.parametrize("size", SIZES)
def test_an_edge_of_0_is_one_window(size):
    assert list(tiles(size, 0)) == [Window(0, 0, *size)]
    assert count(size, 0) == 1
