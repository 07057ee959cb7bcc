"""Boundaries against what people drew: ODS, OIS and AP, as the Berkeley benchmark counts them.

    probability ──► ridges: thin lines, their height kept ──► at each threshold: on or off, thinned once more
                                                                   │ one-to-one, within a few pixels
                              each annotator's map ◄───────────────┘

precision   predicted pixels that have a partner in the map of at least one annotator, of all predicted pixels
recall      pixels of all annotators that have a partner, of all their pixels: what one of five drew counts a fifth
ODS         the best F over thresholds, one threshold for the whole set (linear between thresholds)
OIS         F of the counts of each picture at its own best threshold
AP          mean precision at recall 0, 0.01, ... 1; below the least recall that was measured the precision there,
            above the greatest 0. (The original has nothing below, and so gives 0 to a curve of one point.)

Martin, Fowlkes and Malik 2004; Arbelaez et al. 2011; ridges as in Dollar and Zitnick 2015. What differs from the
original: partners are a matching of maximum cardinality (`partners.py`), there one of minimum cost that prefers a
distant partner to none, so counts agree or are a little higher here. Nearest pairs are made first, which is what cost
would choose, so that annotators meet at the same predicted pixels. And the pixels at the picture's border are not
damped: that belongs to a detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates  # type: ignore[import-untyped]
from torch import Tensor

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.partners import matched

BSDS_REACH = 0.0075  # of the picture's diagonal: how far apart partners may lie
NYU_REACH = 0.011
LEAD = 1.01  # a ridge may be this much lower than its neighbours across: no flat top is lost

Bits = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EdgeScore:
    """ods, ois, ap in [0, 1]; threshold, precision and recall: at ODS; curve: (threshold, recall, precision)."""

    ods: float
    ois: float
    ap: float
    threshold: float
    precision: float
    recall: float
    curve: tuple[tuple[float, float, float], ...]


@dataclass
class EdgeMeter:
    """Counts of a set, picture by picture.

    reach: the greatest distance of partners, as a share of the diagonal. thresholds: how many, evenly inside (0, 1).
    ridges: predictions are raw probabilities; false: they are thin already, or are to be counted as they are, and only
    thresholds act on them.
    """

    reach: float = BSDS_REACH
    thresholds: int = 33
    ridges: bool = True
    counts: list[Ints] = field(default_factory=list)

    @property
    def levels(self) -> Floats:
        """The thresholds, rising."""
        step = 1 / (self.thresholds + 1)
        return np.linspace(step, 1 - step, self.thresholds)

    def add(self, probability: Tensor, annotators: Tensor, valid: Tensor | None = None) -> None:
        """One picture. probability: H x W in [0, 1]; annotators: bool A x H x W, one map or more; valid: bool H x W.

        What lies where `valid` is false is counted neither as drawn nor as predicted. Raises ShapeError.
        """
        if annotators.ndim != 3 or not len(annotators) or probability.shape != annotators.shape[1:]:
            shapes = f"{tuple(probability.shape)} and {tuple(annotators.shape)}"
            raise ShapeError(f"edges want H W and A H W of one size, A >= 1, got {shapes}; raise the prediction first")
        heights = probability.detach().double().cpu().numpy()
        lines = ridges(heights) if self.ridges else heights
        drawn = annotators.bool().cpu().numpy()
        if valid is not None:
            known = valid.bool().cpu().numpy()
            lines, drawn = np.where(known, lines, 0.0), drawn & known
        self.counts.append(_counts(lines, drawn, self.levels, self.reach, self.ridges))

    def score(self) -> EdgeScore:
        """The set's scores; 0 throughout when nobody drew or predicted anything. Raises ShapeError for no picture."""
        if not self.counts:
            raise ShapeError("edges are scored over a picture or more, got none; call add first")
        each = np.stack(self.counts)  # pictures, thresholds, 4
        recall, precision = _rates(each.sum(0))
        best = _between(self.levels, recall, precision)
        chosen = each[np.arange(len(each)), _f(*_rates(each)).argmax(1)].sum(0)
        curve = tuple(zip(self.levels.tolist(), recall.tolist(), precision.tolist(), strict=True))
        return EdgeScore(best[3], float(_f(*_rates(chosen))), _area(recall, precision), *best[:3], curve)

    def scores(self) -> dict[str, float]:
        """ODS, OIS and AP by name; empty when there is no picture."""
        if not self.counts:
            return {}
        found = self.score()
        return {"ODS": found.ods, "OIS": found.ois, "AP": found.ap, "threshold": found.threshold}


