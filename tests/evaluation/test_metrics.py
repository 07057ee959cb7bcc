import math

import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.metrics import PSNR_CAP, class_iou, confusion, mean_iou, psnr, quantised, ssim, unit


def test_psnr_of_an_even_error_is_known_by_hand():
    a = torch.full((2, 3, 8, 8), 0.5)
    b = a + torch.tensor([0.1, 0.01])[:, None, None, None]  # squared errors 1e-2 and 1e-4
    torch.testing.assert_close(psnr(a, b), torch.tensor([20.0, 40.0], dtype=torch.float64), atol=1e-4, rtol=0)


def test_psnr_of_bytes_takes_255_as_the_peak():
    a, b = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4, dtype=torch.uint8)
    b[0, 0, 0] = 255  # one value of 48 is wrong by the whole peak
    assert float(psnr(a, b)) == pytest.approx(10 * math.log10(48))
    assert float(psnr(unit(a), b)) == pytest.approx(10 * math.log10(48)), "bytes and floats may be mixed"


def test_psnr_is_over_all_rgb_values_of_one_picture_together():
    a, b = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    b[1] = 0.1  # one channel of three: mean squared error 1e-2 / 3, not a mean of channels' PSNR
    assert float(psnr(a, b)) == pytest.approx(20 + 10 * math.log10(3), abs=1e-5)


def test_identical_pictures_get_the_cap_and_it_is_finite():
    a = torch.rand(3, 4, 4)
    assert float(psnr(a, a)) == PSNR_CAP == 100.0


def test_ssim_is_one_for_itself_and_falls_with_noise():
    a = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noisy = a.clone()
    noisy[1] = 1 - noisy[1]
    score = ssim(a, noisy)
    assert score.shape == (2,)
    assert float(score[0]) == pytest.approx(1, abs=1e-5)
    assert float(score[1]) < 0, "a negative is anticorrelated"


def test_ssim_of_two_even_pictures_is_the_luminance_term():
    a, b = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.4)
    wanted = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)  # C1 = (0.01 L)^2; the contrast term is 1
    assert float(ssim(a, b)[0]) == pytest.approx(wanted, abs=1e-3)


def test_confusion_and_iou_are_known_by_hand():
    target = torch.tensor([[0, 0, 1], [1, 2, 9]])
    guess = torch.tensor([[0, 1, 1], [1, 0, 2]])
    counts = confusion(guess, target, 4, void=9)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert class_iou(counts).tolist()[:3] == pytest.approx([1 / 3, 2 / 3, 0])
    assert math.isnan(class_iou(counts)[3]), "class 3 is absent, and does not count as 0"
    assert mean_iou(counts) == pytest.approx(1 / 3)


def test_quantised_clips_and_rounds_to_the_nearest_byte():
    values = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])
    assert quantised(values).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(
    "call",
    [
        lambda: psnr(torch.rand(3, 4, 4), torch.rand(3, 4, 5)),
        lambda: psnr(torch.zeros(3, 4, 4, dtype=torch.int32), torch.zeros(3, 4, 4, dtype=torch.int32)),
        lambda: ssim(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)),
        lambda: confusion(torch.tensor([5]), torch.tensor([0]), 4),
        lambda: confusion(torch.tensor([0]), torch.tensor([-1]), 4),
    ],
)
def test_what_cannot_be_scored_is_refused(call):
    with pytest.raises(ShapeError):
        call()
