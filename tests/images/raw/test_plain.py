"""A sensor survives JSON, and values that are none are refused by name."""

from __future__ import annotations

import json

import pytest

from chiasm.datasets.pinned_sensors import pinned
from chiasm.images.raw.plain import plain_sensor, sensor_from


def test_a_sensor_survives_json():
    sensors = pinned().sensors
    assert len(sensors) == 4
    for sensor in sensors:
        assert sensor_from(json.loads(json.dumps(plain_sensor(sensor)))) == sensor


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gains", [1, 2]),
        ("gains", "abc"),
        ("black", [0, 0, 0, None]),
        ("matrix", [[1, 0, 0], [0, 1, 0]]),
        ("matrix", [[1, 0, 0], [0, 1, 0], 5]),
        ("shot", float("nan")),
        ("iso", True),
        ("camera", 5),
        ("white", "1"),
    ],
)
def test_values_that_are_no_sensor_are_refused_by_name(name, value):
    plain = plain_sensor(pinned().sensors[0])
    with pytest.raises(ValueError, match=name):
        sensor_from({**plain, name: value})
    with pytest.raises(ValueError, match="fields"):
        sensor_from({"more": 1, **plain})
