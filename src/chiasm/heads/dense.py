"""Answers for every place, such as classes, depth, normals and edges, read from stored features by one head.

    context ─┬─► trunk ─┬─► H/8 ─► one map per task ─► exchange (7 x 7 windows) ─┐
    detail  ─┘          └─► H/4 ─► one map per task ◄────────── doubled ─────────┘
       │                              └─► classes, distances, directions at H/4; probabilities at H/2
       └──► probabilities only, H/2

Distances are predicted as logarithms (the shipped head's are in metres for a camera of
`geometry.pinhole.CANONICAL_FOCAL` pixels), directions have length one. The sizes were chosen so that head and encoder
stay below 5 GMACs at 320 x 240.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chiasm.contracts import Features, Space, TaskSpec
from chiasm.errors import ShapeError
from chiasm.features.layout import crop, pad, padded
from chiasm.features.plane import double
from chiasm.heads.exchange import WindowExchange
from chiasm.heads.kinds import KINDS
from chiasm.heads.trunk import COARSE, FINE, Trunk, convolution, standard

OWN = 32  # channels of a task's own map
GRID = 32  # cells of the coarsest map, in pixels


class Branch(nn.Module):
    """One task's map at H/4, from what it heard at H/8 and what is fine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = convolution(FINE, width, 1)
        self.join = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, exchanged: Tensor, fine: Tensor) -> Tensor:
        """B w H/8 W/8 and B 64 H/4 W/4 to B w H/4 W/4."""
        joined: Tensor = self.join(double(exchanged) + self.fine(fine))
        return joined


class PlainLast(nn.Module):
    """One task's answer at H/4, before its kind's `output`."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(width, channels, 1)

    def forward(self, joined: Tensor, detail: Tensor) -> Tensor:
        return exact(self.last, joined)


class FineLast(nn.Module):
    """The same at H/2: what the branch says at H/4, sharpened by `detail`."""

    def __init__(self, detail: int, width: int, channels: int) -> None:
        super().__init__()
        self.near = nn.Sequential(standard(detail), convolution(detail, 16))
        self.last = nn.Sequential(convolution(width + 16, 24), nn.Conv2d(24, channels, 1))

    def forward(self, joined: Tensor, detail: Tensor) -> Tensor:
        inner = self.last[0](torch.cat([double(joined), self.near(detail)], dim=1))
        return exact(self.last[1], inner)


class DenseHead(nn.Module):
    """Features of a space with `context` and `detail` to answers for every place, of one task or several."""

    reads = ("context", "detail")
    margin = None  # everything: the trunk looks at the whole picture

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec], exchange: bool = True) -> None:
        super().__init__()
        self.space, self.tasks = spec.name, tuple(tasks)
        deep, shallow = (spec.level(name).channels for name in self.reads)
        self.trunk = Trunk(deep, shallow)
        self.own = nn.ModuleList([convolution(COARSE, OWN, 1) for _ in self.tasks])
        self.exchange = WindowExchange(len(self.tasks), OWN) if exchange and len(self.tasks) > 1 else None
        self.branches = nn.ModuleList([Branch(OWN) for _ in self.tasks])
        self.drop = nn.Dropout2d(0.1)
        self.last = nn.ModuleList(
            FineLast(shallow, OWN, task.channels) if task.kind == "probability" else PlainLast(OWN, task.channels)
            for task in self.tasks
        )

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2 to task -> B C H/4 W/4, probabilities B C H/2 W/2.

        H and W are any multiples of 4. Answers are as their kinds in `heads.kinds` say. Raises ShapeError when a level
        is missing.
        """
        context, detail, size = whole_cells(features)
        fine, coarse, _ = self.trunk(context, detail)
        own = [layer(coarse) for layer in self.own]
        if self.exchange is not None:
            own = self.exchange(own)
        found = {}
        for task, branch, last, exchanged in zip(self.tasks, self.branches, self.last, own, strict=True):
            answer = last(self.drop(branch(exchanged, fine)), detail)
            stride = 2 if isinstance(last, FineLast) else 4
            found[task.name] = KINDS[task.kind].output(crop(answer, (size[0] // stride, size[1] // stride)))
        return found


def whole_cells(features: Features) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """`context` and `detail` grown to whole cells of the coarsest map, and the size in pixels before that."""
    missing = [name for name in DenseHead.reads if name not in features]
    if missing:
        found = ", ".join(features) or "no level"
        raise ShapeError(f"this head reads level {missing[0]!r}, got {found}; encode the picture with that level")
    context, detail = features["context"], features["detail"]
    size = (4 * context.shape[-2], 4 * context.shape[-1])
    height, width = padded(size, GRID)
    return pad(context, (height // 4, width // 4)), pad(detail, (height // 2, width // 2)), size


def exact(layer: nn.Module, x: Tensor) -> Tensor:
    """A last layer in float32, also under autocast: in bfloat16 depth would come in steps of half a percent."""
    with torch.autocast(x.device.type, enabled=False):
        found: Tensor = layer(x.float())
    return found