def ridges(probability: Floats) -> Floats:
    """Non-maximum suppression across lines: H x W, the height where a ridge runs and 0 beside it.

    The map is smoothed by a triangle of radius 1. Across a line is where the second derivative of a map smoothed by a
    triangle of radius 4 is most negative (the original takes the arc tangent of a quotient, which fails for level
    lines); what is lower than a neighbour at 1 pixel across (bilinear) goes.
    """
    height = _smooth(probability, 1)
    gy, gx = np.gradient(_smooth(height, 4))
    gxy, gxx = np.gradient(gx)
    gyy = np.gradient(gy)[0]
    across = (np.arctan2(2 * gxy, gxx - gyy) + np.pi) / 2  # the eigenvector of the lower eigenvalue
    y, x = np.mgrid[0 : height.shape[0], 0 : height.shape[1]].astype(np.float64)
    kept = height > 0
    for side in (1, -1):
        places = [y + side * np.sin(across), x + side * np.cos(across)]
        kept &= height * LEAD >= map_coordinates(height, places, order=1, mode="nearest")
    return np.where(kept, height, 0.0)


def thinned(mask: Bits) -> Bits:
    """Lines one pixel wide, connected as they were (Guo and Hall 1989, as described by Lam, Lee and Suen 1992).

    mask: bool H x W. Pixels are peeled from alternating sides until none can go.
    """
    canvas = np.pad(mask, 1).astype(np.uint8)
    stride, flat = canvas.shape[1], canvas.reshape(-1)
    steps = np.array([1, 1 - stride, -stride, -1 - stride, -1, stride - 1, stride, stride + 1])  # from east, up first
    powers = (1 << np.arange(8)).astype(np.int64)
    places = np.flatnonzero(flat)
    changed = True
    while changed:
        changed = False
        for goes in _peels():
            away = goes[flat[places[:, None] + steps] @ powers]
            flat[places[away]] = 0
            places = places[~away]
            changed |= bool(away.any())
    return canvas[1:-1, 1:-1].astype(bool)


def human(annotators: Tensor, reach: float = BSDS_REACH) -> Ints:
    """Each annotator scored against all others, summed: matched, drawn by the others; matched, drawn by the one.

    annotators: bool A x H x W, A at least 2. `f_measure` of the sum over pictures is what people reach themselves.
    Raises ShapeError.
    """
    if annotators.ndim != 3 or len(annotators) < 2:
        raise ShapeError(f"leaving one out wants A H W with A >= 2, got {tuple(annotators.shape)}; leave it out")
    maps = annotators.bool().cpu().numpy()
    total = np.zeros(4, dtype=np.int64)
    for index, one in enumerate(maps):
        rest = np.delete(maps, index, 0)
        total += _counts(one.astype(np.float64), rest, np.array([0.5]), reach, False)[0]
    return total


def f_measure(counts: Ints) -> float:
    """Harmonic mean of recall and precision of one row of counts."""
    return float(_f(*_rates(counts)))


def _counts(lines: Floats, drawn: Bits, levels: Floats, reach: float, thin: bool) -> Ints:
    """Thresholds x (matched drawn, drawn, matched predicted, predicted)."""
    places = np.flatnonzero(lines >= levels[0])
    present = lines.reshape(-1)[places, None] >= levels
    if thin:
        for column in range(len(levels)):
            mask = np.zeros(lines.shape, dtype=bool)
            mask.reshape(-1)[places[present[:, column]]] = True
            present[:, column] = thinned(mask).reshape(-1)[places]
    table, annotator = _neighbours(lines.shape, places, drawn, reach * math.hypot(*lines.shape))
    has, hit = matched(table, annotator, present)
    everyone = np.full(len(levels), drawn.sum())
    return np.stack([has.sum(0), everyone, hit.any(0).sum(0), present.sum(0)], 1)


