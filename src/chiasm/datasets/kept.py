"""A set whose samples are costly to make, each made once and then held in memory, some 15 bytes a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from chiasm.contracts import Frame, Sample
from chiasm.datasets.batches import SampleSet

HALF = ("normals",)  # targets that half precision holds well enough


@dataclass(frozen=True)
class Kept:
    """`held`, remembered: pixels to 8 bits, normals to half precision, ids to 16 bits, the rest as it is."""

    held: SampleSet
    made: dict[int, Sample] = field(default_factory=dict, repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.held.tasks

    @property
    def names(self) -> tuple[str, ...]:
        return self.held.names

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        if index not in self.made:
            sample = self.held[index]
            pixels = sample.frame.pixels.mul(255.0).round().to(torch.uint8)
            self.made[index] = replace(sample, frame=Frame(pixels), targets=_small(sample.targets))
        sample = self.made[index]
        targets = {task: x.long() if x.dtype == torch.int16 else x.float() for task, x in sample.targets.items()}
        return replace(sample, frame=Frame(sample.frame.pixels.float() / 255.0), targets=targets)


def _small(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The targets as they are held."""
    found = {}
    for task, x in targets.items():
        if x.dtype == torch.int64 and x.ndim:
            found[task] = x.to(torch.int16)
        else:
            found[task] = x.half() if task in HALF else x
    return found
