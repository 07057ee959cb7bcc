"""Feature maps to signed integers and back: alignment, closed-form linear transform, wavelet, quantiser.

    level - doubled parent ─► - mean ─► basis^T ─► wavelet ─► / step ─► round towards zero a little ─► integers

The inverse is exact but for the rounding. Bands of one level are held fine to coarse, each an integer array
K x n x h x w with n = 3 orientations (1 for the last, coarsest one).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Features
from chiasm.features.layout import crop, pad, padded
from chiasm.features.plane import double, unwavelet, wavelet
from chiasm.packets.tables import LevelTables, Tables

Array = np.ndarray
Symbols = dict[str, list[Array]]

# A coefficient within this much of a half is rounded towards zero: the bits it saves are worth more than the error.
DEAD = 0.12
LARGEST = 65_000


def coefficients(features: Features, tables: Tables) -> dict[str, list[Tensor]]:
    """Real-valued bands of every level that `features` holds: lists of 1 K n h w, fine to coarse."""
    bands: dict[str, list[Tensor]] = {}
    for level in tables.levels:
        if level.name not in features.maps:
            continue
        x = features.maps[level.name].float()
        if level.parent:
            x = x - crop(double(features.maps[level.parent].float()), (x.shape[-2], x.shape[-1]))
        bands[level.name] = level_coefficients(x, level)
    return bands


def level_coefficients(x: Tensor, level: LevelTables) -> list[Tensor]:
    """1 C H W to bands 1 K n h w, fine to coarse."""
    centred = x[0].flatten(1) - torch.from_numpy(level.mean)[:, None]
    y = (torch.from_numpy(level.basis).T @ centred).reshape(1, -1, *x.shape[-2:])  # 1 K H W
    return wavelet(pad(y, padded((y.shape[-2], y.shape[-1]), 2**level.depth)), level.depth)


def quantise(bands: Mapping[str, list[Tensor]], tables: Tables, quality: int, dead: float = DEAD) -> Symbols:
    """Bands to integers at `quality` 1 to 8."""
    symbols: Symbols = {}
    for index, level in enumerate(tables.levels):
        if level.name in bands:
            step = float(tables.steps[quality - 1, index])
            symbols[level.name] = [_round(band[0] / step, dead) for band in bands[level.name]]
    return symbols


def _round(y: Tensor, dead: float) -> Array:
    size = (y.abs() + (0.5 - dead)).floor().clamp_max(LARGEST)
    rounded: Array = (size * y.sign()).to(torch.int32).numpy()
    return rounded


def synthesise(symbols: Symbols, tables: Tables, quality: int, size: tuple[int, int]) -> Features:
    """Integers back to feature maps, float32, for a picture (or tile) of padded `size` in pixels."""
    maps: dict[str, Tensor] = {}
    for index, level in enumerate(tables.levels):
        if level.name not in symbols:
            continue
        step, offsets = float(tables.steps[quality - 1, index]), level.offsets[quality - 1]
        bands = [_restore(band, offsets[r], step) for r, band in enumerate(symbols[level.name])]
        y = unwavelet(bands)
        height, width = size[0] // level.stride, size[1] // level.stride
        y = crop(y, (height, width)).flatten(2)[0]  # K H*W
        used = int(np.flatnonzero([any(band[k].any() for band in symbols[level.name]) for k in range(len(y))]).max(initial=-1)) + 1
        x = torch.from_numpy(level.basis[:, :used]) @ y[:used] + torch.from_numpy(level.mean)[:, None]
        x = x.reshape(1, -1, height, width)
        if level.parent:
            x = x + crop(double(maps[level.parent]), (height, width))
        maps[level.name] = x
    return Features(maps)


def _restore(band: Array, offsets: Array, step: float) -> Tensor:
    """K n h w integers to 1 K n h w values: each magnitude a little nearer to zero than its middle."""
    y = torch.from_numpy(band).float()
    size = y.abs()
    below = torch.from_numpy(offsets)[:, :, None, None, None]  # K 3 1 1 1
    shift = torch.where(size == 1, below[:, 0], torch.where(size == 2, below[:, 1], below[:, 2]))
    return ((size - shift).clamp_min(0.0) * y.sign() * step)[None]
