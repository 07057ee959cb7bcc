"""Semantic segmentation: intersection over union of one confusion matrix for the whole set.

The matrix is summed over all pictures before anything is divided, as Cityscapes and NYUv2 tables have it; a mean of
each picture's own score would favour what fills small pictures. A class that neither targets nor predictions have is
left out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.metrics import class_iou, confusion, mean_iou


class SemanticsMeter:
    """Counts of (target, predicted) over a set. classes: their names, id k being the k-th channel."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.counts = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64)

    def add(self, logits: Tensor, target: Tensor, valid: Tensor) -> None:
        """One picture. logits: 1 K h w; target: int64 1 x H x W; valid: bool H x W, false where it is void.

        Logits are raised bilinearly to H x W before the argmax. Raises ShapeError.
        """
        if logits.ndim != 4 or logits.shape[:2] != (1, len(self.classes)):
            raise ShapeError(
                f"semantics wants logits 1 {len(self.classes)} h w, got {tuple(logits.shape)}; select the channels"
            )
        guess = raised(logits, target.shape[-2:]).argmax(1)
        self.counts += confusion(guess[0][valid], target[0][valid], len(self.classes))

    def scores(self) -> dict[str, float]:
        """mIoU and pixel accuracy in [0, 1]; NaN when no pixel is valid."""
        hits, total = self.counts.diagonal().sum(), self.counts.sum()
        return {"mIoU": mean_iou(self.counts), "accuracy": float(hits / total)}

    def iou(self) -> dict[str, float | None]:
        """Class -> intersection over union in [0, 1], None for a class that does not appear."""
        found = class_iou(self.counts).tolist()
        return {name: None if math.isnan(value) else value for name, value in zip(self.classes, found, strict=True)}


def raised(maps: Tensor, size: Sequence[int]) -> Tensor:
    """B C h w to B C H W, bilinearly, corners not aligned: the centre of a cell stays the centre of its pixels."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps.float()
    return F.interpolate(maps.float(), tuple(size), mode="bilinear", align_corners=False)
