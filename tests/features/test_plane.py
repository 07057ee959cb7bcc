"""Wavelets give back what they were given; doubling and warps keep to their conventions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chiasm.features.plane import Affine, double, split_filters, unwavelet, valid, warp, wavelet


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("cells", [(1, 1), (1, 3), (2, 1), (5, 7)])
def test_unwavelet_gives_back_what_the_wavelet_was_given(depth, cells):
    unit = 2**depth
    x = drawn(2, 3, cells[0] * unit, cells[1] * unit)
    bands = wavelet(x, depth)
    assert [tuple(band.shape[2:]) for band in bands] == [
        *((3, cells[0] * unit >> r, cells[1] * unit >> r) for r in range(1, depth + 1)),
        (1, *cells),
    ]
    assert (unwavelet(bands) - x).abs().max() < 1e-12
    single = wavelet(x.float(), depth)
    assert (unwavelet(single) - x.float()).abs().max() < 1e-5


def test_a_constant_has_means_only_and_a_ramp_has_details_in_its_own_direction_only():
    flat = wavelet(torch.full((1, 1, 32, 32), 3.0, dtype=torch.float64), 3)
    assert max(band.abs().max().item() for band in flat[:-1]) < 1e-8
    assert flat[-1].std() < 1e-8
    across = torch.arange(32.0, dtype=torch.float64).expand(1, 1, 32, 32)
    right, down, both = wavelet(across, 1)[0][0, 0]
    assert right.abs().max() > 0.1
    assert max(down.abs().max(), both.abs().max()) < 1e-8
    right, down, both = wavelet(across.transpose(-1, -2), 1)[0][0, 0]
    assert down.abs().max() > 0.1
    assert max(right.abs().max(), both.abs().max()) < 1e-8


def test_the_wavelet_is_nearly_orthonormal():
    """A quantiser's error in a band is its error in the plane, within a quarter."""
    bands, energies = wavelet(torch.zeros(1, 1, 64, 64, dtype=torch.float64), 3), []
    for index, band in enumerate(bands):
        for kind in range(band.shape[2]):
            impulse = [torch.zeros_like(x) for x in bands]
            impulse[index][0, 0, kind, band.shape[3] // 2, band.shape[4] // 2] = 1.0
            energies.append(unwavelet(impulse).square().sum().item())
    assert len(energies) == 10
    assert all(0.75 < energy < 1.25 for energy in energies)


def test_split_filters_reconstruct_exactly_away_from_borders():
    analysis, synthesis = split_filters()
    assert analysis.shape == synthesis.shape == (4, 10, 10)
    x = drawn(1, 1, 64, 64)
    bands = F.conv2d(x, analysis[:, None].double(), stride=2, padding=4)
    back = F.conv_transpose2d(bands, synthesis[:, None].double(), stride=2, padding=4)
    assert bands.shape == (1, 4, 32, 32)
    assert back.shape == x.shape
    error = (back - x).abs()
    assert error[..., 8:-8, 8:-8].max() < 2e-5  # the filters are published to six digits
    assert error.max() > 1e-3


def test_a_band_of_the_split_costs_what_its_error_is_worth_and_only_the_low_one_sees_a_constant():
    analysis, synthesis = split_filters()
    assert synthesis.square().sum((1, 2)).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert (analysis[0].sum() * synthesis[0].sum()).item() == pytest.approx(4.0, abs=1e-4)
    assert analysis[1:].sum((1, 2)).abs().max() < 1e-5


def test_double_is_bilinear_about_pixel_centres_and_clamped_at_borders():
    x = torch.tensor([[[[0.0, 4.0, 8.0]]]])
    assert double(x).tolist() == [[[[0.0, 1.0, 3.0, 5.0, 7.0, 8.0]] * 2]]
    assert double(torch.full((1, 2, 1, 1), 7.0)).tolist() == [[[[7.0, 7.0], [7.0, 7.0]]] * 2]
    y = drawn(1, 2, 5, 4)
    assert (double(y.transpose(-1, -2)) - double(y).transpose(-1, -2)).abs().max() < 1e-15


def test_doubling_keeps_the_mean_and_a_ramp():
    ramp = torch.arange(8.0).expand(1, 1, 6, 8)
    assert torch.allclose(double(ramp)[..., 2:-2], (torch.arange(16.0) / 2 - 0.25).expand(1, 1, 12, 16)[..., 2:-2])
    assert double(ramp).mean() == pytest.approx(ramp.mean().item())


def test_a_translation_moves_content_right_and_down_by_pixels_of_the_picture():
    x = drawn(1, 2, 16, 20)
    moved = warp(x, Affine(1, 0, 0, 1, right=4, down=8))
    assert torch.allclose(moved[..., 8:, 4:], x[..., :-8, :-4])
    assert moved[..., :8, :].abs().max() < 1e-9
    level = warp(x, Affine(1, 0, 0, 1, right=4, down=8), stride=4)
    assert torch.allclose(level[..., 2:, 1:], x[..., :-2, :-1])


def test_a_flip_and_a_quarter_turn_are_exact():
    x = drawn(1, 2, 12, 12)
    assert torch.allclose(warp(x, Affine.of(flip=True)), x.flip(-1))
    assert torch.allclose(warp(x, Affine.of(degrees=90)), torch.rot90(x, 1, (-2, -1)), atol=1e-9)
    assert torch.allclose(warp(x, Affine.of()), x)


def test_scaling_enlarges_about_the_centre():
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[..., 6:10, 6:10] = 1.0
    large = warp(x, Affine.of(scale=2.0))
    assert large[..., 5:11, 5:11].min() > 0.999
    assert large.sum().item() == pytest.approx(4 * 16, rel=0.05)
    assert torch.allclose(large, large.flip(-1).flip(-2))


def test_a_mask_is_valid_only_where_nothing_near_a_border_is_read():
    assert torch.equal(valid((32, 48), Affine.of(), 0, 4), torch.ones(1, 1, 8, 12))
    inner = valid((32, 48), Affine.of(), 8, 4)
    assert inner[..., 2:-2, 2:-2].min() == 1
    assert inner.sum() == 4 * 8
    moved = valid((32, 48), Affine(1, 0, 0, 1, right=8), 0, 4)
    assert moved[..., :2].max() == 0
    assert moved.sum() == 8 * 10
