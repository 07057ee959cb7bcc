"""The size at which heads see pictures."""

from __future__ import annotations

import pytest
import torch

from chiasm.features.working import WORKING, shrink, working_factor


@pytest.mark.parametrize(("size", "factor"), [((1, 1), 1), ((WORKING, 3), 1), ((3, WORKING + 1), 2),
                                              ((2 * WORKING, 9), 2), ((2 * WORKING + 1, 9), 4)])  # fmt: skip
def test_a_power_of_two_that_makes_it_fit(size, factor):
    assert working_factor(size) == factor


def test_shrinking_a_half_repeats_its_border_and_takes_means():
    half = torch.tensor([[[[0.0, 0.4, 2.0]]]])
    torch.testing.assert_close(shrink(half, (2, 4), 4), torch.tensor([[[[0.2, 1.0]]]]))
    torch.testing.assert_close(shrink(half, (1, 4), 2), torch.tensor([[[[0.0, 0.4, 1.0, 1.0]]]]))
