"""How far two sets of features are apart, in units of how far two different pictures are apart.

An absolute distance rewards small features; divided by the mean distance between different pictures it does
not, and spaces of other scale and width can be compared: 0 is the same, 1 is as far as another picture. L1 is
the primary measure, as in the paper's table 1; L2 stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from chiasm.contracts import Features
from chiasm.errors import ShapeError
from chiasm.evaluation.protocols.pictures import Picture

Encode = Callable[[Tensor], Features]  # float B 3 H W in [0, 1] to features
Decode = Callable[[Features], Tensor]  # features to float B 3 H W, also when only the coarse level is there

CENTRE = 256  # pixels: edge of the central square in which pictures are compared with each other


@dataclass(frozen=True)
class Distance:
    """l1: mean |a - b| over positions and channels; l2: mean over positions of the channels' root mean
    square."""

    l1: float
    l2: float

    def over(self, unit: Distance) -> Distance:
        """This distance in units of another one. Raises ShapeError when the unit is 0."""
        if min(unit.l1, unit.l2) <= 0:
            raise ShapeError(
                "different pictures must have different features, and all are alike: is the encoder constant?"
            )
        return Distance(self.l1 / unit.l1, self.l2 / unit.l2)


def distance(a: Tensor, b: Tensor, valid: Tensor | None = None) -> Distance:
    """a, b: B C h w; valid: bool h w, the positions that count. Raises ShapeError when none does, or shapes
    differ."""
    if a.shape != b.shape:
        raise ShapeError(f"both maps must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}; check the stride")
    gap = (a - b).double()
    l1, l2 = gap.abs().mean(1), gap.square().mean(1).sqrt()  # B h w
    if valid is not None:
        if not bool(valid.any()):
            raise ShapeError(
                f"no position of a {tuple(valid.shape)} map is valid; use larger pictures or a smaller margin"
            )
        l1, l2 = l1[:, valid], l2[:, valid]
    return Distance(float(l1.mean()), float(l2.mean()))


def mean_distance(distances: Sequence[Distance]) -> Distance:
    """Plain mean of both measures."""
    count = len(distances)
    return Distance(sum(item.l1 for item in distances) / count, sum(item.l2 for item in distances) / count)


def stride_of(maps: Tensor, height: int) -> int:
    """Pixels per cell of a map of a picture `height` pixels high; ShapeError when that is not whole."""
    stride, rest = divmod(height, maps.shape[-2])
    if rest:
        raise ShapeError(f"{height} pixels must be a multiple of {maps.shape[-2]} cells; crop the picture to the grid")
    return stride


def spread(encode: Encode, pictures: Sequence[Picture]) -> dict[str, Distance]:
    """Level -> mean distance between two different pictures, over all pairs, at the same positions.

    Each picture is seen through its central square of 256 pixels (less when one picture is smaller, in steps
    of 16). Raises ShapeError for fewer than two pictures, or one that is smaller than 16 pixels.
    """
    if len(pictures) < 2:
        raise ShapeError(
            f"a distance between different pictures needs at least 2 of them, got {len(pictures)}; add some"
        )
    side = min([CENTRE, *(min(picture.pixels.shape[1:]) for picture in pictures)]) // 16 * 16
    if not side:
        small = min(pictures, key=lambda picture: min(picture.pixels.shape[1:]))
        height, width = small.pixels.shape[1:]
        raise ShapeError(f"expected pictures of at least 16 x 16 pixels, got {small.name!r} of {height} x {width}")
    with torch.no_grad():
        seen = [encode(_centre(picture.batch, side)) for picture in pictures]
    return {level: mean_distance([distance(a[level], b[level]) for a, b in combinations(seen, 2)]) for level in seen[0]}


def relative(gaps: Mapping[str, Sequence[Distance]], units: Mapping[str, Distance]) -> dict[str, Distance]:
    """Level -> mean of its gaps over the pictures, divided by the level's unit."""
    return {level: mean_distance(found).over(units[level]) for level, found in gaps.items()}


def _centre(pixels: Tensor, side: int) -> Tensor:
    top, left = ((size - side) // 2 for size in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]
