import pytest
import torch

from chiasm.evaluation.protocols.pictures import Picture
from chiasm.evaluation.protocols.shift import (
    SHIFTS,
    blur,
    brightness,
    noise,
    pixel_space,
    shift_score,
    unshuffled_space,
)


@pytest.fixture
def grey():
    return Picture("grey", torch.full((3, 64, 64), 128, dtype=torch.uint8))


def test_noise_has_the_deviation_it_says_and_is_the_same_each_time(grey):
    once, again = noise(10)(grey), noise(10)(grey)
    assert torch.equal(once, again)
    assert float((once - grey.batch).std()) * 255 == pytest.approx(10, abs=0.3)
    assert not torch.equal(once, noise(10)(Picture("other", grey.pixels)))


def test_blur_keeps_an_even_picture_and_spreads_a_point_by_sigma(grey):
    torch.testing.assert_close(blur(2)(grey), grey.batch)
    pixels = torch.zeros(3, 33, 33, dtype=torch.uint8)
    pixels[:, 16, 16] = 255
    spot = blur(2)(Picture("spot", pixels))[0, 0]
    x = torch.arange(33.0) - 16
    assert float(spot.sum()) == pytest.approx(1, abs=1e-5)
    assert float((spot.sum(0) * x**2).sum()) ** 0.5 == pytest.approx(2, abs=0.02)


def test_brightness_scales_and_clips(grey):
    assert float(brightness(1.2)(grey).mean()) == pytest.approx(1.2 * 128 / 255)
    assert float(brightness(3)(grey).max()) == 1


def test_the_unshuffled_space_has_the_shape_of_the_neural_one_and_keeps_lengths():
    pixels = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    maps = unshuffled_space()(pixels)
    assert {level: tuple(values.shape) for level, values in maps.items()} == {
        "context": (1, 64, 4, 6),
        "detail": (1, 64, 8, 12),
    }
    for values in maps.values():
        assert float(values.square().sum()) == pytest.approx(float(pixels.square().sum()), rel=1e-4)


def test_every_space_is_scored_on_every_shift_and_harder_ones_cost_more(pictures):
    found = {
        "pixels": shift_score(pixel_space, pictures),
        "unshuffled": shift_score(unshuffled_space(), pictures),
    }
    for score in found.values():
        assert list(score.shifts) == [shift.name for shift in SHIFTS]
        level = next(iter(score.shifts["noise 10"]))
        assert 0 < score.shifts["noise 10"][level].l1 < score.shifts["noise 25"][level].l1 < 1
        assert score.shifts["blur 1"][level].l1 < score.shifts["blur 2"][level].l1
        assert score.mean.l1 > 0
    pixels = found["pixels"].shifts["noise 25"]["pixels"].l1
    unit = sum(
        float((a.batch[..., :96, :96] - b.batch[..., :96, :96]).abs().mean()) for a, b in [pictures[:2]]
    )
    assert pixels == pytest.approx(25 / 255 * 0.8 / unit, rel=0.5), (
        "0.8 sigma is the mean size of Gaussian noise"
    )


def test_a_space_that_ignores_brightness_is_rewarded_for_it(pictures):
    def edges(pixels):
        return {"edges": (pixels[..., 1:] - pixels[..., :-1])}

    levels = shift_score(edges, pictures).shifts["brightness +20 %"]
    assert levels["edges"].l1 < shift_score(pixel_space, pictures).shifts["brightness +20 %"]["pixels"].l1
