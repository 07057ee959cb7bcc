"""Depth in metres, and depth up to scale and shift.

Metres (Eigen et al. 2014), over all valid pixels of the set pooled; p predicted, t true, p clipped to the range:

    RMSE = sqrt mean (p - t)^2      AbsRel = mean |p - t| / t      SqRel = mean (p - t)^2 / t
    log10 = mean |log10 p - log10 t|      delta n = share with max(p / t, t / p) < 1.25^n

Some papers take the RMSE of each picture and then the mean of these, which is smaller; it stands beside.

Up to scale and shift (Ranftl et al. 2020, MiDaS): of each picture the predicted inverse depth x is aligned to the true
disparity d by least squares, min over a, b of sum (a x + b - d)^2, in closed form; then AbsRel = mean |ax + b - d| / d,
RMSE in pixels of disparity, delta with ax + b raised to at least a hundredth of the greatest d. Mean of the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from torch import Tensor

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.semantics import raised

METRES = (1e-3, 10.0)  # the range of NYUv2, to which predictions are clipped
RATIO = 1.25
FLOOR = 0.01  # of a picture's greatest disparity: the least an aligned one may be in a ratio


@dataclass
class DepthMeter:
    """Errors of a set in metres. nearest, farthest: the range to which predictions are clipped."""

    nearest: float = METRES[0]
    farthest: float = METRES[1]
    sums: Tensor = field(default_factory=lambda: torch.zeros(8, dtype=torch.float64))
    each: list[float] = field(default_factory=list)  # RMSE of each picture

    def add(self, predicted: Tensor, target: Tensor, valid: Tensor) -> None:
        """One picture. predicted: 1 1 h w, raised bilinearly; target: 1 x H x W, both metres; valid: bool H x W.

        A picture without a valid pixel is passed over. Raises ShapeError for a valid depth that is not positive.
        """
        p, t = _pair(predicted, target, valid)
        if not len(t):
            return
        p = p.clamp(self.nearest, self.farthest)
        gap, ratio = p - t, torch.maximum(p / t, t / p)
        log = (p / t).log10().abs()
        within = [(ratio < RATIO**n).double() for n in (1, 2, 3)]
        values = torch.stack([gap.square(), gap.abs() / t, gap.square() / t, log, *within, torch.ones_like(t)])
        self.sums += values.sum(1)
        self.each.append(float(gap.square().mean().sqrt()))

    def scores(self) -> dict[str, float]:
        """All measures; NaN when no pixel is valid."""
        square, absolute, relative, log, *within = (self.sums[:7] / self.sums[7]).tolist()
        named = {"RMSE (m)": square**0.5, "AbsRel": absolute, "SqRel (m)": relative, "log10": log}
        named |= {f"delta {n}": share for n, share in enumerate(within, 1)}
        return named | {"RMSE, mean of pictures (m)": fmean(self.each) if self.each else float("nan")}


@dataclass
class DisparityMeter:
    """Errors of a set against disparity in pixels, each picture aligned by its best scale and shift."""

    nearest: float = METRES[0]
    each: list[dict[str, float]] = field(default_factory=list)

    def add(self, predicted: Tensor, target: Tensor, valid: Tensor) -> None:
        """One picture. predicted: 1 1 h w depth, metres or any unit; target: 1 x H x W disparity in pixels, > 0.

        The depth is raised bilinearly, clipped to at least `nearest`, and inverted. Raises as DepthMeter does.
        """
        p, d = _pair(predicted, target, valid)
        if len(d):
            self.each.append(disparity_errors(1 / p.clamp_min(self.nearest), d))

    def scores(self) -> dict[str, float]:
        """Mean of the pictures; empty when there is none."""
        names = self.each[0] if self.each else {}
        return {name: fmean(one[name] for one in self.each) for name in names}


def aligned(x: Tensor, d: Tensor) -> Tensor:
    """a x + b of least squares to d; both float64 N. A constant x gives the mean of d."""
    centred = x - x.mean()
    power = centred.square().mean()
    flat = power <= 1e-24 + 1e-12 * x.mean().square()  # rounding alone
    scale = torch.zeros_like(power) if flat else (centred * (d - d.mean())).mean() / power
    return scale * centred + d.mean()


def disparity_errors(x: Tensor, d: Tensor) -> dict[str, float]:
    """The measures of one picture: inverse depth x and true disparity d, float64 N, d > 0.

    Spearman's rank correlation is 0 for a constant, which orders nothing.
    """
    found = aligned(x, d)
    gap = found - d
    floored = found.clamp_min(float(FLOOR * d.max()))
    ratio = torch.maximum(floored / d, d / floored)
    varied = float(x.max()) > float(x.min()) and float(d.max()) > float(d.min())
    rank = float(spearmanr(x.numpy(), d.numpy()).statistic) if varied else 0.0
    named = {"AbsRel, aligned": gap.abs().div(d).mean(), "RMSE, aligned (px)": gap.square().mean().sqrt()}
    named |= {f"delta {n}, aligned": (ratio < RATIO**n).double().mean() for n in (1, 2, 3)}
    return {name: float(value) for name, value in named.items()} | {"Spearman": float(np.nan_to_num(rank))}


def _pair(predicted: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The valid values of both, float64."""
    if predicted.ndim != 4 or predicted.shape[:2] != (1, 1) or target.shape[0] != 1:
        shapes = f"{tuple(predicted.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"depth wants 1 1 h w and 1 H W, got {shapes}; score one picture at a time")
    truth = target[0][valid].double()
    if len(truth) and float(truth.min()) <= 0:
        raise ShapeError(f"a valid depth is above 0, got {float(truth.min()):g}; mark it invalid")
    return raised(predicted, target.shape[-2:])[0, 0][valid].double(), truth
