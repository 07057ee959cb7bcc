import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from chiasm.datasets import synthetic_raw as s
from chiasm.datasets.pinned_sensors import FILE, pinned
from chiasm.errors import ShapeError
from chiasm.images.raw.sensor import CONDITION

PINNED = "7d0ca0939f14bc3a299138d31e0531c1f4bce593dacc29d27a872248c1a32d2f"
TRAINING = [
    "Canon EOS 5D Mark II",
    "Canon EOS 5D Mark IV",
    "Nikon D90",
    "Nikon D7000",
    "Sony ILCE-7R",
    "Olympus E-M10",
    "Panasonic DMC-GH4",
    "Fujifilm X-A1",
]
TEST = ["Samsung NX1", "Samsung Galaxy S9", "Nikon D40", "Sony DSC-RX100"]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sensors():
    """Every unseen sensor, every training camera under its own daylight, and eight drawn for training."""
    unseen = [replace(sensor, shot=1e-3, read=1e-6) for sensor in pinned().sensors]
    seen = [s.Sensor(camera.daylight, camera.to_srgb, 1e-3, 1e-6, camera.name) for camera in pinned().training.cameras]
    return unseen + seen + s.draw_sensors(pinned().training, 8, draws())


@pytest.fixture(scope="module")
def pictures(sensors):
    """One smooth random picture per sensor, B 3 16 24, sRGB in [0, 1], no grey above 0.8 linear."""
    coarse = torch.rand(len(sensors), 3, 4, 6, generator=draws(1))
    return torch.nn.functional.interpolate(coarse, (16, 24), mode="bilinear") * 0.9


# ---- each step and its inverse ---------------------------------------------------------------------------------------


def test_the_transfer_curve_is_the_standards():
    linear = torch.tensor([0.0, 0.0031308, 0.18, 0.5, 1.0])
    wanted = torch.tensor([0.0, 0.04045, 0.46135, 0.73536, 1.0])
    assert torch.allclose(s.to_srgb(linear), wanted, atol=1e-4)
    assert torch.allclose(s.to_linear(wanted), linear, atol=1e-4)


def test_the_transfer_curve_and_back_is_the_identity():
    linear = torch.linspace(0, 2, 4001)
    assert torch.allclose(s.to_linear(s.to_srgb(linear)), linear, atol=2e-6)
    assert torch.allclose(s.to_srgb(s.to_linear(linear)), linear, atol=2e-6)


def test_the_transfer_curve_outside_its_range():
    assert torch.equal(s.to_srgb(torch.tensor([-1.0, -1e-6])), torch.zeros(2))
    assert s.to_srgb(torch.tensor([1.5]))[0] == pytest.approx(1.1942, abs=1e-4)
    assert torch.allclose(s.to_linear(torch.tensor([-0.1292])), torch.tensor([-0.01]))
    rising = s.to_srgb(torch.linspace(0, 3, 10001))
    assert (rising.diff() > 0).all()


def test_camera_colours_and_back_are_the_identity(sensors, pictures):
    matrix = s.matrices(sensors)
    assert torch.allclose(s.from_camera(s.to_camera(pictures, matrix), matrix), pictures, atol=2e-6)
    assert torch.allclose(s.to_camera(s.from_camera(pictures, matrix), matrix), pictures, atol=2e-6)
    single = s.to_camera(pictures[:1], matrix[0])  # one matrix for the batch
    assert torch.allclose(single, s.to_camera(pictures, matrix)[:1])


