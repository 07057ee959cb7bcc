"""The bits that training counts."""

from __future__ import annotations

import math

import pytest
import torch

from chiasm.training.rate import LocalLaplace, RateModel, _LaplaceBits, laplace_log_mass


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 4.0, 30.0])
def test_the_masses_of_all_integers_sum_to_one(scale):
    integers = torch.arange(-2000, 2001, dtype=torch.float64)
    log_mass, _, _ = laplace_log_mass(integers, torch.full_like(integers, scale))
    bits = -log_mass / math.log(2.0)
    assert float((2.0**-bits).sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shift", [-0.37, 0.21, 0.49])
def test_the_masses_sum_to_one_wherever_the_bins_lie(shift):
    places = torch.arange(-500, 501, dtype=torch.float64) + shift
    log_mass, _, _ = laplace_log_mass(places, torch.full_like(places, 0.8))
    assert float(log_mass.exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_the_gradient_written_by_hand_is_the_exact_one():
    draws = torch.Generator().manual_seed(0)
    y = (4 * torch.randn(2, 3, 4, 5, generator=draws, dtype=torch.float64)).requires_grad_()
    noise = torch.rand(y.shape, generator=draws, dtype=torch.float64) - 0.5
    own = torch.rand(2, 3, 4, 5, generator=draws, dtype=torch.float64) * 3
    shared = torch.rand(2, 2, 4, 5, generator=draws, dtype=torch.float64) * 3
    mix = (torch.rand(4, 3, generator=draws, dtype=torch.float64) + 0.1).requires_grad_()

    def bits(y, mix):
        return _LaplaceBits.apply(y, y.detach() + noise, own, shared, mix)

    assert torch.autograd.gradcheck(bits, (y, mix), eps=1e-6, atol=1e-5)


def test_the_slopes_are_those_of_the_mass_on_both_sides_of_the_bin_around_nothing():
    y = torch.tensor([-3.2, -0.6, -0.4, -0.1, 0.2, 0.45, 0.55, 2.0], dtype=torch.float64, requires_grad=True)
    scale = torch.full((8,), 0.7, dtype=torch.float64, requires_grad=True)
    log_mass, by_y, by_scale = laplace_log_mass(y, scale)
    slopes = torch.autograd.grad(log_mass.sum(), (y, scale))
    torch.testing.assert_close(by_y, slopes[0])
    torch.testing.assert_close(by_scale, slopes[1])


def test_louder_surroundings_make_loud_coefficients_cheaper_and_quiet_ones_dearer():
    torch.manual_seed(0)
    model = LocalLaplace(1)
    quiet, loud = torch.zeros(1, 1, 8, 8), 6 * torch.randn(1, 1, 8, 8).sign()
    assert model(quiet, None) < model(loud, None)
    assert model(quiet, torch.zeros(1, 1, 8, 8)) < model(quiet, torch.full((1, 1, 8, 8), 50.0))


def parts() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    context, finer = (5 * torch.randn(2, 64, size, size, generator=draws) for size in (16, 32))
    return context, finer


def test_a_finer_step_decodes_closer_and_costs_more():
    torch.manual_seed(0)
    model, given = RateModel(), parts()
    errors, costs = [], []
    for step in (0.01, 1.0, 4.0):
        *decoded, bits = model(*given, torch.full((2,), step), 1)
        errors.append(max((y - x).abs().max().item() for x, y in zip(given, decoded, strict=True)))
        costs.append(bits[0].item())
        assert bits.shape == (1,)
    assert errors == sorted(errors)
    assert errors[0] < 0.05
    assert costs == sorted(costs, reverse=True)


def test_every_parameter_of_the_rate_model_learns_and_the_features_hear_of_it():
    given = [x.clone().requires_grad_() for x in parts()]
    model = RateModel()
    *_, bits = model(*given, torch.ones(2), 2)
    bits.sum().backward()
    learned = [name for name, parameter in model.named_parameters() if parameter.grad.abs().sum() > 0]
    assert learned == [name for name, _ in model.named_parameters()]
    assert len(learned) == 6
    assert all(x.grad.abs().sum() > 0 for x in given)
