"""The denoising head: how it starts, its size, and how far it looks."""

from __future__ import annotations

import pytest
import torch

from chiasm.contracts import Features
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.errors import ShapeError
from chiasm.features.layout import Window
from chiasm.heads.denoise import RECEPTIVE_FIELD, DenoiseHead
from chiasm.heads.reconstruct import ReconstructHead

MOST = 443_000  # parameters of the paper's denoise decoder (arXiv:2509.20481, table 2)


def features(height: int = 96, width: int = 96) -> Features:
    draws = torch.Generator().manual_seed(0)
    return {
            one.name: 3 * torch.randn(1, one.channels, height // one.stride, width // one.stride, generator=draws)
            for one in NS.levels
        }


def test_it_is_no_larger_than_the_papers():
    assert 300_000 < sum(parameter.numel() for parameter in DenoiseHead(NS).parameters()) <= MOST


def test_it_starts_as_the_head_that_draws():
    torch.manual_seed(0)
    drawing, head = ReconstructHead(NS, 8), DenoiseHead(NS, 8)
    for parameter in drawing.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    head.begin(drawing.state_dict())
    given = features(16, 20)
    with torch.no_grad():
        drawn = head(given)["denoise"]
        assert torch.allclose(drawn, drawing(given), atol=1e-5)
        assert drawn.shape == (1, 3, 16, 20)


def test_features_beyond_the_receptive_field_change_nothing():
    torch.manual_seed(0)
    head = DenoiseHead(NS, 8).eval().requires_grad_(False)
    for parameter in head.parameters():
        parameter.normal_(std=0.2)
    given = features()
    window = Window(36, 32, 56, 60)
    outer = window.grown(RECEPTIVE_FIELD, (96, 96))
    other = {name: torch.randn_like(x) for name, x in given.items()}
    for level in NS.levels:
        place = (..., *outer.at(level.stride))
        other[level.name][place] = given[level.name][place]
    here = (..., *window.at(1))
    found, wanted = (head(held)["denoise"][here] for held in (other, given))
    torch.testing.assert_close(found, wanted)


def test_detail_alone_is_refused():
    with pytest.raises(ShapeError, match="reads level 'context'"):
        DenoiseHead(NS, 8)({"detail": torch.zeros(1, 64, 8, 8)})


def test_it_takes_noise_out_after_a_few_steps():
    """Not a score: that a gradient reaches it through the frozen encoder's features."""
    torch.manual_seed(0)
    encoder, head = SpaceEncoder("rgb", 8).requires_grad_(False), DenoiseHead(NS, 8)
    head.begin(ReconstructHead(NS, 8).state_dict())
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    ramp = torch.linspace(0.2, 0.8, 32).expand(8, 3, 32, 32)
    errors = []
    for _ in range(25):
        drawn = head(encoder(ramp + 0.1 * torch.randn_like(ramp)))["denoise"]
        loss = (drawn - ramp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.7 * errors[0]
