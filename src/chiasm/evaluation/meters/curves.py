"""Rate against distortion: points that were really coded, and the bytes between them.

Between coded points the logarithm of the bytes follows a monotone cubic in PSNR (PCHIP: Fritsch and Butland
1984, the interpolation of today's Bjontegaard tools). It never overshoots, as the single cubic of VCEG-M33
does; where the points of one codec are 2 dB apart it stays within 1 % of what is coded between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from chiasm.errors import ConfigError

RANGE = (30.0, 36.0)  # dB in which codecs are compared
SAMPLES = 241  # of the interval, for the area between two curves: 0.025 dB apart
NARROWEST = 0.5  # dB of common range under which an area would say nothing


@dataclass(frozen=True)
class Point:
    """One setting of one codec: bytes (of a picture, or the mean over a set), PSNR in dB, and the setting's
    name."""

    bytes: float
    psnr: float
    setting: str = ""


@dataclass(frozen=True)
class Curve:
    """The points of a codec that no other point beats, cheapest first: bytes and PSNR both rise strictly."""

    points: tuple[Point, ...]

    @staticmethod
    def through(points: Sequence[Point]) -> Curve:
        """Keeps what is worth having: a point goes when another is at least as good for at most its bytes.

        Raises ConfigError for no points, or a point without bytes.
        """
        if not points or min(point.bytes for point in points) <= 0:
            raise ConfigError(f"a curve needs points of more than 0 bytes, got {list(points)[:3]}; code something")
        kept: list[Point] = []
        for point in sorted(points, key=lambda point: (point.bytes, -point.psnr)):
            if not kept or point.psnr > kept[-1].psnr:
                kept.append(point)
        return Curve(tuple(kept))

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest PSNR that was coded."""
        return self.points[0].psnr, self.points[-1].psnr

    def bytes_at(self, psnr: float) -> float | None:
        """Bytes needed for `psnr` dB; None outside what was coded, since nothing is ever extrapolated."""
        low, high = self.reach
        return math.exp(float(self.log_bytes(np.array(psnr)))) if low <= psnr <= high else None

    def log_bytes(self, psnr: np.ndarray) -> np.ndarray:
        """Natural logarithm of the bytes at each PSNR, held constant outside the reach."""
        if len(self.points) == 1:
            return np.full(psnr.shape, self._log_bytes[0])
        low, high = self.reach
        return np.asarray(self._between(np.clip(psnr, low, high)))

    @cached_property
    def _log_bytes(self) -> np.ndarray:
        return np.log([point.bytes for point in self.points])

    @cached_property
    def _between(self) -> PchipInterpolator:
        return PchipInterpolator([point.psnr for point in self.points], self._log_bytes)


def envelope(curves: Sequence[Curve]) -> Curve:
    """The cheapest of several curves of one codec, at the PSNR of every point of any of them."""
    points = []
    for point in (point for curve in curves for point in curve.points):
        size = min(size for curve in curves if (size := curve.bytes_at(point.psnr)) is not None)
        points.append(Point(size, point.psnr, point.setting))
    return Curve.through(points)


@dataclass(frozen=True)
class Family:
    """One codec on one picture: for each way of using it (chroma format) the points of its qualities, in
    their order.

    Every picture of a set is coded with the same settings, so that setting i is the same in each.
    """

    name: str
    variants: Mapping[str, tuple[Point, ...]]

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        return tuple(Curve.through(points) for points in self.variants.values())

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest PSNR that any way of using the codec gave."""
        return min(curve.reach[0] for curve in self.curves), max(curve.reach[1] for curve in self.curves)

    @cached_property
    def best(self) -> Curve:
        """The cheapest way at each PSNR."""
        return envelope(self.curves)

    def bytes_at(self, psnr: float) -> float | None:
        """Bytes of the better way at `psnr` dB, or None when no way reaches it."""
        sizes = [size for curve in self.curves if (size := curve.bytes_at(psnr)) is not None]
        return min(sizes, default=None)


def over_set(families: Sequence[Family]) -> Curve:
    """Mean bytes against mean PSNR of one codec over a set, at its best.

    The codec is used as it is in practice: one quality for the whole set. Each setting gives every picture a
    PSNR; the picture is then charged for the cheapest way of reaching *that* PSNR, so the chroma format is
    chosen picture by picture. Never dearer than any one chroma format for all.
    """
    curves = []
    for variant, settings in families[0].variants.items():
        points = []
        for index, setting in enumerate(settings):
            coded = [(family, family.variants[variant][index]) for family in families]
            size = fmean(family.bytes_at(point.psnr) or point.bytes for family, point in coded)
            reached = fmean(point.psnr for _, point in coded)
            points.append(Point(size, reached, f"{variant} {setting.setting}"))
        curves.append(Curve.through(points))
    return envelope(curves)


@dataclass(frozen=True)
class Saving:
    """Bjontegaard's delta rate: mean percent of bytes over a PSNR range; negative is fewer than the
    reference."""

    percent: float
    low: float
    high: float


def bd_rate(curve: Curve, reference: Curve, bounds: tuple[float, float] = RANGE) -> Saving | None:
    """Mean difference in rate at equal quality (VCEG-M33), on PCHIP instead of one cubic.

    percent = 100 (exp(mean over PSNR of ln R - ln R_ref) - 1), over the part of `bounds` that both curves
    reach, which is returned with it; None when that is narrower than 0.5 dB.
    """
    low = max(bounds[0], curve.reach[0], reference.reach[0])
    high = min(bounds[1], curve.reach[1], reference.reach[1])
    if high - low < NARROWEST:
        return None
    grid = np.linspace(low, high, SAMPLES)
    gap = np.trapezoid(curve.log_bytes(grid) - reference.log_bytes(grid), grid) / (high - low)
    return Saving(100 * (math.exp(float(gap)) - 1), low, high)
