"""The size at which heads that look at whole pictures see one: things must be as large as those they learnt from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from chiasm.features.layout import pad

WORKING = 500  # pixels of the longer side, at most: beyond, half as many see more (docs/results.md)


def working_factor(size: tuple[int, int]) -> int:
    """By how much smaller a picture of this height and width is seen: a power of two."""
    factor = 1
    while max(size) > WORKING * factor:
        factor *= 2
    return factor


def shrink(half: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """A picture drawn at half its size, B 3 h w, grown to `size`, then at 1 / `factor` of the whole, in [0, 1]."""
    return F.avg_pool2d(pad(half, size), factor // 2).clamp(0, 1)
