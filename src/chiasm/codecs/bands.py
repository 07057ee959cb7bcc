"""Feature maps to signed integers and back: alignment, closed-form linear transform, wavelet, quantiser.

    level - doubled parent ─► / scale - mean ─► basis^T ─┬─ smooth ones ─► wavelet ─┬─► / step ─► round ─► integers
                                                         └─ the others ─────────────┘

The inverse is exact but for the rounding. The bands of a level are a list, fine to coarse: the components
without a wavelet (K - S) x 1 x H x W, then, if S > 0, `depth` bands of S x 3 x h x w (right, down, both),
then the means S x 1 x h x w, which are held as differences of neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs.tables import LevelTables, Tables
from chiasm.contracts import Features
from chiasm.errors import PacketError
from chiasm.features.layout import crop, pad, padded
from chiasm.features.plane import double, unwavelet, wavelet

Array = np.ndarray
Symbols = dict[str, list[Array]]

# A coefficient this near to a half is rounded towards zero: the bits it saves are worth more than the error
# it makes.
DEAD = 0.12
LARGEST = 65_000


def coefficients(features: Features, tables: Tables) -> dict[str, list[Tensor]]:
    """Real-valued bands of every level that `features` holds: lists of K n h w, fine to coarse."""
    bands: dict[str, list[Tensor]] = {}
    for level in tables.levels:
        if level.name not in features:
            continue
        x = features[level.name].float()
        if level.parent:
            x = x - crop(double(features[level.parent].float()), (x.shape[-2], x.shape[-1]))
        with torch.autocast("cpu", enabled=False):  # bfloat16 products are no transform
            bands[level.name] = split(x, level)
    return bands


def split(x: Tensor, level: LevelTables) -> list[Tensor]:
    """1 C H W to bands K n h w, fine to coarse, with means not yet differenced."""
    height, width = x.shape[-2:]
    analysis = torch.from_numpy(level.basis / level.scale[:, None])
    centred = x[0].flatten(1) - torch.from_numpy(level.scale * level.mean)[:, None]
    y = (analysis.T @ centred).reshape(1, -1, height, width)  # 1 K H W
    rough = y[0, level.smooth :, None]  # K-S 1 H W
    if not level.smooth:
        return [rough]
    whole = pad(y[:, : level.smooth], padded((height, width), 2**level.depth))
    return [rough, *(band[0] for band in wavelet(whole, level.depth))]


def quantise(bands: Mapping[str, list[Tensor]], tables: Tables, quality: int, dead: float = DEAD) -> Symbols:
    """Bands to integers at `quality` 1 to 8."""
    symbols: Symbols = {}
    for index, level in enumerate(tables.levels):
        if level.name in bands:
            step = float(tables.steps[quality - 1, index])
            *finer, last = [band / step for band in bands[level.name]]
            rounded = [_round(band, dead) for band in finer]
            if level.smooth:  # differences of means have twice their range
                rounded.append(differentiated(_round(last, dead, LARGEST // 2)))
            else:
                rounded.append(_round(last, dead))
            symbols[level.name] = rounded
    return symbols


def _round(y: Tensor, dead: float, largest: int = LARGEST) -> Array:
    if not bool(y.sum().isfinite()):
        raise PacketError("features hold values that are not finite; check the encoder's weights and input")
    size = (y.abs() + (0.5 - dead)).floor_().clamp_max_(largest)
    rounded: Array = size.copysign_(y).to(torch.int32).numpy()
    return rounded


def synthesise(symbols: Symbols, tables: Tables, quality: int, size: tuple[int, int]) -> Features:
    """Integers back to feature maps, float32 1 C H/s W/s, for a picture (or tile) of padded `size` in
    pixels."""
    maps: dict[str, Tensor] = {}
    for index, level in enumerate(tables.levels):
        if level.name not in symbols:
            continue
        with torch.autocast("cpu", enabled=False):
            x = _level(symbols[level.name], level, float(tables.steps[quality - 1, index]), quality)
        shape = (size[0] // level.stride, size[1] // level.stride)
        x = x.reshape(1, -1, *shape)
        maps[level.name] = x + crop(double(maps[level.parent]), shape) if level.parent else x
    return maps


def _level(bands: list[Array], level: LevelTables, step: float, quality: int) -> Tensor:
    """Bands of integers to C x H*W values."""
    height, width = bands[0].shape[-2:]
    offsets, basis = level.offsets[quality - 1], torch.from_numpy(level.scale[:, None] * level.basis)
    used = level.smooth + np.flatnonzero(bands[0].any(axis=(1, 2, 3)))
    rough = _restore(bands[0][used - level.smooth], offsets[0, used - level.smooth], step).flatten(1)  # k H*W
    x = torch.addmm(torch.from_numpy(level.scale * level.mean)[:, None], basis[:, used], rough)
    if level.smooth:
        coarse = [*bands[1:-1], integrated(bands[-1])]
        values = [_restore(band, offsets[r + 1, : level.smooth], step)[None] for r, band in enumerate(coarse)]
        smooth = crop(unwavelet(values), (height, width))[0]  # S H W
        x = x + basis[:, : level.smooth] @ smooth.flatten(1)
    return x


def _restore(band: Array, offsets: Array, step: float) -> Tensor:
    """K n h w integers to values: each magnitude a little nearer to zero than its middle. offsets: K 3."""
    y = torch.from_numpy(band).float()
    below = torch.from_numpy(offsets)[:, :, None, None, None]  # K 3 1 1 1
    size = y.abs()
    shift = torch.where(size > 2, below[:, 2], torch.where(size > 1, below[:, 1], below[:, 0]))
    return (size - shift).clamp_min_(0.0).copysign_(y).mul_((y != 0) * step)


def differentiated(x: Array) -> Array:
    """... h w integers to differences from the left neighbour, or from above in the first column."""
    d = x.copy()
    d[..., 1:] -= x[..., :-1]
    d[..., 1:, 0] -= x[..., :-1, 0]
    return d


def integrated(d: Array) -> Array:
    """The exact inverse of `differentiated`."""
    x = d.copy()
    x[..., 0] = np.cumsum(d[..., 0], axis=-1, dtype=np.int32)
    summed: Array = np.cumsum(x, axis=-1, dtype=np.int32)
    return summed


def band_shapes(level: LevelTables, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """K n h w of each band, fine to coarse, for a picture or tile of padded size."""
    height, width = size[0] // level.stride, size[1] // level.stride
    rough = (level.components - level.smooth, 1, height, width)
    if not level.smooth:
        return [rough]
    height, width = padded((height, width), 2**level.depth)
    finer = [(level.smooth, 3, height >> r, width >> r) for r in range(1, level.depth + 1)]
    return [rough, *finer, (level.smooth, 1, height >> level.depth, width >> level.depth)]
