"""The margins around a tile cover everything that can change it: measured by gradients, in float64.

Weights and inputs are positive, so that no rectifier closes and no two paths cancel.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chiasm import models
from chiasm.encoders.ns import NS
from chiasm.encoders.ns import RECEPTIVE_FIELD as SEES
from chiasm.heads.reconstruct import RECEPTIVE_FIELD as DRAWS

SIZE, CELL = 128, 64  # a picture of SIZE, looked at in the cell of the grid that begins at CELL
STRIDES = {level.name: level.stride for level in NS.levels}


def positive(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 0.1 + 0.01)
    return module


def reach(gradient: torch.Tensor, stride: int) -> int:
    """Pixels by which what has a gradient (B C H W) leaves the cell, on the side where it goes farthest."""
    touched = gradient.abs().sum((0, 1)) > 0
    rows, columns = touched.any(1).nonzero() * stride, touched.any(0).nonzero() * stride
    first, last = min(rows.min(), columns.min()), max(rows.max(), columns.max()) + stride
    return max(CELL - int(first), int(last) - (CELL + NS.grid))


@pytest.mark.parametrize("level", ["context", "detail"])
@pytest.mark.parametrize(("name", "channels"), [("test-space", 3), ("test-mosaics", 1)])
def test_no_pixel_beyond_the_encoders_receptive_field_changes_a_feature(name, channels, level):
    encoder = positive(models.encoder(name))
    # a mosaic of 0.1, whose 100 positive taps give colours above mid grey and below the clip at white
    pixels = torch.full((1, channels, SIZE, SIZE), 1.0 if channels == 3 else 0.1, dtype=torch.float64)
    pixels.requires_grad_()
    stride = STRIDES[level]
    cell = slice(CELL // stride, (CELL + NS.grid) // stride)
    encoder(pixels)[level][..., cell, cell].sum().backward()
    sees = SEES[encoder.accepts]
    assert {"context": sees - NS.grid, "detail": sees}[level] == reach(pixels.grad, 1)


@pytest.mark.parametrize("levels", [("context", "detail"), ("context",)])
def test_no_feature_beyond_the_heads_receptive_field_changes_a_pixel(levels):
    head = positive(models.reconstructor("test-space"))
    maps = {
        name: torch.full((1, 64, SIZE // STRIDES[name], SIZE // STRIDES[name]), value, dtype=torch.float64)
        for name, value in (("context", 10.0), ("detail", 30.0))
        if name in levels
    }
    for x in maps.values():
        x.requires_grad_()
    cell = slice(CELL, CELL + NS.grid)
    head(maps)[..., cell, cell].sum().backward()
    found = {name: reach(x.grad, STRIDES[name]) for name, x in maps.items()}
    assert len(found) == len(levels)
    assert DRAWS - NS.grid < max(found.values()) <= DRAWS


def test_both_margins_are_whole_cells():
    assert len(SEES) == 2
    assert all(margin % NS.grid == 0 for margin in (*SEES.values(), DRAWS))
