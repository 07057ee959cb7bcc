"""Counts of any Bayer sensor, however it was held, to a Mosaic: upright, whole cells of R G over G B.

counts ──flip──► upright ──first R in the corner, even edges──► Mosaic
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Sensor
from chiasm.errors import ImageError
from chiasm.images.raw.mosaic import Mosaic

PATTERNS = ("RGGB", "GRBG", "GBRG", "BGGR")


def mosaic_of(
    counts: NDArray[np.uint16],
    pattern: str,
    black: Sequence[float],
    white: float,
    sensor: Sensor,
    name: str,
    flip: int = 0,
) -> Mosaic:
    """The Mosaic in counts H x W whose first 2 x 2 pixels, row by row, have the colours `pattern`.

    black: a level for each of those four. flip: as `upright` takes it. Up to two rows and columns at the edges are
    lost to the phase. The values are a copy. Raises ImageError: unsupported pattern, damaged levels or counts.
    """
    if pattern not in PATTERNS:
        raise other_pattern(name, pattern)
    check_levels(counts, black, white, name)
    # A turned mosaic begins with another cell, by whether its edges are odd: a small one of the same parity tells.
    like = (slice(2 + counts.shape[0] % 2), slice(2 + counts.shape[1] % 2))
    letters = upright(np.tile(np.array([*pattern]).reshape(2, 2), (2, 2))[like], flip)
    levels = upright(np.tile(np.array(black, np.float64).reshape(2, 2), (2, 2))[like], flip)
    row, column = (int(at) for at in np.argwhere(letters[:2, :2] == "R")[0])
    sites = np.roll(levels[:2, :2], (-row, -column), (0, 1))
    values = upright(counts, flip)[row:, column:]
    values = values[: values.shape[0] // 2 * 2, : values.shape[1] // 2 * 2]
    if 0 in values.shape:
        height, width = counts.shape
        raise ImageError(f"{name}: expected a cell of 2 x 2 or more, got {height} x {width} counts", "damaged")
    red, first, second, blue = (float(level) for level in sites.flat)
    told = replace(sensor, pattern=pattern, black=(red, first, second, blue), white=white)
    return Mosaic(np.array(values, np.uint16, order="C"), told.black, white, told)


def upright(stored: NDArray[Any], flip: int) -> NDArray[Any]:
    """A view of the array as it is to be seen. flip: bits 4 transpose, 2 first row last, 1 first column last."""
    view = stored[::-1] if flip & 2 else stored
    view = view[:, ::-1] if flip & 1 else view
    return view.swapaxes(0, 1) if flip & 4 else view


def check_levels(counts: NDArray[np.uint16], black: Sequence[float], white: float, name: str) -> None:
    """Raises ImageError when no light could be told from these counts with these levels."""
    if not all(0 <= level < white for level in black):
        levels = ", ".join(f"{level:g}" for level in black)
        raise ImageError(
            f"{name}: expected black levels of 0 or more and below white, got {levels} and {white:g}; export it again",
            "damaged",
        )
    if not counts.any():
        raise ImageError(f"{name}: expected a photograph, got counts that are all zero; copy it again", "damaged")


def other_pattern(name: str, pattern: str) -> ImageError:
    """The error for a sensor that is not Bayer's."""
    return ImageError(
        f"{name}: expected a mosaic of {', '.join(PATTERNS)}, got {pattern}; develop it to TIFF or JPEG first",
        "unsupported",
    )
