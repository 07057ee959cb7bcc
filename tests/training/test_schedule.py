"""What follows from the step alone."""

from __future__ import annotations

import pytest
import torch

from chiasm.training.schedule import generator, learning_rate


def rates(steps: int = 100, warmup: int = 10) -> list[float]:
    return [learning_rate(step, peak=2.0, warmup=warmup, steps=steps) for step in range(steps)]


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    found = rates()
    assert found[0] == pytest.approx(0.2)
    assert found[9] == found[10] == max(found) == 2.0
    assert all(later < earlier for earlier, later in zip(found[10:], found[11:], strict=False))
    assert found[-1] == pytest.approx(0.04, rel=0.03)
    assert learning_rate(500, peak=2.0, warmup=10, steps=100) == pytest.approx(0.04)


def test_the_rate_is_a_function_of_its_arguments():
    assert rates() == list(reversed([learning_rate(s, peak=2.0, warmup=10, steps=100) for s in reversed(range(100))]))
    assert rates(warmup=0)[0] == 2.0
    assert learning_rate(0, peak=1.0, warmup=5, steps=5) == 0.2


def test_each_step_seed_and_rank_draws_its_own_numbers_each_time_the_same():
    places = [(seed, step, rank) for seed in range(3) for step in range(4) for rank in range(3)]
    drawn = {place: tuple(torch.rand(4, generator=generator(*place)).tolist()) for place in places}
    assert len(set(drawn.values())) == len(places) == 36
    torch.manual_seed(7)
    assert drawn[1, 2, 0] == tuple(torch.rand(4, generator=generator(1, 2, 0)).tolist())
