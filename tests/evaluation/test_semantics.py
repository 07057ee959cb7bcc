"""Intersection over union of a set, by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.semantics import SemanticsMeter, raised


def logits(ids: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return F.one_hot(ids, classes).permute(2, 0, 1)[None].float()


def test_scores_of_four_pixels_by_hand():
    meter = SemanticsMeter(("sky", "road", "car"))
    target = torch.tensor([[[0, 0], [1, 1]]])
    meter.add(logits(torch.tensor([[0, 1], [1, 1]])), target, torch.ones(2, 2, dtype=torch.bool))
    found = meter.scores()
    assert found["accuracy"] == 0.75
    assert found["mIoU"] == pytest.approx((1 / 2 + 2 / 3) / 2)  # no car appears
    assert meter.iou() == {"sky": 0.5, "road": pytest.approx(2 / 3), "car": None}


def test_void_counts_nothing():
    meter = SemanticsMeter(("sky", "road", "car"))
    valid = torch.tensor([[True, False], [True, True]])
    meter.add(logits(torch.tensor([[0, 2], [1, 1]])), torch.tensor([[[0, 0], [1, 1]]]), valid)
    assert meter.scores() == {"mIoU": 1.0, "accuracy": 1.0}


def test_one_matrix_for_the_set_and_not_a_mean_of_pictures():
    meter = SemanticsMeter(("sky", "road"))
    for guess, truth in (([[0]], [[[0]]]), ([[0, 0, 0]], [[[1, 1, 1]]])):
        known = torch.ones(1, len(guess[0]), dtype=torch.bool)
        meter.add(logits(torch.tensor(guess), 2), torch.tensor(truth), known)
    assert meter.scores() == {"mIoU": pytest.approx((1 / 4 + 0) / 2), "accuracy": 0.25}


def test_logits_are_raised_before_the_argmax_and_cells_keep_their_places():
    coarse = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    assert raised(coarse, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    meter = SemanticsMeter(("left", "right"))
    maps = torch.cat([1 - coarse, coarse], 1)
    meter.add(maps, torch.tensor([[[0, 0, 1, 1]]]), torch.ones(1, 4, dtype=torch.bool))
    assert meter.scores()["accuracy"] == 1.0


def test_another_number_of_channels_is_refused():
    with pytest.raises(ShapeError, match="select the channels"):
        SemanticsMeter(("a", "b")).add(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long(), torch.ones(2, 2).bool())
