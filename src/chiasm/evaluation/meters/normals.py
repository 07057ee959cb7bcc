"""Surface normals: angles between predicted and true directions (Fouhey et al. 2013).

Mean, median and RMSE in degrees, and the share under 11.25, 22.5 and 30 degrees, over all valid pixels of the set
pooled. The median is read from a histogram of 0.01 degree, so that a set of any size fits in memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.semantics import raised

LIMITS = (11.25, 22.5, 30.0)  # degrees
BIN = 0.01  # degrees
STEEPEST = 180.0


class NormalsMeter:
    """Angles of a set, as sums and a histogram."""

    def __init__(self) -> None:
        self.bins = torch.zeros(round(STEEPEST / BIN), dtype=torch.int64)
        self.sums = torch.zeros(3 + len(LIMITS), dtype=torch.float64)

    def add(self, predicted: Tensor, target: Tensor, valid: Tensor) -> None:
        """One picture. predicted: 1 3 h w, raised bilinearly, then made unit vectors; target: unit vectors 3 x H x W.

        valid: bool H x W. A prediction of length 0 is 90 degrees wrong. Raises ShapeError.
        """
        if predicted.ndim != 4 or predicted.shape[:2] != (1, 3) or target.shape[0] != 3:
            shapes = f"{tuple(predicted.shape)} and {tuple(target.shape)}"
            raise ShapeError(f"normals want 1 3 h w and 3 H W, got {shapes}; score one picture at a time")
        found = raised(predicted, target.shape[-2:])[0][:, valid]
        degrees = angles(found, target[:, valid])
        places = (degrees / BIN).long().clamp_max(len(self.bins) - 1)
        self.bins += torch.bincount(places, minlength=len(self.bins))
        under = [(degrees < limit).sum() for limit in LIMITS]
        count = torch.tensor(float(len(degrees)))
        self.sums += torch.stack([degrees.sum(), degrees.square().sum(), count, *under]).double()

    def scores(self) -> dict[str, float]:
        """All measures; NaN when no pixel is valid."""
        mean, square, *under = (self.sums[[0, 1, 3, 4, 5]] / self.sums[2]).tolist()
        named = {"mean (deg)": mean, "median (deg)": self._median(), "RMSE (deg)": square**0.5}
        return named | {f"under {limit:g} deg": share for limit, share in zip(LIMITS, under, strict=True)}

    def _median(self) -> float:
        """The middle of the bin of the lower middle angle."""
        running = self.bins.cumsum(0)
        if not int(running[-1]):
            return float("nan")
        return (int((2 * running < running[-1]).sum()) + 0.5) * BIN


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between the columns of a and b, 3 x N, of any length: float64 N.

    By atan2 of the cross and the dot product, which is exact for small angles, where arccos is not.
    """
    a, b = (F.normalize(x.double(), dim=0) for x in (a, b))
    cross, dot = torch.linalg.cross(a, b, dim=0).norm(dim=0), (a * b).sum(0)
    return torch.rad2deg(torch.atan2(cross, dot)).where(a.norm(dim=0) > 0, 90.0)
