"""What an answer is: one row for each kind, read by everything that treats answers by their kind.

    last layer ──output──► answer B C h w ──raised to the picture──► values ──► file, rendering
                                └──────────── loss, meter ◄── reduced and mirrored labels

The name of a task decides nothing. Losses live in `training.terms`, meters in `training.recipes.head`, renderings and
files in `cli.answers`; each holds a table by the names below, and a law checks that every name is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import AnswerKind

NEAR, FAR = 0.05, 500.0  # distances are kept between, in metres where they are metres
TYPICAL = 2.5  # the distance of an output of 0
LENGTH = 1e-6  # of a direction, at least, before it is divided by

Reduction = Literal["middle", "mean", "largest"]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """How answers of one kind are treated.

    whole: one answer for the picture, B C, instead of one for every place, B C h w. output: what a last layer gives,
    float32 B C ..., to what a head answers. values: an answer at the size of the picture, C H W (or C), to what is
    written. reduction: what of the labels in a cell stands for it when labels are shrunk. mirror: factors of the
    channels when left and right are swapped; none for all 1. score: the name of the meter's number.
    """

    whole: bool
    output: Change
    values: Change
    reduction: Reduction
    mirror: tuple[float, ...]
    loss: str
    meter: str
    score: str
    rendering: str
    file: str


def unchanged(x: Tensor) -> Tensor:
    return x


def positive(x: Tensor) -> Tensor:
    """Logarithms of distances, relative to a typical one, to distances."""
    return (TYPICAL * x.clamp(-6.0, 6.0).exp()).clamp(NEAR, FAR)


def directed(x: Tensor) -> Tensor:
    """B 3 ... to length one."""
    return F.normalize(x, dim=1, eps=LENGTH)


def largest(x: Tensor) -> Tensor:
    """C ... to the channel that is largest, the first of equals: int64 ..."""
    return x.argmax(0)


def straightened(x: Tensor) -> Tensor:
    """Interpolated unit vectors 3 ... to length one again."""
    return x / x.square().sum(0).sqrt_().clamp_min_(1e-12)


def eight_bits(x: Tensor) -> Tensor:
    """[0, 1] to uint8."""
    return x.clamp(0, 1).mul_(255.0).round_().to(torch.uint8)


def shares(x: Tensor) -> Tensor:
    """Logits C to probabilities C that sum to 1."""
    return x.softmax(0)


KINDS: Mapping[AnswerKind, Rule] = {
    "classes": Rule(
        False, unchanged, largest, "middle", (), "class_entropy", "overlap", "miou", "palette", "palette"
    ),
    "distance": Rule(False, positive, unchanged, "mean", (), "log_distance", "distance", "rmse", "heat", "counts"),
    "direction": Rule(
        False, directed, straightened, "mean", (-1.0, 1.0, 1.0), "cosine", "angle", "angle", "signed", "signed"
    ),
    "probability": Rule(
        False, unchanged, torch.sigmoid, "largest", (), "rare_entropy", "entropy", "cross_entropy", "grey", "grey"
    ),
    "picture": Rule(False, unchanged, eight_bits, "mean", (), "absolute", "psnr", "psnr", "picture", "picture"),
    "label": Rule(True, unchanged, shares, "middle", (), "label_entropy", "accuracy", "accuracy", "", "table"),
    "vector": Rule(True, unchanged, unchanged, "mean", (), "squared", "distance", "rmse", "", "array"),
}


def mirrored(kind: AnswerKind, x: Tensor) -> Tensor:
    """An answer or label B C h w with left and right swapped."""
    swapped = x.flip(-1)
    factors = KINDS[kind].mirror
    return swapped * swapped.new_tensor(factors).view(1, -1, 1, 1) if factors else swapped
