"""Does a space move with the picture? E(f(x)) against f_s(E(x)), and D(f_s(E(x))) against f(x).

The two readings of arXiv:2509.20481, eq. 3, on held-out pictures and a pinned family of motions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from chiasm.contracts import Features
from chiasm.evaluation.meters.distances import (
    Decode,
    Distance,
    Encode,
    distance,
    mean_distance,
    relative,
    spread,
    stride_of,
)
from chiasm.evaluation.meters.metrics import psnr, quantised, unit
from chiasm.evaluation.meters.motions import MOTIONS, Motion
from chiasm.evaluation.protocols.pictures import Picture

MARGIN = 32  # pixels by which the valid part is eroded: more than the receptive radius of the encoder


@dataclass(frozen=True)
class Drawn:
    """Pixels drawn from moved features against moved pixels: psnr in dB and l1 in [0, 1], over the valid
    part.

    still is the PSNR of drawing E(f(x)) itself: what the decoder gives without any motion in the space.
    """

    psnr: float
    l1: float
    still: float


@dataclass(frozen=True)
class MotionScore:
    """One motion: level -> relative distance of E(f(x)) and f_s(E(x)), 0 = equivariant, 1 = as far as another
    picture."""

    motion: str
    exact: bool
    levels: Mapping[str, Distance]
    drawn: Drawn | None


@dataclass(frozen=True)
class Equivariance:
    """levels: mean over all motions; exact and resampled: over those that copy values, and those that
    interpolate."""

    motions: tuple[MotionScore, ...]
    levels: Mapping[str, Distance]
    exact: Mapping[str, Distance]
    resampled: Mapping[str, Distance]
    margin: int


def moved(features: Features, motion: Motion, height: int) -> Features:
    """f_s of every map of a picture `height` pixels high. Vectors have no place, and stay."""
    return {level: motion(values, stride_of(values, height)) for level, values in features.items()}


def equivariance(
    encode: Encode,
    decode: Decode | None,
    pictures: Sequence[Picture],
    motions: Sequence[Motion] = MOTIONS,
    margin: int = MARGIN,
) -> Equivariance:
    """The score of one space on at least two pictures, whose sides are on the encoder's grid and above 3
    margins."""
    units = spread(encode, pictures)
    gaps: dict[str, dict[str, list[Distance]]] = {motion.name: defaultdict(list) for motion in motions}
    drawn: dict[str, list[Drawn]] = {motion.name: [] for motion in motions}
    with torch.no_grad():
        for picture in pictures:
            pixels, size = picture.batch, (int(picture.pixels.shape[1]), int(picture.pixels.shape[2]))
            still = encode(pixels)
            for motion in motions:
                wanted = motion(pixels)
                there, here = encode(wanted), moved(still, motion, size[0])
                for level, values in there.items():
                    valid = motion.valid(size, stride_of(values, wanted.shape[-2]), margin)
                    gaps[motion.name][level].append(distance(values, here[level], valid))
                if decode is not None:
                    drawn[motion.name].append(
                        _drawn(decode(here), decode(there), wanted, motion.valid(size, 1, margin))
                    )
    scores = tuple(
        MotionScore(motion.name, motion.exact, relative(gaps[motion.name], units), _mean_drawn(drawn[motion.name]))
        for motion in motions
    )
    exact, resampled = ([score for score in scores if score.exact is kind] for kind in (True, False))
    return Equivariance(scores, _mean_levels(scores), _mean_levels(exact), _mean_levels(resampled), margin)


def _drawn(here: Tensor, there: Tensor, wanted: Tensor, valid: Tensor) -> Drawn:
    # the valid pixels as a picture of one row, so that psnr needs no mask
    row, still, truth = (quantised(pixels)[..., valid][..., None, :] for pixels in (here, there, wanted))
    return Drawn(float(psnr(row, truth)), float((unit(row) - unit(truth)).abs().mean()), float(psnr(still, truth)))


def _mean_drawn(drawn: Sequence[Drawn]) -> Drawn | None:
    if not drawn:
        return None
    return Drawn(*(fmean(values) for values in zip(*((item.psnr, item.l1, item.still) for item in drawn), strict=True)))


def _mean_levels(scores: Sequence[MotionScore]) -> dict[str, Distance]:
    if not scores:
        return {}
    return {level: mean_distance([score.levels[level] for score in scores]) for level in scores[0].levels}
