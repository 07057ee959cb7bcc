"""Surfaces that look varied: procedural tiles of reflectance, and patches of photographs.

A tile is float32 128 x 128 x 3, linear reflectance in [0, 1]. The ray-caster and Mitsuba read the same tiles.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Tile = NDArray[np.float32]

EDGE = 128  # of a tile, in texels
_V, _U = np.meshgrid(*[(np.arange(EDGE) + 0.5) / EDGE] * 2, indexing="ij")


@dataclass(frozen=True, eq=False)
class Material:
    """How a surface looks. texture: float32 h x w x 3, linear reflectance in [0, 1].

    tile: metres that the texture's width covers, mirrored beyond; 0 stretches it over each face. emission: radiance
    per reflectance, for lamps and daylight in windows. gloss: strength of the highlight.
    """

    texture: Tile
    tile: float = 1.0
    emission: float = 0.0
    gloss: float = 0.0

    @functools.cached_property
    def levels(self) -> list[Tile]:
        """The texture and its halves down to one texel, each the mean of four."""
        out = [self.texture]
        while min(out[-1].shape[:2]) > 1:
            last = out[-1][: out[-1].shape[0] // 2 * 2, : out[-1].shape[1] // 2 * 2]
            out.append((last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / np.float32(4.0))
        return out


@functools.lru_cache(maxsize=64)
def _stretch(cells: int) -> Floats:
    """EDGE x (cells + 1): smooth interpolation between the corners of cells."""
    place = (np.arange(EDGE) + 0.5) / EDGE * cells
    left = np.minimum(place.astype(int), cells - 1)
    part = place - left
    part = part * part * (3.0 - 2.0 * part)
    rows = np.zeros((EDGE, cells + 1))
    rows[np.arange(EDGE), left] = 1.0 - part
    rows[np.arange(EDGE), left + 1] = part
    return rows


def noise(rng: np.random.Generator, cells: tuple[int, int] = (4, 4), octaves: int = 4) -> Floats:
    """Value noise EDGE x EDGE, around 0, in [-1, 1]; `cells` down and across, doubled and halved by octave."""
    total, weight = np.zeros((EDGE, EDGE)), 0.0
    for octave in range(octaves):
        down, across = min(EDGE, cells[0] << octave), min(EDGE, cells[1] << octave)
        total += 0.5**octave * (_stretch(down) @ rng.uniform(-1.0, 1.0, (down + 1, across + 1)) @ _stretch(across).T)
        weight += 0.5**octave
    return total / weight


def hue(rng: np.random.Generator, strength: float = 0.35, light: tuple[float, float] = (0.2, 0.9)) -> Floats:
    """A random linear colour (3): mostly pale, `strength` the usual saturation, `light` the range of sRGB values."""
    saturation = min(1.0, float(rng.beta(1.2, 2.5)) * 2.0 * strength)
    value = float(rng.uniform(*light))
    warm = rng.random() < 0.5
    angle = float(rng.normal(0.08, 0.05)) % 1.0 if warm else float(rng.random())
    return np.array(colorsys.hsv_to_rgb(angle, saturation, value)) ** 2.2


def _mix(share: Floats, first: Floats, second: Floats) -> Floats:
    return first + share[..., None] * (second - first)


def _plain(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    return colour * (1.0 + rng.uniform(0.0, 0.12) * noise(rng, (3, 3), 5))[..., None]


def _cloudy(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    cells = int(rng.choice([2, 4, 8, 16]))
    return _mix(np.clip(noise(rng, (cells, cells), 5) * rng.uniform(0.8, 2.0) + 0.5, 0.0, 1.0), colour, other)


def _speckled(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    grain = rng.random((EDGE, EDGE)) if rng.random() < 0.5 else noise(rng, (32, 32), 2) + 0.5
    return _mix(np.clip(grain, 0.0, 1.0) * rng.uniform(0.2, 0.7), colour, other)


def _checks(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    count = int(rng.integers(2, 9))
    squares = (np.floor(_U * count) + np.floor(_V * count)) % 2
    return _mix(squares, colour, other) * (1.0 + 0.1 * noise(rng))[..., None]


def _stripes(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    count, width = int(rng.integers(2, 17)), rng.uniform(0.2, 0.8)
    along = _U if rng.random() < 0.7 else _V
    return _mix(((along * count) % 1.0 < width).astype(float), colour, other) * (1.0 + 0.08 * noise(rng))[..., None]


def _bricks(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    rows, long = int(rng.integers(4, 13)), rng.uniform(1.0, 3.0)
    row = np.floor(_V * rows)
    across = _U * rows / long + 0.5 * (row % 2) * (rng.random() < 0.7)
    joint = ((_V * rows) % 1.0 < 0.1) | (across % 1.0 < 0.1 / long)
    tone = rng.uniform(0.75, 1.1, (rows + 1, rows + 2))[row.astype(int), np.floor(across).astype(int)]
    return _mix(joint.astype(float), colour * tone[..., None], other) * (1.0 + 0.15 * noise(rng, (8, 8), 4))[..., None]


def _wood(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    rings = rng.uniform(3.0, 9.0) * (_U + 0.15 * noise(rng, (1, 3), 3)) + 0.5 * noise(rng, (2, 24), 3)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * rings) * (1.0 - 0.5 * np.abs(noise(rng, (1, 8), 2)))
    wooden = colour * np.array([1.0, 0.72, 0.45])
    boards = int(rng.integers(1, 6))
    seam = (_U * boards) % 1.0 < 0.02 * boards * (boards > 1)
    tone = rng.uniform(0.75, 1.1, boards)[np.floor(_U * boards).astype(int)]
    return np.asarray(_mix(grain * 0.6, wooden, wooden * 0.55) * (tone * np.where(seam, 0.4, 1.0))[..., None])


def _gradient(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    way = rng.uniform(0.0, 2 * np.pi)
    ramp = 0.5 + 0.5 * (np.cos(way) * (2 * _U - 1) + np.sin(way) * (2 * _V - 1)) / np.sqrt(2.0)
    return _mix(np.clip(ramp + 0.1 * noise(rng), 0.0, 1.0), colour, other)


def _picture(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    """Shapes on a ground: a poster, a screen, the print on a box."""
    tile = _gradient(rng, colour, other)
    for _ in range(int(rng.integers(2, 9))):
        x, y, size = rng.random(), rng.random(), rng.uniform(0.05, 0.4)
        slim = rng.uniform(0.3, 3.0)
        if rng.random() < 0.5:
            inside = np.hypot(_U - x, (_V - y) * slim) < size
        else:
            inside = (np.abs(_U - x) < size) & (np.abs(_V - y) < size / slim)
        tile = np.where(inside[..., None], hue(rng, 0.8, (0.05, 1.0)), tile)
    return np.asarray(tile)


def _windows(rng: np.random.Generator, colour: Floats, other: Floats) -> Floats:
    """A stretch of facade: one or more windows across, each with its frame, in one storey."""
    wall = (_bricks if rng.random() < 0.4 else _speckled)(rng, colour, colour * 0.85)
    count, wide, high = int(rng.integers(1, 4)), rng.uniform(0.35, 0.75), rng.uniform(0.4, 0.7)
    x, y = np.abs((_U * count) % 1.0 - 0.5) * 2, np.abs(_V - 0.5) * 2
    frame, pane = (x < wide) & (y < high), (x < wide - 0.07) & (y < high - 0.05)
    pane &= (x > 0.04) | (rng.random() < 0.4)
    glass = hue(rng, 0.3, (0.08, 0.5)) * (1.0 + 0.5 * noise(rng, (2, 2), 3))[..., None]
    return np.where(pane[..., None], glass, np.where(frame[..., None], other, wall))


_WAYS = {
    "plain": _plain, "cloudy": _cloudy, "speckled": _speckled, "checks": _checks, "stripes": _stripes,
    "bricks": _bricks, "wood": _wood, "gradient": _gradient, "picture": _picture, "windows": _windows,
}  # fmt: skip
WAYS = tuple(_WAYS)
_FREE = ("plain", "plain", "cloudy", "speckled", "checks", "stripes", "bricks", "wood", "gradient", "picture")


class Look:
    """Draws materials. photographs: sRGB pictures (H x W x 3 uint8) whose patches take the place of some tiles."""

    def __init__(self, rng: np.random.Generator, photographs: Sequence[NDArray[np.uint8]] = ()) -> None:
        self.rng = rng
        self.photographs = photographs

    def surface(self, ways: Sequence[str] = _FREE, tile: float = 1.0, surprise: float = 0.12) -> Material:
        """A material whose texture is one of `ways`; with odds `surprise` any other, or a photograph's patch.

        tile: metres, varied by a third; 0 stretches the texture over each face.
        """
        rng = self.rng
        way = str(rng.choice(list(ways)))
        if rng.random() < surprise:
            way = "photograph" if self.photographs and rng.random() < 0.7 else str(rng.choice(_FREE))
        gloss = float(rng.uniform(0.1, 0.6)) if rng.random() < 0.3 else 0.0
        texture = self._patch() if way == "photograph" else self.tile(way, hue(rng), hue(rng))
        return Material(texture, tile * float(rng.uniform(0.7, 1.4)), 0.0, gloss)

    def tile(self, way: str, colour: Floats, other: Floats) -> Tile:
        """A tile of one way (see WAYS) in two linear colours."""
        return np.asarray(_WAYS[way](self.rng, colour, other).clip(0.01, 0.98), dtype=np.float32)

    def painted(self, colour: Floats, gloss: float = 0.0, emission: float = 0.0) -> Material:
        """A nearly even colour."""
        return Material(self.tile("plain", np.asarray(colour), np.asarray(colour)), 1.0, emission, gloss)

    def image(self, ways: Sequence[str] = ("picture", "picture", "gradient", "cloudy")) -> Material:
        """Something drawn or photographed, stretched over the face."""
        if self.photographs and self.rng.random() < 0.6:
            return Material(self._patch(), 0.0)
        way = str(self.rng.choice(list(ways)))
        return Material(self.tile(way, hue(self.rng, 0.7), hue(self.rng, 0.7)), 0.0, 0.0, 0.2)

    def _patch(self) -> Tile:
        rng = self.rng
        source = self.photographs[int(rng.integers(len(self.photographs)))]
        edge = min(int(rng.choice([128, 256])), *source.shape[:2])
        y, x = (int(rng.integers(size - edge + 1)) for size in source.shape[:2])
        picks = (np.arange(EDGE) + 0.5) * edge / EDGE
        patch = source[y : y + edge, x : x + edge][picks.astype(int)][:, picks.astype(int)]
        return np.asarray(((patch / 255.0) ** 2.2).clip(0.01, 0.98), dtype=np.float32)


def looked_up(levels: Sequence[Tile], u: Floats, v: Floats, texels: Floats) -> Floats:
    """Reflectance N x 3 at u, v (N; 1 is the texture's width, mirrored beyond), `texels` (N) wide to the eye."""
    chosen = np.clip(np.round(np.log2(np.maximum(texels, 1e-6))), 0, len(levels) - 1).astype(int)
    out = np.empty((len(u), 3))
    u, v = (1.0 - np.abs(part % 2.0 - 1.0) for part in (u, v))
    for level in np.unique(chosen):
        rays = np.flatnonzero(chosen == level)
        out[rays] = _between(levels[level], u[rays], v[rays])
    return out


def _between(tile: Tile, u: Floats, v: Floats) -> Any:
    height, width = tile.shape[:2]
    x, y = np.clip(u * width - 0.5, 0, width - 1), np.clip(v * height - 0.5, 0, height - 1)
    left, top = x.astype(int), y.astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    part, fall = (x - left)[:, None], (y - top)[:, None]
    upper = tile[top, left] * (1 - part) + tile[top, right] * part
    return upper * (1 - fall) + (tile[bottom, left] * (1 - part) + tile[bottom, right] * part) * fall
