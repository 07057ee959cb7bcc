"""The head that draws."""

from __future__ import annotations

import pytest
import torch

from chiasm.contracts import Features
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.errors import ShapeError
from chiasm.features.layout import Window
from chiasm.features.plane import double
from chiasm.heads.reconstruct import RECEPTIVE_FIELD, ReconstructHead


@pytest.fixture
def head() -> ReconstructHead:
    """Small, with random weights everywhere, so that every path counts."""
    torch.manual_seed(0)
    module = ReconstructHead(NS, width=8).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.2)
    return module


def features(size: int = 96) -> Features:
    return {level.name: torch.randn(1, 64, size // level.stride, size // level.stride) for level in NS.levels}


@pytest.mark.parametrize("corner", [(32, 32), (36, 28), (28, 36)])
def test_features_beyond_the_receptive_field_change_no_pixel(head, corner):
    whole, other = features(), features()
    window = Window(*corner, corner[0] + 20, corner[1] + 24)
    outer = window.grown(RECEPTIVE_FIELD, (96, 96))
    for level in NS.levels:
        part = (..., *outer.at(level.stride))
        other[level.name][part] = whole[level.name][part]
    torch.testing.assert_close(head(other)[..., *window.at(1)], head(whole)[..., *window.at(1)])


def test_a_tile_with_its_margin_is_drawn_as_within_the_picture(head):
    whole, window = features(), Window(32, 40, 64, 68)
    outer = window.grown(RECEPTIVE_FIELD, (96, 96))
    tile = {level.name: whole[level.name][..., *outer.at(level.stride)] for level in NS.levels}
    drawn = head(tile)[..., *window.within(outer).at(1)]
    torch.testing.assert_close(drawn, head(whole)[..., *window.at(1)], rtol=1e-4, atol=1e-4)


def test_untrained_it_undoes_the_untrained_encoder():
    picture = torch.rand(1, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        drawn = ReconstructHead(NS, 16)(SpaceEncoder("rgb", 16)(picture))
    error = (drawn - picture)[..., 24:-24, 24:-24].square().mean()
    assert 10 * torch.log10(1 / error) > 40


def test_without_detail_it_draws_as_if_nothing_were_finer(head):
    context = features()["context"]
    alone = head({"context": context})
    torch.testing.assert_close(alone, head({"context": context, "detail": double(context)}))


def test_without_context_it_says_which_level_it_reads(head):
    with pytest.raises(ShapeError, match="reads level 'context', got detail"):
        head({"detail": torch.zeros(1, 64, 8, 8)})
    with pytest.raises(ShapeError, match="got no level"):
        head({})
