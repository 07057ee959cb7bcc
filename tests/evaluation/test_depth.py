"""Depth in metres and up to scale and shift, on maps whose errors are known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.depth import DepthMeter, DisparityMeter, aligned, disparity_errors

ALL = torch.ones(2, 2, dtype=torch.bool)


def maps(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 2, 2)


def scored(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor = ALL) -> dict[str, float]:
    meter = DepthMeter()
    meter.add(predicted[None], target, valid)
    return meter.scores()


def test_errors_of_four_pixels_by_hand():
    found = scored(maps(1, 2, 4, 8), maps(2, 2, 2, 8))
    assert found["RMSE (m)"] == pytest.approx(math.sqrt(5 / 4))
    assert found["AbsRel"] == pytest.approx((0.5 + 1) / 4)
    assert found["SqRel (m)"] == pytest.approx((0.5 + 2) / 4)
    assert found["log10"] == pytest.approx(2 * math.log10(2) / 4)
    assert (found["delta 1"], found["delta 2"], found["delta 3"]) == (0.5, 0.5, 0.5)


def test_the_three_deltas_are_powers_of_a_quarter_more():
    found = scored(maps(1.2, 1.5, 1.9, 2.0), maps(1, 1, 1, 1))
    assert (found["delta 1"], found["delta 2"], found["delta 3"]) == (0.25, 0.5, 0.75)


def test_what_is_not_valid_counts_nothing():
    valid = torch.tensor([[True, True], [True, False]])
    assert scored(maps(1, 1, 1, 9), maps(1, 1, 1, 0), valid)["RMSE (m)"] == 0.0
    with pytest.raises(ShapeError, match="above 0"):
        scored(maps(1, 1, 1, 9), maps(1, 1, 1, 0))


def test_predictions_are_clipped_to_the_range():
    assert scored(maps(50, 10, 10, 10), maps(10, 10, 10, 10))["RMSE (m)"] == 0.0
    assert math.isfinite(scored(maps(-1, 1, 1, 1), maps(1, 1, 1, 1))["log10"])


def test_pixels_are_pooled_and_the_mean_of_pictures_stands_beside():
    meter = DepthMeter()
    meter.add(maps(2, 2, 2, 2)[None], maps(1, 1, 1, 1), ALL)  # RMSE 1
    meter.add(maps(4, 4, 4, 4)[None], maps(1, 1, 1, 1), ALL)  # RMSE 3
    meter.add(maps(4, 4, 4, 4)[None], maps(0, 0, 0, 0), ~ALL)  # nothing known
    found = meter.scores()
    assert found["RMSE (m)"] == pytest.approx(math.sqrt(5))
    assert found["RMSE, mean of pictures (m)"] == pytest.approx(2)


def test_a_smaller_prediction_is_raised():
    found = scored(torch.full((1, 1, 1), 3.0), maps(3, 3, 3, 3))
    assert found["RMSE (m)"] == 0.0


def test_alignment_is_least_squares():
    random = torch.Generator().manual_seed(0)
    x, d = (torch.rand(50, generator=random, dtype=torch.float64) for _ in range(2))
    columns = torch.stack([x, torch.ones_like(x)], 1)
    wanted = columns @ torch.linalg.lstsq(columns, d[:, None]).solution
    assert torch.allclose(aligned(x, d), wanted[:, 0])
    assert torch.allclose(aligned(torch.full_like(x, 0.3), d), d.mean().expand(50))


def test_depth_up_to_scale_and_shift_is_perfect_and_a_mirrored_one_orders_wrongly():
    disparity = maps(10, 20, 30, 60)
    meter = DisparityMeter()
    meter.add(1 / (0.02 * disparity + 0.1)[None], disparity, ALL)
    found = meter.scores()
    assert found["RMSE, aligned (px)"] == pytest.approx(0, abs=1e-4)
    assert (found["delta 1, aligned"], found["Spearman"]) == (1.0, 1.0)
    meter = DisparityMeter()
    meter.add(1 / (2 - 0.02 * disparity)[None], disparity, ALL)
    assert meter.scores()["Spearman"] == pytest.approx(-1)


def test_a_constant_orders_nothing_and_answers_the_mean():
    found = disparity_errors(torch.ones(2, dtype=torch.float64), torch.tensor([10.0, 30.0], dtype=torch.float64))
    assert found["Spearman"] == 0.0
    assert found["RMSE, aligned (px)"] == 10.0
    assert found["AbsRel, aligned"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["delta 1, aligned"] == 0.0
    assert found["delta 2, aligned"] == 0.5  # 30 / 20 = 1.5 < 1.5625


def test_a_map_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="1 1 h w"):
        DepthMeter().add(torch.ones(2, 1, 2, 2), maps(1, 1, 1, 1), ALL)