def test_a_matrix_is_applied_by_rows():
    matrix = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    green = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    assert s.from_camera(green, matrix).flatten().tolist() == [-1.0, 1.0, 0.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_white_balance_and_back_is_the_identity(sensors, pictures, channels):
    x, gains = pictures[:, :channels], s.gains_of(sensors)
    assert torch.allclose(s.unbalanced(s.balanced(x, gains), gains), x, atol=1e-6)
    assert torch.allclose(s.balanced(s.unbalanced(x, gains), gains), x, atol=1e-6)


def test_white_balance_of_a_mosaic_is_the_mosaic_of_the_balanced(sensors, pictures):
    gains = s.gains_of(sensors)
    assert torch.allclose(s.mosaic(s.balanced(pictures, gains)), s.balanced(s.mosaic(pictures), gains))


def test_a_mosaic_has_rggb_phase():
    colours = torch.arange(3 * 4 * 6).reshape(1, 3, 4, 6).float()
    found = s.mosaic(colours)[0, 0]
    assert torch.equal(found[0::2, 0::2], colours[0, 0, 0::2, 0::2])
    assert torch.equal(found[0::2, 1::2], colours[0, 1, 0::2, 1::2])
    assert torch.equal(found[1::2, 0::2], colours[0, 1, 1::2, 0::2])
    assert torch.equal(found[1::2, 1::2], colours[0, 2, 1::2, 1::2])
    assert torch.equal(s.sites(4, 6).sum(0), torch.ones(4, 6))
    assert s.sites(4, 6).sum((1, 2)).tolist() == [6, 12, 6]


# ---- highlights ------------------------------------------------------------------------------------------------------


def test_highlights_below_the_bend_are_exposure_alone():
    camera = torch.rand(2, 3, 8, 8, generator=draws()) * 0.9
    gains, exposure = torch.tensor([[2.0, 1.0, 1.5], [1.2, 1.0, 2.6]]), torch.tensor([0.6, 1.0])
    assert torch.allclose(s.highlights(camera, gains, exposure), camera * exposure[:, None, None, None])


@pytest.mark.parametrize("exposure", [0.6, 1.0, 1.5])
def test_white_saturates_all_three_colours_of_every_sensor(sensors, exposure):
    white = torch.ones(len(sensors), 3, 2, 2)
    camera = s.exposed(white, sensors, torch.full((len(sensors),), exposure))
    planes = s.unbalanced(camera, s.gains_of(sensors))
    assert torch.allclose(planes, torch.ones(1), atol=1e-4)
    assert torch.allclose(s.develop(camera, s.matrices(sensors)), torch.ones(1), atol=1e-5)


def test_highlights_rise_with_the_picture():
    grey = torch.linspace(0, 1, 500)[None, None, None].expand(1, 3, 1, 500)
    light = s.highlights(grey, torch.tensor([2.2, 1.0, 1.4]), torch.tensor([0.7]))
    assert (light.diff(dim=-1) > 0).all()
    assert light[0, :, 0, -1].tolist() == pytest.approx([2.2] * 3)


# ---- the whole way ---------------------------------------------------------------------------------------------------


def test_a_photograph_comes_back_where_nothing_is_clipped(sensors, pictures):
    camera = s.to_camera(s.to_linear(pictures), s.matrices(sensors))
    inside = ((camera >= 0) & (camera <= 1)).all(1) & (camera.mean(1) <= s.BRIGHT)
    assert inside.float().mean() > 0.9
    drawn = s.develop(s.exposed(pictures, sensors), s.matrices(sensors))
    assert (drawn - pictures).abs().amax(1)[inside].max() < 0.1 / 255


def test_the_target_is_the_developed_camera_image_and_the_mosaic_its_samples(sensors, pictures):
    exposure = torch.linspace(0.5, 1.4, len(sensors))
    raw = s.unprocess(pictures, sensors, None, exposure)
    camera = s.exposed(pictures, sensors, exposure)
    assert torch.equal(raw.target, s.develop(camera, s.matrices(sensors)))
    assert torch.equal(raw.mosaic, s.mosaic(camera))
    assert raw.sensors == sensors
    assert torch.equal(raw.condition, s.condition(sensors))
    assert raw.mosaic.dtype == raw.target.dtype == raw.condition.dtype == torch.float32


def test_half_the_exposure_is_half_the_light(sensors, pictures):
    whole = s.exposed(pictures, sensors)
    half = s.exposed(pictures, sensors, torch.full((len(sensors),), 0.5))
    dim = (whole <= 1).all(1, keepdim=True)
    assert torch.allclose((2 * half)[dim.expand_as(half)], whole[dim.expand_as(whole)], atol=1e-6)


@pytest.mark.parametrize("exposure", [0.6, 1.0, 1.3])
def test_grey_stays_grey_for_every_sensor(sensors, exposure):
    grey = torch.linspace(0, 1, 256)[None, None, None].expand(len(sensors), 3, 1, 256)
    drawn = s.develop(
        s.exposed(grey, sensors, torch.full((len(sensors),), exposure)),
        s.matrices(sensors),
    )
    assert (drawn.amax(1) - drawn.amin(1)).max() < 0.01 / 255
    assert (drawn.diff(dim=-1) >= -1e-5).all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_pictures_give_numbers(sensors, level):
    raw = s.unprocess(torch.full((len(sensors), 3, 4, 6), level), sensors, draws(2))
    for part in (raw.mosaic, raw.target, raw.condition):
        assert torch.isfinite(part).all()
    assert torch.allclose(raw.target, torch.full_like(raw.target, level), atol=1e-5)


def test_noise_is_not_clipped(sensors):
    black, white = torch.zeros(len(sensors), 3, 32, 32), torch.ones(len(sensors), 3, 32, 32)
    assert (s.unprocess(black, sensors, draws(2)).mosaic < 0).any()
    ratio = s.unbalanced(s.unprocess(white, sensors, draws(2)).mosaic, s.gains_of(sensors))
    assert (ratio > 1).float().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("size", [(5, 8), (6, 7), (1, 1)])
def test_odd_sizes_are_refused_with_the_values_and_the_fix(sensors, size):
    with pytest.raises(ShapeError, match=f"{size[0]} x {size[1]}; crop .* {size[0] // 2 * 2} x {size[1] // 2 * 2}"):
        s.unprocess(torch.zeros(1, 3, *size), sensors[:1])


def test_other_shapes_are_refused(sensors):
    with pytest.raises(ShapeError, match="B 3 H W, got 3 4 4"):
        s.unprocess(torch.zeros(3, 4, 4), sensors[:1])
    with pytest.raises(ShapeError, match="2 pictures, got 1"):
        s.unprocess(torch.zeros(2, 3, 4, 4), sensors[:1])


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [s.noisy, s.poisson_gaussian])
@pytest.mark.parametrize("value", [0.0, 0.02, 0.3, 1.0])
def test_noise_has_the_variance_it_says(model, value):
    count, shot, read = 200_000, torch.tensor([8e-3]), torch.tensor([1e-4])
    clean = torch.full((1, 1, 400, 500), value)
    noise = model(clean, shot, read, draws(3)).double() - value
    variance = 8e-3 * value + 1e-4
    assert noise.mean().abs() < 5 * math.sqrt(variance / count)
    # a sample variance of n Gaussians has relative deviation sqrt(2 / n); a Poisson count's is larger when few are seen
    kurtosis = 2 + (8e-3**3 * value / variance**2 if model is s.poisson_gaussian else 0)
    assert noise.var().item() == pytest.approx(variance, rel=5 * math.sqrt(kurtosis / count))


