"""The encoder of the space: its start, and how far it looks."""

from __future__ import annotations

import pytest
import torch

from chiasm.encoders.ns import CHANNELS, NS, RECEPTIVE_FIELD, UNKNOWN, SpaceEncoder, tone
from chiasm.features.layout import Window
from chiasm.features.plane import double
from chiasm.images.srgb import to_srgb


@pytest.fixture(params=["rgb", "raw"])
def encoder(request) -> SpaceEncoder:
    """Small, with random weights everywhere, so that every path counts."""
    torch.manual_seed(0)
    module = SpaceEncoder(request.param, width=8).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.2)
    return module


@pytest.mark.parametrize("corner", [(32, 32), (36, 28), (28, 36)])
def test_pixels_beyond_the_receptive_field_change_nothing(encoder, corner):
    x = torch.rand(1, CHANNELS[encoder.accepts], 96, 96)
    window = Window(*corner, corner[0] + 20, corner[1] + 24)
    outer = window.grown(RECEPTIVE_FIELD[encoder.accepts], (96, 96))
    seen = torch.rand_like(x)
    seen[..., *outer.at(1)] = x[..., *outer.at(1)]
    compared = 0
    for level in NS.levels:
        part = (..., *window.at(level.stride))
        torch.testing.assert_close(encoder(seen)[level.name][part], encoder(x)[level.name][part])
        compared += 1
    assert compared == 2


def test_a_tile_with_its_margin_is_encoded_as_within_the_picture(encoder):
    x = torch.rand(1, CHANNELS[encoder.accepts], 96, 96)
    window = Window(32, 40, 64, 68)
    outer = window.grown(RECEPTIVE_FIELD[encoder.accepts], (96, 96))
    for level in NS.levels:
        whole = encoder(x)[level.name][..., *window.at(level.stride)]
        tile = encoder(x[..., *outer.at(1)])[level.name][..., *window.within(outer).at(level.stride)]
        torch.testing.assert_close(tile, whole, rtol=1e-4, atol=1e-4)


def test_the_receptive_field_is_no_larger_than_needed(encoder):
    x = torch.rand(1, CHANNELS[encoder.accepts], 96, 96)
    moved = x.clone()
    far = RECEPTIVE_FIELD[encoder.accepts]
    moved[..., 32 - far : 36 - far, :] += 0.5
    changed = (encoder(moved)["detail"] - encoder(x)["detail"]).abs().amax(dim=(0, 1, 3))
    assert changed[16] > 0
    assert far % NS.grid == 0


def test_untrained_the_space_is_two_wavelet_steps_and_the_detail_holds_the_context():
    encoder = SpaceEncoder("rgb", width=16).eval()
    x = torch.full((1, 3, 32, 32), 0.75)
    with torch.no_grad():
        maps = encoder(x)
    inner = maps["context"][0, :, 3:5, 3:5]
    assert inner[0].mean() > 1.0  # grey
    assert inner[1:].abs().max() < 0.05  # no colour, no edge
    finer = maps["detail"] - double(maps["context"])
    assert finer[0, :, 6:10, 6:10].abs().max() < 0.05


def test_the_detail_is_conditioned_on_the_context(encoder):
    x = torch.rand(1, CHANNELS[encoder.accepts], 32, 32)
    before = encoder(x)["detail"]
    encoder.context.bias += 1.0
    assert not torch.allclose(encoder(x)["detail"], before)


def test_the_raw_stem_reads_one_channel_into_the_same_space():
    maps = SpaceEncoder("raw", width=8).eval()(torch.rand(2, 1, 16, 24))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        "context": (2, 64, 4, 6),
        "detail": (2, 64, 8, 12),
    }


def test_tone_is_the_srgb_curve_and_odd():
    x = torch.tensor([0.0, 0.002, 0.01, 0.18, 1.0, 2.5])
    assert torch.allclose(tone(x), to_srgb(x))
    assert torch.allclose(tone(-x), -tone(x))


def test_with_perfect_demosaicing_a_mosaic_is_split_as_a_picture_is():
    """On what is grey everywhere, the value of a mosaic is all three colours."""
    torch.manual_seed(0)
    rgb, raw = SpaceEncoder("rgb", width=8), SpaceEncoder("raw", width=8)
    raw.split.begin(rgb.split.weight)
    own = {name: x for name, x in rgb.state_dict().items() if not name.startswith("split.")}
    raw.load_state_dict(own, strict=False)
    with torch.no_grad():
        raw.split.linear.weight.zero_()
        for pixel in range(4):  # each pixel of a cell takes its own value for all its colours
            raw.split.linear.weight[3 * pixel : 3 * pixel + 3, pixel, 2, 2] = 1.0
        linear = torch.rand(2, 1, 16, 20)
        seen, wanted = raw(linear), rgb(to_srgb(linear).expand(2, 3, 16, 20))
    for name in NS.names:
        torch.testing.assert_close(seen[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_a_mosaic_encoder_hears_the_colour_matrix_at_once_and_the_rest_once_it_has_learnt_to():
    torch.manual_seed(0)
    encoder = SpaceEncoder("raw", width=8).eval().requires_grad_(False)
    for name, parameter in encoder.named_parameters():
        if "told" not in name:
            parameter.normal_(std=0.2)
    mosaic, same = torch.rand(2, 1, 16, 20), UNKNOWN.expand(2, 13)
    noisier, redder = same.clone(), same.clone()
    noisier[:, 9:] += 1.0
    redder[:, 0] += 0.5
    for name in NS.names:
        plain = encoder(mosaic)[name]
        torch.testing.assert_close(encoder(mosaic, noisier)[name], plain)
        assert (encoder(mosaic, redder)[name] - plain).abs().max() > 0.1
    encoder.told.weight.normal_(std=0.3)
    for name in NS.names:
        assert (encoder(mosaic)[name] - encoder(mosaic, noisier)[name]).abs().max() > 0.1


def test_each_mosaic_of_a_batch_has_its_own_condition():
    torch.manual_seed(0)
    encoder = SpaceEncoder("raw", width=8).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.normal_(std=0.2)
    mosaic, condition = torch.rand(3, 1, 16, 20), torch.randn(3, 13)
    together = encoder(mosaic, condition)
    for index in range(3):
        alone = encoder(mosaic[index : index + 1], condition[index : index + 1])
        for name in NS.names:
            torch.testing.assert_close(alone[name][0], together[name][index], rtol=1e-4, atol=1e-4)
