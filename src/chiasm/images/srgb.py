"""sRGB (IEC 61966-2-1): its transfer curve, for tensors and for arrays, and its primaries.

Importing this module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Linear sRGB to CIE XYZ, both with the white of D65.
SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB to linear light, any shape (IEC 61966-2-1). Below 0 the straight piece goes on, above 1 the curve."""
    curve = ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return (srgb / 12.92).where(srgb <= 0.04045, curve)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB, any shape. Below 0 becomes 0; above 1 stays above 1: `develop` clips it at the end."""
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return (12.92 * linear.clamp(min=0.0)).where(linear <= 0.0031308, curve)


def encoded(linear: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear light to sRGB as an array of any shape, both cut to [0, 1]; its type stays."""
    light = np.clip(linear, 0.0, 1.0)
    curve: NDArray[np.floating] = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return curve
