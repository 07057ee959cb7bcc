"""The sensors and noises of synthetic RAW that sensors.toml pins: what training draws from, what tests are held to.

    sensors.toml ──pinned──► Pinned(training: SensorRange, sensors: unseen ones, noises: unseen ones)

Importing this module does not import torch.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Sensor, Triple
from chiasm.errors import ConfigError
from chiasm.images.srgb import SRGB_TO_XYZ

Pair = tuple[float, float]
Rows = tuple[Triple, Triple, Triple]
Doubles = NDArray[np.float64]

FILE = files("chiasm.datasets") / "sensors.toml"


@dataclass(frozen=True)
class Camera:
    """A camera's published colours. xyz: XYZ to raw camera colours under D65, as DNG's ColorMatrix."""

    name: str
    xyz: Rows

    @property
    def from_srgb(self) -> Rows:
        """Linear sRGB to balanced camera colours. Every row sums to 1: what white balance does to D65 white."""
        matrix = self._unbalanced()
        return _rows(matrix / matrix.sum(axis=1, keepdims=True))

    @property
    def to_srgb(self) -> Rows:
        """Balanced camera colours to linear sRGB, the inverse of `from_srgb`: what `Sensor.matrix` holds."""
        return _rows(np.linalg.inv(np.array(self.from_srgb)))

    @property
    def daylight(self) -> Triple:
        """Gains of red, green, blue that make D65 neutral, green being 1."""
        red, green, blue = self._unbalanced().sum(axis=1).tolist()
        return green / red, 1.0, green / blue

    def _unbalanced(self) -> Doubles:
        product: Doubles = np.array(self.xyz) @ SRGB_TO_XYZ
        return product


@dataclass(frozen=True)
class SensorRange:
    """What training draws sensors from: mixes of cameras, and the ends of uniform gains and exposures."""

    cameras: tuple[Camera, ...]
    red: Pair
    blue: Pair
    exposure: Pair


@dataclass(frozen=True)
class Noise:
    """One noise for tests, on a mosaic whose white is 1, before white balance.

    shot, read: the variance is shot * value + read. photons: counted (Poisson) instead of Gaussian. rows, columns:
    standard deviation of an offset that a whole row or column shares.
    """

    name: str
    shot: float
    read: float
    photons: bool = False
    rows: float = 0.0
    columns: float = 0.0

    def on(self, sensor: Sensor) -> Sensor:
        """The sensor with this noise written into it: what its file would say."""
        return replace(sensor, shot=self.shot, read=self.read)


@dataclass(frozen=True)
class Pinned:
    """Everything in sensors.toml. sensors: unseen ones, still without noise; noises: unseen ones."""

    training: SensorRange
    sensors: tuple[Sensor, ...]
    noises: tuple[Noise, ...]


@cache
def pinned() -> Pinned:
    """What sensors.toml says. Raises ConfigError when the installed file is damaged."""
    try:
        table = tomllib.loads(FILE.read_text(encoding="utf-8"))
        training, test = table["training"], table["test"]
        return Pinned(
            SensorRange(
                tuple(_camera(entry) for entry in training["cameras"]),
                _pair(training["red"]),
                _pair(training["blue"]),
                _pair(training["exposure"]),
            ),
            tuple(_sensor(entry) for entry in test["sensors"]),
            tuple(_noise(entry) for entry in test["noises"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{FILE} is damaged ({error!r}); install chiasm again") from error


def _camera(entry: dict[str, object]) -> Camera:
    return Camera(str(entry["name"]), _rows(np.array(entry["xyz"], np.float64).reshape(3, 3) / 1e4))


def _sensor(entry: dict[str, object]) -> Sensor:
    camera = _camera(entry)
    return Sensor((_number(entry["red"]), 1.0, _number(entry["blue"])), camera.to_srgb, 0.0, 0.0, camera.name)


def _noise(entry: dict[str, object]) -> Noise:
    return Noise(
        str(entry["name"]),
        _number(entry["shot"]),
        _number(entry["read"]),
        entry.get("photons", False) is True,
        _number(entry.get("rows", 0.0)),
        _number(entry.get("columns", 0.0)),
    )


def _pair(value: object) -> Pair:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"expected two numbers, got {value!r}")
    return _number(value[0]), _number(value[1])


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


def _rows(matrix: Doubles) -> Rows:
    """A 3 x 3 array as the tuples that `Sensor.matrix` is made of."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    return (a, b, c), (d, e, f), (g, h, i)
