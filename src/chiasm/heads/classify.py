"""What the whole picture is, read from stored features: the trunk of `heads.dense`, averaged, and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chiasm.contracts import Features, Space, TaskSpec
from chiasm.heads.dense import exact, whole_cells
from chiasm.heads.trunk import COARSE, Trunk


class ClassifyHead(nn.Module):
    """Features of a space to what the whole picture is: logits B K."""

    reads = ("context", "detail")
    margin = None

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.space, self.tasks = spec.name, tuple(tasks)
        deep, shallow = (spec.level(name).channels for name in self.reads)
        self.trunk = Trunk(deep, shallow)
        self.last = nn.Linear(2 * COARSE, self.tasks[0].channels)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` and `detail`, of any size, to task -> logits B K."""
        context, detail, _ = whole_cells(features)
        _, coarse, whole = self.trunk(context, detail)
        return {self.tasks[0].name: exact(self.last, torch.cat([whole, coarse.mean(dim=(2, 3))], dim=1))}
