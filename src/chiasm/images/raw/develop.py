"""RAW files that hold all three colours of each pixel (linear DNG, sRAW) to a photograph.

counts ──black, white──► light ──gains──► balanced ──matrix──► linear sRGB ──transfer curve──► integers
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Sensor
from chiasm.images.picture import Pixels
from chiasm.images.srgb import encoded

LINEAR = "linear (already demosaiced, encoded as a picture)"  # instead of a mosaic's pattern, for people

_STRIP_PIXELS = 2**20


def developed(counts: NDArray[np.uint16], black: Sequence[float], white: float, sensor: Sensor) -> Pixels:
    """Linear camera colours H x W x 3 as sRGB H x W x 3: uint16, or uint8 when white is 255 or less.

    Nothing is brightened. Where a colour is full, all are cut at the level where the first is, so that highlights
    are white and not tinted.
    """
    height, width = counts.shape[:2]
    full = 255 if white <= 255 else 65535
    pixels: Pixels = np.empty((height, width, 3), np.uint8) if full == 255 else np.empty((height, width, 3), np.uint16)
    floor = np.array(black[:3], np.float32)
    scale = (np.array(sensor.gains) / (white - np.array(black[:3]))).astype(np.float32)
    matrix = np.array(sensor.matrix, np.float32)
    ceiling = np.float32(min(sensor.gains))
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        light = (counts[top : top + rows, :, :3] - floor) * scale  # h W 3
        linear = np.minimum(light, ceiling) @ matrix.T / ceiling
        pixels[top : top + rows] = np.round(encoded(linear) * full)
    return pixels
