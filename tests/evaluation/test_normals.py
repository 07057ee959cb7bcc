"""Normals, on directions whose angles are known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.normals import NormalsMeter, angles

FORWARD = torch.tensor([0.0, 0.0, -1.0])


def turned(degrees: float) -> torch.Tensor:
    """FORWARD, turned about the vertical."""
    return torch.tensor([math.sin(math.radians(degrees)), 0.0, -math.cos(math.radians(degrees))])


def scored(degrees: list[float], valid: torch.Tensor | None = None) -> dict[str, float]:
    predicted = torch.stack([3 * turned(angle) for angle in degrees], 1)[None, :, None]  # of length 3
    target = FORWARD[:, None, None].expand(3, 1, len(degrees))
    meter = NormalsMeter()
    meter.add(predicted, target, torch.ones(1, len(degrees), dtype=torch.bool) if valid is None else valid)
    return meter.scores()


def test_angles_by_hand():
    found = scored([0, 10, 20, 25, 90])
    assert found["mean (deg)"] == pytest.approx(29, abs=1e-4)
    assert found["median (deg)"] == pytest.approx(20, abs=0.011)
    assert found["RMSE (deg)"] == pytest.approx(math.sqrt((100 + 400 + 625 + 8100) / 5), abs=1e-4)
    assert [found[f"under {limit} deg"] for limit in ("11.25", "22.5", "30")] == pytest.approx([0.4, 0.6, 0.8])


def test_what_is_not_valid_counts_nothing():
    assert scored([5, 90], torch.tensor([[True, False]]))["mean (deg)"] == pytest.approx(5, abs=1e-4)


def test_the_opposite_is_180_and_nothing_is_90_degrees_wrong():
    stacked = torch.stack([-FORWARD, torch.zeros(3), FORWARD], 1)
    assert angles(stacked, FORWARD[:, None].expand(3, 3)).tolist() == pytest.approx([180, 90, 0])


def test_small_angles_are_exact():
    assert angles(turned(0.001)[:, None].double(), FORWARD[:, None]).item() == pytest.approx(0.001, rel=1e-3)


def test_no_pixel_is_nan_and_another_shape_is_refused():
    assert all(math.isnan(value) for value in NormalsMeter().scores().values())
    with pytest.raises(ShapeError, match="1 3 h w"):
        NormalsMeter().add(torch.zeros(1, 2, 4, 4), torch.zeros(3, 4, 4), torch.ones(4, 4, dtype=torch.bool))
