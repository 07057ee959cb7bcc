"""Feature maps to signed integers and back: alignment, closed-form linear transform, wavelet, quantiser.

    level - doubled parent ─► / scale - mean ─► basis^T ─┬─ smooth ones ─► wavelet ─┬─► / step ─► round ─► integers
                                                         └─ the others ─────────────┘

All of it runs on the device of the maps; only the integers come to the CPU. The inverse is exact but for the rounding.
The bands of a level are a list, fine to coarse: the components without a wavelet (K - S) x 1 x H x W, then, if S > 0,
`depth` bands of S x 3 x h x w (right, down, both), then the means S x 1 x h x w, which are held as differences of
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs.tables import LevelTables
from chiasm.contracts import Size
from chiasm.errors import PacketError
from chiasm.features.layout import crop, pad, padded
from chiasm.features.plane import double, unwavelet, wavelet

Array = np.ndarray
Bands = list[Array]  # the integers of one level of one picture, K n h w, fine to coarse


@dataclass(frozen=True)
class Further:
    """Components that one picture has beside those of the tables: unit vectors n x C, float16; integers n 1 h w."""

    directions: Array
    integers: Array


@dataclass(frozen=True)
class Symbols:
    """What a stream holds of one level of one picture, exactly."""

    bands: Bands
    further: Further | None = None


# A coefficient this near to a half is rounded towards zero: the bits it saves are worth more than the error
# it makes.
DEAD = 0.12
LARGEST = 65_000


def coefficients(values: Tensor, level: LevelTables, parent: Tensor | None = None) -> list[Tensor]:
    """Real-valued bands of maps B C H W, on their device: B K n h w, fine to coarse, means not yet differenced.

    parent: the maps B C' H/2 W/2 that a level with a parent is coded on top of.
    """
    return split(components(centred(values, level, parent), level), level)


def centred(values: Tensor, level: LevelTables, parent: Tensor | None = None) -> Tensor:
    """Maps B C H W less what is known of them, parent and mean: B C H W."""
    x = values.detach().float()
    mean = _constant(level.scale * level.mean, x.device)[:, None, None]
    if parent is None:
        return x - mean
    doubled = crop(double(parent.detach().to(x)), (x.shape[-2], x.shape[-1]))
    return torch.sub(x, doubled, out=doubled).sub_(mean)


def components(x: Tensor, level: LevelTables) -> Tensor:
    """Centred maps B C H W to components B K H W."""
    with torch.autocast(x.device.type, enabled=False):  # bfloat16 products are no transform
        analysis = _constant(level.basis / level.scale[:, None], x.device)  # C K
        y = x.new_empty(len(x), level.components, x.shape[-2] * x.shape[-1])
        for each, into in zip(x.flatten(2), y, strict=True):  # one product a picture: the same bits in any batch
            torch.mm(analysis.T, each, out=into)
    return y.reshape(len(x), -1, *x.shape[-2:])


def split(y: Tensor, level: LevelTables) -> list[Tensor]:
    """Components B K H W to bands."""
    rough = y[:, level.smooth :, None]
    if not level.smooth:
        return [rough]
    height, width = y.shape[-2:]
    whole = pad(y[:, : level.smooth], padded((height, width), 2**level.depth))
    return [rough, *wavelet(whole, level.depth)]


def rounded(steps: Sequence[Tensor], level: LevelTables, dead: float = DEAD) -> list[Tensor]:
    """Bands in units of the quantiser's step to int32, of the same shapes, with means differenced.

    Raises PacketError for values that are not finite.
    """
    *finer, last = steps
    if not all(bool(band.sum().isfinite()) for band in steps):
        raise PacketError("features hold values that are not finite; check the encoder's weights and input")
    integers = [_round(band, dead) for band in finer]
    if level.smooth:  # differences of means have twice their range
        return [*integers, differentiated(_round(last, dead, LARGEST // 2))]
    return [*integers, _round(last, dead)]


def _round(y: Tensor, dead: float, largest: int = LARGEST) -> Tensor:
    size = (y.abs() + (0.5 - dead)).floor_().clamp_max_(largest)
    return size.copysign_(y).to(torch.int32)


def synthesise(
    symbols: Symbols, level: LevelTables, quality: int, step: float, parent: Tensor | None, device: torch.device
) -> Tensor:
    """Integers back to a feature map, float32 1 C H W on `device`. parent: as for `coefficients`, of one picture."""
    bands, further = symbols.bands, symbols.further
    height, width = bands[0].shape[-2:]
    offsets, basis = level.offsets[quality - 1], _constant(level.scale[:, None] * level.basis, device)
    with torch.autocast(device.type, enabled=False):
        used = level.smooth + np.flatnonzero(bands[0].any(axis=(1, 2, 3)))
        kept = used - level.smooth
        rough = _restore(bands[0][kept], offsets[0, kept], step, device).flatten(1)  # k H*W
        x = torch.addmm(_constant(level.scale * level.mean, device)[:, None], basis[:, used], rough)
        if level.smooth:
            coarse = [*bands[1:-1], integrated(bands[-1])]
            below = offsets[1:, : level.smooth]
            values = [_restore(*pair, step, device)[None] for pair in zip(coarse, below, strict=True)]
            smooth = crop(unwavelet(values), (height, width))[0]  # S H W
            x.add_(basis[:, : level.smooth] @ smooth.flatten(1))
        if further is not None:
            added = _constant(further.integers[:, 0].astype(np.float32) * step, device).flatten(1)  # n H*W
            x.add_(_constant(level.scale[:, None] * further.directions.T.astype(np.float32), device) @ added)
        x = x.reshape(1, -1, height, width)
        return x if parent is None else x.add_(crop(double(parent.to(x)), (height, width)))


def _restore(band: Array, offsets: Array, step: float, device: torch.device) -> Tensor:
    """K n h w integers to values: each magnitude a little nearer to zero than its middle. offsets: K 3."""
    y = _constant(band, device).float()
    below = _constant(offsets, device)[:, :, None, None, None]  # K 3 1 1 1
    size = y.abs()
    shift = torch.where(size > 2, below[:, 2], torch.where(size > 1, below[:, 1], below[:, 0]))
    return (size - shift).clamp_min_(0.0).copysign_(y).mul_((y != 0) * step)


def differentiated(x: Tensor) -> Tensor:
    """... h w integers to differences from the left neighbour, or from above in the first column."""
    d = x.clone()
    d[..., 1:] -= x[..., :-1]
    d[..., 1:, 0] -= x[..., :-1, 0]
    return d


def integrated(d: Array) -> Array:
    """The exact inverse of `differentiated`."""
    x = d.copy()
    x[..., 0] = np.cumsum(d[..., 0], axis=-1, dtype=np.int32)
    summed: Array = np.cumsum(x, axis=-1, dtype=np.int32)
    return summed


def band_shapes(level: LevelTables, size: Size) -> list[tuple[int, int, int, int]]:
    """K n h w of each band, fine to coarse, for a map of `size` rows and columns."""
    height, width = size
    rough = (level.components - level.smooth, 1, height, width)
    if not level.smooth:
        return [rough]
    height, width = padded((height, width), 2**level.depth)
    finer = [(level.smooth, 3, height >> r, width >> r) for r in range(1, level.depth + 1)]
    return [rough, *finer, (level.smooth, 1, height >> level.depth, width >> level.depth)]


def _constant(x: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(device)
