"""The encoder of the space: its start, and how far it looks."""

from __future__ import annotations

import pytest
import torch

from chiasm.encoders.space import NS, RECEPTIVE_FIELD, SpaceEncoder
from chiasm.features.layout import Window
from chiasm.features.plane import double


@pytest.fixture
def encoder() -> SpaceEncoder:
    """Small, with random weights everywhere, so that every path counts."""
    torch.manual_seed(0)
    module = SpaceEncoder("rgb", width=8).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.2)
    return module


@pytest.mark.parametrize("corner", [(32, 32), (36, 28), (28, 36)])
def test_pixels_beyond_the_receptive_field_change_nothing(encoder, corner):
    x = torch.rand(1, 3, 96, 96)
    window = Window(*corner, corner[0] + 20, corner[1] + 24)
    outer = window.grown(RECEPTIVE_FIELD, (96, 96))
    seen = torch.rand_like(x)
    seen[..., *outer.at(1)] = x[..., *outer.at(1)]
    compared = 0
    for level in NS.levels:
        part = (..., *window.at(level.stride))
        torch.testing.assert_close(encoder(seen).maps[level.name][part], encoder(x).maps[level.name][part])
        compared += 1
    assert compared == 2


def test_a_tile_with_its_margin_is_encoded_as_within_the_picture(encoder):
    x = torch.rand(1, 3, 96, 96)
    window = Window(32, 40, 64, 68)
    outer = window.grown(RECEPTIVE_FIELD, (96, 96))
    for level in NS.levels:
        whole = encoder(x).maps[level.name][..., *window.at(level.stride)]
        tile = encoder(x[..., *outer.at(1)]).maps[level.name][..., *window.within(outer).at(level.stride)]
        torch.testing.assert_close(tile, whole, rtol=1e-4, atol=1e-4)


def test_the_receptive_field_is_no_larger_than_needed(encoder):
    x = torch.rand(1, 3, 96, 96)
    moved = x.clone()
    moved[..., 32 - RECEPTIVE_FIELD : 36 - RECEPTIVE_FIELD, :] += 0.5
    changed = (encoder(moved).maps["detail"] - encoder(x).maps["detail"]).abs().amax(dim=(0, 1, 3))
    assert changed[16] > 0
    assert RECEPTIVE_FIELD % NS.grid == 0


def test_untrained_the_space_is_two_wavelet_steps_and_the_detail_holds_the_context():
    encoder = SpaceEncoder("rgb", width=16).eval()
    x = torch.full((1, 3, 32, 32), 0.75)
    with torch.no_grad():
        maps = encoder(x).maps
    inner = maps["context"][0, :, 3:5, 3:5]
    assert inner[0].mean() > 1.0  # grey
    assert inner[1:].abs().max() < 0.05  # no colour, no edge
    finer = maps["detail"] - double(maps["context"])
    assert finer[0, :, 6:10, 6:10].abs().max() < 0.05


def test_the_detail_is_conditioned_on_the_context(encoder):
    x = torch.rand(1, 3, 32, 32)
    before = encoder(x).maps["detail"]
    encoder.context.bias += 1.0
    assert not torch.allclose(encoder(x).maps["detail"], before)


def test_the_raw_stem_reads_one_channel_into_the_same_space():
    maps = SpaceEncoder("raw", width=8).eval()(torch.rand(2, 1, 16, 24)).maps
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        "context": (2, 64, 4, 6),
        "detail": (2, 64, 8, 12),
    }