def test_noise_below_black_is_read_noise_alone():
    clean = torch.full((1, 1, 400, 500), -0.01)
    noise = s.noisy(clean, torch.tensor([8e-3]), torch.tensor([1e-4]), draws(3)) + 0.01
    assert noise.var().item() == pytest.approx(1e-4, rel=0.02)


def test_each_picture_has_its_own_noise():
    shot, read = torch.tensor([0.0, 1e-2]), torch.tensor([0.0, 1e-4])
    noise = s.noisy(torch.full((2, 1, 64, 64), 0.5), shot, read, draws()) - 0.5
    assert noise[0].abs().max() == 0
    assert noise[1].std() == pytest.approx(math.sqrt(0.0051), rel=0.1)


def test_counted_photons_are_skewed_and_gaussian_noise_is_not():
    clean = torch.full((1, 1, 400, 500), 0.02)
    args = clean, torch.tensor([1e-2]), torch.tensor([1e-8])
    skew = [
        (((x := model(*args, draws(4)).double()) - x.mean()) ** 3).mean().item() / x.std().item() ** 3
        for model in (s.noisy, s.poisson_gaussian)
    ]
    assert abs(skew[0]) < 0.03
    assert skew[1] == pytest.approx(1 / math.sqrt(2), abs=0.03)  # two photons


