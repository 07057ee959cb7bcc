"""What a RAW encoder is told of the sensor, as tensors.

    Sensors ──matrices, gains_of──► B 3 3, B 3
       └──condition──► B x 13
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from chiasm.contracts import Sensor

# Noise of training (Brooks et al., sec. 3.1, fitted there to the Darmstadt cameras): log shot is uniform between the
# ends, log read lies about a line. Pinned by test: the condition of every trained RAW encoder is scaled by it.
SHOT = (1e-4, 1.2e-2)
READ_SLOPE, READ_OFFSET = 2.18, 1.20

CONDITION = 13  # numbers that tell a RAW encoder its sensor


def matrices(sensors: Sequence[Sensor]) -> Tensor:
    """B 3 3, balanced camera to linear sRGB."""
    return torch.tensor([sensor.matrix for sensor in sensors], dtype=torch.float32)


def gains_of(sensors: Sequence[Sensor]) -> Tensor:
    """B 3, white balance of red, green, blue."""
    return torch.tensor([sensor.gains for sensor in sensors], dtype=torch.float32)


def condition(sensors: Sequence[Sensor]) -> Tensor:
    """B x 13, what reaches the stem of a RAW encoder: the matrix row by row, shot and read, gains of red and blue.

    The matrix as it is (about -1 to 2). log shot and log read are scaled so that the ends of training's range lie at
    -1 and 1, and clipped to [-2, 2]; so 0 (no noise) is -2. Gains
    over the smallest, as `Mosaic.tile` applies them, as log2: white balance multiplies a colour's noise too.
    """
    shot = torch.tensor([sensor.shot for sensor in sensors], dtype=torch.float64).log()
    read = torch.tensor([sensor.read for sensor in sensors], dtype=torch.float64).log()
    low, high = map(math.log, SHOT)
    read = (read - READ_OFFSET) / READ_SLOPE  # the shot noise for which this read noise is the usual one
    noise = torch.stack([shot, read], dim=1)
    scaled = ((2 * noise - low - high) / (high - low)).clamp(-2.0, 2.0).float()
    gains = gains_of(sensors)
    relative = (gains / gains.amin(dim=1, keepdim=True))[:, [0, 2]].log2()
    return torch.cat([matrices(sensors).flatten(1), scaled, relative], dim=1)
