"""Classical demosaicing, the rival of `evaluate raw`."""

from __future__ import annotations

import sys

import pytest
import torch

from chiasm.datasets.pinned_sensors import pinned
from chiasm.datasets.synthetic_raw import unprocess
from chiasm.errors import MissingExtraError, ShapeError
from chiasm.images.raw.sensor import gains_of, matrices


@pytest.fixture(scope="module")
def demosaic():
    pytest.importorskip("colour_demosaicing", reason="needs colour-demosaicing")
    from chiasm.evaluation.baselines import demosaicing

    return demosaicing


def smooth(size=(32, 40)):
    y, x = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, 1, size[1]), indexing="ij")
    return torch.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.6 - 0.3 * x * y])[None]


@pytest.mark.parametrize("method", ["bilinear", "malvar", "menon"])
def test_a_smooth_picture_comes_back_from_its_mosaic(demosaic, method):
    sensor = pinned().sensors[0]
    raw = unprocess(smooth(), [sensor])
    drawn = demosaic.drawn(raw.mosaic, matrices([sensor]), method)
    assert drawn.shape == raw.target.shape
    assert drawn.dtype == torch.float32
    assert (drawn - raw.target)[..., 4:-4, 4:-4].abs().max() < 2 / 255
    assert (drawn - raw.target).abs().max() < 20 / 255  # at the border, where this ramp bends back


@pytest.mark.parametrize("method", ["bilinear", "malvar", "menon"])
def test_demosaicing_keeps_what_was_measured(demosaic, method):
    mosaic = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    colours = demosaic.demosaic(mosaic, method)
    assert colours.shape == (2, 3, 12, 16)
    if method == "menon":  # its refining step moves red and blue
        return
    for channel, (top, left) in ((0, (0, 0)), (1, (0, 1)), (1, (1, 0)), (2, (1, 1))):
        sampled = mosaic[:, 0, top::2, left::2]
        assert torch.allclose(colours[:, channel, top::2, left::2], sampled, atol=1e-5)


def test_a_saturated_white_is_drawn_white(demosaic):
    sensors = list(pinned().sensors)
    raw = unprocess(torch.ones(len(sensors), 3, 8, 8), sensors)
    assert torch.allclose(raw.mosaic[:, 0, 0, 0], gains_of(sensors)[:, 0])  # red is at its gain, not at 1
    assert torch.allclose(demosaic.drawn(raw.mosaic, matrices(sensors), "bilinear"), torch.ones(1), atol=1e-5)


def test_demosaic_refuses_an_odd_size_and_says_what_is_missing(monkeypatch):
    from chiasm.evaluation.baselines import demosaicing as module

    with pytest.raises(ShapeError, match=r"\(1, 1, 5, 6\)"):
        module.demosaic(torch.zeros(1, 1, 5, 6), "bilinear")
    monkeypatch.setitem(sys.modules, "colour_demosaicing", None)
    with pytest.raises(MissingExtraError, match=r"chiasm\[evaluate\]"):
        module.demosaic(torch.zeros(1, 1, 6, 6), "bilinear")
