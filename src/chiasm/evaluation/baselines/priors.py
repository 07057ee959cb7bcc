"""The best that can be said of a picture without looking at it: what a head must beat.

constant         one answer for every pixel: the most frequent class; the mean depth, which has the least RMSE; the
                 direction of the mean normal; everything an edge
constant median  depth only: the median, which has the least mean error
position prior   an answer for each place, the same for every picture: frequencies of classes, mean depth, mean normal,
                 share of edges, over cells of a 60th of the height and an 80th of the width
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Sample
from chiasm.errors import ShapeError

CELLS = (60, 80)
CONSTANT, MEDIAN, POSITION = "constant", "constant median", "position prior"
DEPTH_BINS, DEEPEST = 10000, 100.0  # of the histogram that gives the median: steps of 1 cm
SURE = 10.0  # logit
LEAST = 1e-4  # probability

Predict = Callable[[Tensor], Mapping[str, Tensor]]  # 1 3 H W in [0, 1] -> task -> 1 C h w


@dataclass
class _Sums:
    """Of one task: values times valid, and valid, each on the cells; C x 60 x 80 and 60 x 80."""

    values: Tensor
    counts: Tensor

    def means(self) -> Tensor:
        """1 C 60 80; where nothing was ever valid, the mean of all."""
        known = self.counts > 0
        everywhere = self.values.sum((1, 2)) / self.counts.sum()
        return torch.where(known, self.values / self.counts.clamp_min(1e-12), everywhere[:, None, None])[None].float()

    def mean(self) -> Tensor:
        """1 C 1 1."""
        return (self.values.sum((1, 2)) / self.counts.sum())[None, :, None, None].float()


def priors(samples: Iterable[Sample], tasks: Sequence[str], classes: int = 0) -> dict[str, Predict]:
    """The predictors that know only these (training) samples, by the names above.

    tasks: among semantics (of `classes` classes), depth, normals, edges. Raises ShapeError when no sample has a valid
    target of a task.
    """
    sums: dict[str, _Sums] = {}
    depths = torch.zeros(DEPTH_BINS)
    for sample in samples:
        for task in tasks:
            target, valid = sample.targets[task], sample.valid[task]
            if task == "depth":
                depths += torch.histc(target[0][valid], DEPTH_BINS, 0, DEEPEST)
            if task == "semantics":
                target = F.one_hot(target[0], classes).permute(2, 0, 1)
            _add(sums, task, target.float(), valid.float())
    empty = [task for task in tasks if task not in sums or not float(sums[task].counts.sum())]
    if empty:
        raise ShapeError(f"a prior needs training samples with {empty[0]}, got none that is valid; pass the train part")
    return _predictors(sums, depths)


def _add(sums: dict[str, _Sums], task: str, target: Tensor, valid: Tensor) -> None:
    values = F.adaptive_avg_pool2d(target * valid, CELLS).double()
    counts = F.adaptive_avg_pool2d(valid[None], CELLS)[0].double()
    if task not in sums:
        sums[task] = _Sums(torch.zeros_like(values), torch.zeros_like(counts))
    sums[task].values += values
    sums[task].counts += counts


def _predictors(sums: Mapping[str, _Sums], depths: Tensor) -> dict[str, Predict]:
    constant = {task: held.mean() for task, held in sums.items()}
    position = {task: held.means() for task, held in sums.items()}
    if "edges" in sums:
        constant["edges"] = torch.full((1, 1, 1, 1), SURE)
        shares = position["edges"] / position["edges"].max().clamp_min(LEAST)  # thresholds act on order alone
        position["edges"] = shares.clamp(LEAST, 1 - LEAST).logit()
    found = {CONSTANT: _always(constant), POSITION: _always(position)}
    if "depth" in sums:
        middle = int((2 * depths.cumsum(0) < depths.sum()).sum())
        found[MEDIAN] = _always({"depth": torch.full((1, 1, 1, 1), (middle + 0.5) * DEEPEST / DEPTH_BINS)})
    return found


def _always(maps: Mapping[str, Tensor]) -> Predict:
    return lambda pixels: maps
