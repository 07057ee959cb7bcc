"""Losses on cases whose value is known by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chiasm.contracts import Features
from chiasm.encoders.ns import NS
from chiasm.features.plane import Affine, warp
from chiasm.training import losses

TURNS = [Affine.of(degrees=90.0 * k, flip=flip) for k in range(4) for flip in (False, True)]


def pooled(pixels: torch.Tensor) -> Features:
    return {level.name: F.avg_pool2d(pixels, level.stride) for level in NS.levels}


def test_errors_are_on_the_scale_of_grey_levels():
    a, b = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 2 / 255)
    torch.testing.assert_close(losses.squared(a, b), torch.tensor([4.0, 4.0]))
    torch.testing.assert_close(losses.absolute(a, b), torch.tensor([2.0, 2.0]))


def test_equal_pictures_are_not_dissimilar():
    x = torch.rand(2, 3, 32, 32)
    assert float(losses.dissimilarity(x, x)) == pytest.approx(0.0, abs=1e-5)
    assert float(losses.dissimilarity(x, torch.rand(2, 3, 32, 32))) > 0.3


def test_an_equivariant_encoder_has_no_latent_error_and_a_one_sided_one_has():
    x, compared = torch.rand(1, 3, 64, 64), 0
    for turn in TURNS:
        still, moved = pooled(x), pooled(warp(x, turn))
        assert float(losses.latent_equivariance(moved, still, NS, turn, 8)) < 1e-6
        compared += 1
    shifted = pooled(torch.roll(warp(x, TURNS[1]), 1, dims=3))
    assert compared == 8
    assert float(losses.latent_equivariance(shifted, pooled(x), NS, TURNS[1], 8)) > 0.1


def test_moved_pictures_drawn_exactly_have_no_decoded_error():
    x = torch.rand(1, 3, 64, 64)
    shift = Affine.of()._replace(right=8.0, down=-4.0)
    assert float(losses.decoded_equivariance(warp(x, shift), x, shift, 8)) == pytest.approx(0.0, abs=1e-6)
    assert float(losses.decoded_equivariance(x, x, shift, 8)) > 1.0


def test_maps_move_by_the_translation_over_their_stride():
    shift = Affine.of()._replace(right=8.0)
    maps = {"context": torch.eye(8)[None, None], "detail": torch.eye(16)[None, None]}
    moved = losses.moved(maps, NS, shift)
    torch.testing.assert_close(moved["context"][0, 0, :, 2:], torch.eye(8)[:, :-2])
    torch.testing.assert_close(moved["detail"][0, 0, :, 4:], torch.eye(16)[:, :-4])
