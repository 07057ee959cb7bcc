"""Sets with different class lists as one task: every id becomes that of the class of the same name in a joint list.

    NYUv2's 39 and CamVid's 11 ──Joined──► `semantics` of 50        a set may also leave out some of its targets
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from chiasm.contracts import Sample, TaskSpec
from chiasm.datasets.batches import SampleSet
from chiasm.datasets.vocabulary import JOINT as CLASSES
from chiasm.errors import ConfigError

SEMANTICS = TaskSpec("semantics", len(CLASSES), "classes", CLASSES)


@dataclass(frozen=True)
class Joined:
    """`held`, of whose classes `own` are the names by id, with ids of `SEMANTICS`, and targets of `tasks` only."""

    held: SampleSet
    tasks: tuple[str, ...]
    own: Sequence[str] = CLASSES

    def __post_init__(self) -> None:
        unknown = [name for name in self.own if name not in CLASSES]
        if unknown:
            raise ConfigError(f"class {unknown[0]!r} is not in the joint list of {len(CLASSES)}; map it first")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.held.names)

    @property
    def to(self) -> Tensor:
        """own id -> joint id, int64."""
        return torch.tensor([CLASSES.index(name) for name in self.own])

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        sample = self.held[index]
        targets = {task: x for task, x in sample.targets.items() if task in self.tasks}
        if "semantics" in targets:
            targets["semantics"] = self.to[targets["semantics"]]
        return replace(sample, targets=targets, valid={task: sample.valid[task] for task in targets})