def test_banding_is_shared_by_rows_and_columns():
    x = s.banding(torch.zeros(2, 1, 300, 400), 0.01, 0.0, draws())
    assert (x == x[..., :1]).all()
    assert x[..., 0].std() == pytest.approx(0.01, rel=0.15)
    x = s.banding(torch.zeros(2, 1, 300, 400), 0.0, 0.02, draws())
    assert (x == x[..., :1, :]).all()
    assert x[..., 0, :].std() == pytest.approx(0.02, rel=0.15)


def test_drawn_noise_follows_the_law():
    shot, read = s.sample_noise(draws(), 20_000)
    assert shot.min() >= 1e-4 * (1 - 1e-5)
    assert shot.max() <= 1.2e-2 * (1 + 1e-5)
    middle = (math.log(1e-4) + math.log(1.2e-2)) / 2
    assert shot.log().mean() == pytest.approx(middle, abs=0.05)
    rest = read.log() - 2.18 * shot.log() - 1.20
    assert rest.mean() == pytest.approx(0, abs=0.01)
    assert rest.std() == pytest.approx(0.26, abs=0.01)


def test_noise_is_a_function_of_the_generator(sensors, pictures):
    first, again, other = (s.unprocess(pictures, sensors, draws(seed)).mosaic for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ---- sensors ---------------------------------------------------------------------------------------------------------


def test_condition_is_the_matrix_noise_and_gains_of_about_unit_size(sensors):
    found = s.condition(sensors)
    assert found.shape == (len(sensors), CONDITION)
    assert torch.equal(found[:, :9].reshape(-1, 3, 3), s.matrices(sensors))
    assert found.abs().max() < 3
    ends = [replace(sensors[0], shot=shot, read=math.exp(2.18 * math.log(shot) + 1.20)) for shot in (1e-4, 1.2e-2)]
    assert torch.allclose(s.condition(ends)[:, 9:11], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-5)
    assert s.condition([replace(sensors[0], shot=0.0, read=0.0)])[0, 9:11].tolist() == [-2.0, -2.0]
    doubled = s.condition([replace(sensors[0], gains=(2.0, 1.0, 4.0))])
    assert doubled[0, 11:].tolist() == [1.0, 2.0]


def test_drawn_sensors_are_a_function_of_the_generator_and_lie_in_the_range():
    training = pinned().training
    first, again = (s.draw_sensors(training, 500, draws(7)) for _ in range(2))
    assert first == again
    assert first != s.draw_sensors(training, 500, draws(8))
    gains = s.gains_of(first)
    for channel, (low, high) in ((0, training.red), (2, training.blue)):
        assert low <= gains[:, channel].min() < low + 0.05
        assert high - 0.05 < gains[:, channel].max() <= high
    assert (gains[:, 1] == 1).all()
    assert torch.allclose(s.matrices(first).sum(-1), torch.ones(1), atol=1e-6)
    exposure = s.draw_exposures(training, 500, draws())
    assert training.exposure[0] <= exposure.min() < exposure.max() <= training.exposure[1]


def test_drawn_sensors_come_near_every_camera():
    drawn = torch.linalg.inv(s.matrices(s.draw_sensors(pinned().training, 2000, draws())))
    for camera in pinned().training.cameras:
        apart = (drawn - torch.tensor(camera.from_srgb)).flatten(1).norm(dim=1)
        assert apart.min() < 0.02


def test_the_pinned_file_has_not_changed():
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == PINNED
    training = pinned().training
    assert [camera.name for camera in training.cameras] == TRAINING
    assert (training.red, training.blue, training.exposure) == ((1.2, 2.6), (1.2, 2.6), (0.6, 1.0))
    assert [sensor.camera for sensor in pinned().sensors] == TEST
    assert [(noise.name, noise.shot) for noise in pinned().noises] == [
        ("low", 5e-4),
        ("mid", 2.5e-3),
        ("high", 1e-2),
        ("beyond", 2.4e-2),
        ("banded", 2.5e-3),
    ]
    assert (s.SHOT, s.READ_SLOPE, s.READ_OFFSET, s.READ_SPREAD) == ((1e-4, 1.2e-2), 2.18, 1.20, 0.26)


def test_every_pinned_camera_is_plausible():
    for camera in pinned().training.cameras:
        assert all(1.0 < gain < 3.5 for gain in (camera.daylight[0], camera.daylight[2]))  # green sees daylight best
    for matrix in [camera.to_srgb for camera in pinned().training.cameras] + [x.matrix for x in pinned().sensors]:
        rows = np.array(matrix)
        assert np.allclose(rows.sum(1), 1, atol=1e-12)
        assert (np.diag(rows) > 1).all()
        assert rows.min() > -1.5
        assert np.linalg.cond(rows) < 4


def test_test_sensors_are_no_mix_of_the_training_cameras():
    """The nearest convex mix is at least 0.1 away (Frobenius, sRGB to camera); drawn sensors are inside the hull."""
    hull = np.stack([np.ravel(camera.from_srgb) for camera in pinned().training.cameras], 1)

    def apart(matrix):
        rows = np.linalg.inv(np.array(matrix)).ravel()
        tied = np.vstack([hull, 1e3 * np.ones((1, hull.shape[1]))])  # weights that sum to 1
        weights, _ = nnls(tied, np.append(rows, 1e3))
        return np.linalg.norm(hull @ weights - rows)

    assert all(apart(sensor.matrix) > 0.1 for sensor in pinned().sensors)
    assert all(apart(sensor.matrix) < 1e-3 for sensor in s.draw_sensors(pinned().training, 20, draws()))
    assert not set(TRAINING) & set(TEST)


def test_two_test_sensors_have_gains_inside_the_training_range_and_two_outside():
    training = pinned().training
    inside = [
        training.red[0] <= sensor.gains[0] <= training.red[1]
        and training.blue[0] <= sensor.gains[2] <= training.blue[1]
        for sensor in pinned().sensors
    ]
    assert inside == [True, True, False, False]
    assert all(min(sensor.gains) >= 1 for sensor in pinned().sensors)  # what `develop` counts on


def test_test_noises_are_where_the_file_says():
    for noise in pinned().noises:
        usual = 2.18 * math.log(noise.shot) + 1.20
        off = abs(math.log(noise.read) - usual)
        assert off < 1e-3 if noise.name != "banded" else off > 5 * 0.26
        assert (noise.shot <= 1.2e-2) == (noise.name != "beyond")
        assert (noise.photons, noise.rows > 0, noise.columns > 0) == ((noise.name == "banded",) * 3)


def test_every_unseen_sensor_can_be_had_with_every_unseen_noise():
    picture = torch.full((1, 3, 64, 64), 0.5)
    seen = 0
    for sensor, noise in itertools.product(pinned().sensors, pinned().noises):
        raw = s.unprocess(picture, [noise.on(sensor)], draws(), model=s.model_of(noise))
        clean = s.unprocess(picture, [noise.on(sensor)]).mosaic
        rest = s.unbalanced(raw.mosaic - clean, s.gains_of([sensor]))
        light = s.unbalanced(clean, s.gains_of([sensor])).mean().item()
        variance = noise.shot * light + noise.read + noise.rows**2 + noise.columns**2
        assert rest.var().item() == pytest.approx(variance, rel=0.15)
        seen += 1
    assert seen == 20
