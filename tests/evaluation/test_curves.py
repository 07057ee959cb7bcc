import math

import numpy as np
import pytest

from chiasm.errors import ConfigError
from chiasm.evaluation.meters.curves import Curve, Family, Point, bd_rate, envelope, over_set


def line(factor: float, low: int = 28, high: int = 40, step: int = 2) -> Curve:
    """A codec that doubles its bytes every 3 dB: the logarithm is linear, so that pieces are exact."""
    return Curve.through([Point(factor * 2 ** (psnr / 3), psnr) for psnr in range(low, high + 1, step)])


def test_bytes_between_two_points_follow_the_logarithm():
    curve = Curve.through([Point(100, 30), Point(400, 34)])
    assert curve.bytes_at(32) == pytest.approx(200)
    assert curve.bytes_at(30) == pytest.approx(100)


def test_between_many_points_the_interpolation_is_pchip():
    interpolate = pytest.importorskip("scipy.interpolate")
    points = [(300, 24.0), (410, 26.5), (420, 27.0), (900, 30.0), (2500, 33.5), (2600, 36.0), (9000, 37.0)]
    wanted = interpolate.PchipInterpolator([y for _, y in points], np.log([x for x, _ in points]))
    curve = Curve.through([Point(*point) for point in points])
    grid = np.linspace(24, 37, 200)
    np.testing.assert_allclose(curve.log_bytes(grid), wanted(grid), atol=1e-12)
    assert np.all(np.diff(curve.log_bytes(grid)) > 0)


def test_nothing_is_extrapolated():
    curve = line(1)
    assert curve.bytes_at(27.9) is None
    assert curve.bytes_at(40.1) is None


def test_a_point_that_another_beats_is_left_out():
    curve = Curve.through([Point(100, 30), Point(150, 29), Point(200, 34), Point(200, 33)])
    assert [(point.bytes, point.psnr) for point in curve.points] == [(100, 30), (200, 34)]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.25])
def test_bd_rate_of_a_known_shift_is_that_shift(factor):
    saving = bd_rate(line(factor, 27, 41, 1), line(1))
    assert saving is not None
    assert saving.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (saving.low, saving.high) == (30, 36)


def test_bd_rate_of_a_shift_in_quality_is_the_bytes_it_costs():
    better = Curve.through([Point(2 ** ((psnr - 1) / 3), psnr) for psnr in range(28, 42)])  # 1 dB for nothing
    saving = bd_rate(better, line(1))
    assert saving is not None
    assert saving.percent == pytest.approx(100 * (2 ** (-1 / 3) - 1), abs=1e-6)


def test_bd_rate_says_which_part_both_reach_and_is_none_when_it_is_narrow():
    saving = bd_rate(line(1, 33, 40, 1), line(2))
    assert saving is not None
    assert (saving.low, saving.high) == (33, 36)
    assert saving.percent == pytest.approx(-50)
    assert bd_rate(line(1, 36, 40), line(1)) is None


def test_a_family_takes_the_better_of_its_ways_at_each_quality():
    thrifty = tuple(Point(size, psnr) for size, psnr in ((100, 30), (1000, 34)))
    faithful = tuple(Point(size, psnr) for size, psnr in ((200, 30), (400, 38)))
    family = Family("made", {"4:2:0": thrifty, "4:4:4": faithful})
    assert family.bytes_at(30) == pytest.approx(100)
    assert family.bytes_at(34) == pytest.approx(math.sqrt(200 * 400))
    assert family.bytes_at(38) == pytest.approx(400), "reached by one way only"
    assert family.bytes_at(39) is None


def test_the_mean_over_a_set_uses_one_setting_for_all_and_the_cheaper_way_for_each():
    plain = Family("made", {"a": (Point(100, 30), Point(400, 36)), "b": (Point(300, 30), Point(900, 36))})
    vivid = Family("made", {"a": (Point(800, 32), Point(3200, 38)), "b": (Point(200, 32), Point(800, 38))})
    curve = over_set([plain, vivid])
    assert [(point.bytes, point.psnr) for point in curve.points] == [
        (pytest.approx(150), 31),  # 100 the first way, 200 the second
        (pytest.approx(600), 37),
    ]


def test_the_mean_of_a_single_way_is_the_mean_of_its_settings():
    first = Family("made", {"a": (Point(100, 30), Point(300, 34))})
    second = Family("made", {"a": (Point(300, 32), Point(500, 36))})
    assert [(point.bytes, point.psnr) for point in over_set([first, second]).points] == [
        (pytest.approx(200), 31),
        (pytest.approx(400), 35),
    ]


@pytest.mark.parametrize("points", [[], [Point(0, 30)]])
def test_a_curve_of_nothing_is_refused(points):
    with pytest.raises(ConfigError):
        Curve.through(points)


def test_the_envelope_follows_the_cheapest_curve_without_steps():
    """Two curves that cross at 33 dB: bytes 2^(p/3) and 2^(11 + (p - 33)/6)."""
    steep, flat = (
        line(1),
        Curve.through([Point(2 ** (11 + (psnr - 33) / 6), psnr) for psnr in range(29, 40, 2)]),
    )
    best = envelope([steep, flat])
    for psnr in (29.0, 30.5, 32.0, 34.5, 36.0, 37.5):
        cheapest = min(size for curve in (steep, flat) if (size := curve.bytes_at(psnr)) is not None)
        assert best.bytes_at(psnr) == pytest.approx(cheapest, rel=0.01)
