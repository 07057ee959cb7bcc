"""A Picture's tiles and frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.images import Picture, uri_of


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_cover_the_picture_exactly(dtype):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top + 1, (37, 53, 3), dtype=dtype, endpoint=False)
    pixels[0, 0], pixels[0, 1] = 0, top
    picture = Picture(pixels, "d", 1, "a.png")
    whole = picture.frame().pixels
    assert whole.dtype == torch.float32
    assert whole.shape == (3, 37, 53)
    assert whole.is_contiguous()
    assert float(whole.min()) == 0.0
    assert float(whole.max()) == 1.0
    seen = 0
    for row in range(0, 37, 16):
        for column in range(0, 53, 16):
            bottom, right = min(row + 16, 37), min(column + 16, 53)
            tile = picture.tile(row, column, bottom, right)
            assert torch.equal(tile, whole[:, row:bottom, column:right])
            seen += 1
    assert seen == 12


@pytest.mark.parametrize("box", [(0, 0, 5, 4), (0, 0, 4, 6), (-1, 0, 2, 2), (2, 2, 2, 3), (3, 2, 1, 4)])
def test_a_tile_outside_the_picture_is_refused(box):
    picture = Picture(np.zeros((4, 5, 3), np.uint8), "d", 1, "a.png")
    with pytest.raises(ShapeError, match="inside 4 x 5"):
        picture.tile(*box)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_other_arrays_are_no_picture(pixels):
    with pytest.raises(ShapeError, match="H W 3"):
        Picture(pixels, "d", 1, "a.png")


def test_pixels_cannot_be_changed_and_tiles_can():
    picture = Picture(np.zeros((4, 5, 3), np.uint8), "d", 1, "a.png")
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0] = 1
    picture.tile(0, 0, 2, 2).add_(1)
    assert picture.pixels.max() == 0


def test_a_uri_can_be_written_anywhere():
    names = ["päth/ß.png", "a\udcffb.png", "a\ud800b.png"]
    written = [uri_of(name).encode("utf-8") for name in names]
    assert written == ["päth/ß.png".encode(), b"a\\xffb.png", b"a\\ud800b.png"]
