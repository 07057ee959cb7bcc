"""How far features move when the picture is disturbed: the table 1 of arXiv:2509.20481, on a pinned list.

Every distance is relative to the distance between different pictures in the same space and level, so that the
scale and the width of a space cannot help it.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Features
from chiasm.evaluation.baselines.classical import Way, coded, decoded
from chiasm.evaluation.meters.distances import Distance, Encode, distance, mean_distance, relative, spread
from chiasm.evaluation.meters.metrics import unit
from chiasm.evaluation.protocols.pictures import Picture

Disturb = Callable[[Picture], Tensor]  # a picture to float 1 3 H W in [0, 1]


@dataclass(frozen=True)
class Shift:
    """One disturbance of pixels, the same for every space: its noise is drawn from the picture's name."""

    name: str
    disturb: Disturb


@dataclass(frozen=True)
class ShiftScore:
    """shift -> level -> relative distance; mean: over all shifts and levels, each level counting the same."""

    shifts: Mapping[str, Mapping[str, Distance]]
    mean: Distance


def noise(sigma: float) -> Disturb:
    """Gaussian noise of standard deviation sigma / 255, clipped to [0, 1]."""

    def disturb(picture: Picture) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(picture.name.encode()))
        pixels = picture.batch
        return (pixels + sigma / 255 * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)

    return disturb


def blur(sigma: float) -> Disturb:
    """Gaussian blur of `sigma` pixels, cut at 4 sigma, mirrored at the border."""
    radius = round(4 * sigma)
    taps = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    taps = taps / taps.sum()

    def disturb(picture: Picture) -> Tensor:
        padded = F.pad(picture.batch, (radius,) * 4, mode="reflect")
        rows = F.conv2d(padded, taps.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)
        return F.conv2d(rows, taps.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)

    return disturb


def brightness(factor: float) -> Disturb:
    """sRGB values times `factor`, clipped to [0, 1]."""
    return lambda picture: (picture.batch * factor).clamp(0, 1)


def jpeg(quality: int) -> Disturb:
    """A JPEG of that quality, 4:2:0, decoded again."""
    return lambda picture: unit(decoded(coded(picture, Way("JPEG", "4:2:0", (quality,)), quality)))[None]


SHIFTS = (
    Shift("noise 10", noise(10)),
    Shift("noise 25", noise(25)),
    Shift("blur 1", blur(1)),
    Shift("blur 2", blur(2)),
    Shift("brightness -20 %", brightness(0.8)),
    Shift("brightness +20 %", brightness(1.2)),
    Shift("JPEG 50", jpeg(50)),
)


def pixel_space(pixels: Tensor) -> Features:
    """The pixels themselves, as a space of one level."""
    return {"pixels": pixels}


def unshuffled_space(channels: int = 64, seed: int = 0) -> Encode:
    """The pixel-space embedding of the shape of the neural space: nothing learnt, nothing lost.

    context is the 48 values of each 4x4 block, detail the 12 of each 2x2, each turned into `channels` (at
    least 48) by a random matrix with orthonormal columns, which keeps L2 distances as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    bases = {
        level: (torch.linalg.qr(torch.randn(channels, 3 * stride**2, generator=generator))[0], stride)
        for level, stride in (("context", 4), ("detail", 2))
    }

    def encode(pixels: Tensor) -> Features:
        return {
            level: F.conv2d(F.pixel_unshuffle(pixels, stride), basis[:, :, None, None])
            for level, (basis, stride) in bases.items()
        }

    return encode


def shift_score(encode: Encode, pictures: Sequence[Picture], shifts: Sequence[Shift] = SHIFTS) -> ShiftScore:
    """How far one space moves, on at least two pictures whose sides are on its grid."""
    units = spread(encode, pictures)
    gaps: dict[str, dict[str, list[Distance]]] = {shift.name: defaultdict(list) for shift in shifts}
    with torch.no_grad():
        for picture in pictures:
            still = encode(picture.batch)
            for shift in shifts:
                for level, values in encode(shift.disturb(picture)).items():
                    gaps[shift.name][level].append(distance(values, still[level]))
    rows = {name: relative(levels, units) for name, levels in gaps.items()}
    return ShiftScore(rows, mean_distance([item for row in rows.values() for item in row.values()]))