def _neighbours(shape: tuple[int, ...], places: Ints, drawn: Bits, reach: float) -> tuple[Ints, Ints]:
    """Drawn pixels of all annotators x offsets, nearest first: the candidate there, or -1; and whose each pixel is.

    Pixels without a candidate are left out.
    """
    edge = int(reach)
    numbers = np.full((shape[0] + 2 * edge, shape[1] + 2 * edge), -1, dtype=np.int64)
    inner = numbers[edge : edge + shape[0], edge : edge + shape[1]]
    inner[np.unravel_index(places, shape)] = np.arange(len(places))
    offsets = _disc(reach)
    steps = offsets[:, 0] * numbers.shape[1] + offsets[:, 1]
    annotator, y, x = np.nonzero(drawn)
    table = numbers.reshape(-1)[((y + edge) * numbers.shape[1] + x + edge)[:, None] + steps]
    some = (table >= 0).any(1)
    return table[some], annotator[some]


@cache
def _disc(reach: float) -> Ints:
    """Offsets (y, x) of at most `reach` pixels, nearest first."""
    edge = int(reach)
    y, x = (axis.reshape(-1) for axis in np.mgrid[-edge : edge + 1, -edge : edge + 1])
    away = np.hypot(y, x)
    order = np.argsort(away, kind="stable")[: int((away <= reach).sum())]
    return np.stack([y[order], x[order]], 1)


@cache
def _peels() -> tuple[Bits, Bits]:
    """By the neighbourhood as a number, bit k being x_(k+1) counted from east, up first: does the pixel go?"""
    x = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1  # neighbourhoods, 8
    x1, x2, x3, x4, x5, x6, x7, x8 = x.T
    odd, even, after = x[:, 0::2], x[:, 1::2], np.roll(x[:, 0::2], -1, axis=1)
    once = (~odd & (even | after)).sum(1) == 1
    few = np.minimum((odd | even).sum(1), (even | after).sum(1))
    removable = once & (few >= 2) & (few <= 3)
    return removable & ~((x2 | x3 | ~x8) & x1), removable & ~((x6 | x7 | ~x4) & x5)


def _smooth(values: Floats, radius: int) -> Floats:
    """A separable triangle filter of this radius, the border repeated."""
    kernel = torch.cat([torch.arange(1, radius + 2), torch.arange(radius, 0, -1)]).double() / (radius + 1) ** 2
    held = F.pad(torch.from_numpy(values)[None, None], (radius,) * 4, mode="replicate")
    held = F.conv2d(F.conv2d(held, kernel[None, None, None]), kernel[None, None, :, None])
    found: Floats = held[0, 0].numpy()
    return found


def _rates(counts: Ints) -> tuple[Floats, Floats]:
    """Recall and precision of ... x 4 counts; 0 where nothing was drawn or predicted."""
    recall, precision = (counts[..., k] / np.maximum(counts[..., k + 1], 1) for k in (0, 2))
    return recall, precision


def _f(recall: Floats, precision: Floats) -> Floats:
    total = recall + precision
    found: Floats = 2 * recall * precision / np.where(total > 0, total, 1.0)
    return found


def _between(levels: Floats, recall: Floats, precision: Floats) -> tuple[float, float, float, float]:
    """Threshold, precision, recall and F where F is best, all linear between neighbouring thresholds."""
    spots = np.linspace(0, len(levels) - 1, 100 * (len(levels) - 1) + 1)
    t, r, p = (np.interp(spots, np.arange(len(levels)), values) for values in (levels, recall, precision))
    best = int(_f(r, p).argmax())
    return float(t[best]), float(p[best]), float(r[best]), float(_f(r, p)[best])


def _area(recall: Floats, precision: Floats) -> float:
    """Average precision of the points that predicted anything."""
    some = (recall > 0) | (precision > 0)
    if not some.any():
        return 0.0
    at, first = np.unique(recall[some][::-1], return_index=True)  # of equal recalls, that of the highest threshold
    return float(np.interp(np.linspace(0, 1, 101), at, precision[some][::-1][first], right=0.0).mean())
