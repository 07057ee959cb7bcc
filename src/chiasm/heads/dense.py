"""Classes, depth, normals and edges of every place, read from stored features by one head (or any subset of them).

    context ─┬─► trunk ─┬─► H/8 ─► one map per task ─► exchange (7 x 7 windows) ─┐
    detail  ─┘          └─► H/4 ─► one map per task ◄────────── doubled ─────────┘
       │                              └─► semantics, depth, normals at H/4; edges at H/2
       └──► edges only, H/2

Depth is in metres for a camera of `geometry.pinhole.CANONICAL_FOCAL` pixels; it is predicted as
a logarithm. Normals have length one. The sizes were chosen so that head and encoder stay below 5 GMACs at 320 x 240.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, Space, TaskSpec
from chiasm.errors import ShapeError
from chiasm.features.layout import crop, pad, padded
from chiasm.features.plane import double
from chiasm.heads.exchange import WindowExchange
from chiasm.heads.trunk import COARSE, FINE, Trunk, convolution, standard

OWN = 32  # channels of a task's own map
GRID = 32  # cells of the coarsest map, in pixels
NEAR, FAR = 0.05, 500.0  # metres that depth is kept between
TYPICAL = 2.5  # metres: where depth starts
LENGTH = 1e-6


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


class EdgeLast(nn.Module):
    """Edges at H/2: what the branch says at H/4, sharpened by `detail`."""

    def __init__(self, detail: int, width: int) -> None:
        super().__init__()
        self.near = nn.Sequential(standard(detail), convolution(detail, 16))
        self.last = nn.Sequential(convolution(width + 16, 24), nn.Conv2d(24, 1, 1))

    def forward(self, joined: Tensor, detail: Tensor) -> Tensor:
        inner = self.last[0](torch.cat([double(joined), self.near(detail)], dim=1))
        return exact(self.last[1], inner)


class DenseHead(nn.Module):
    """Features of a space with `context` and `detail` to the answers of some of semantics, depth, normals, edges."""

    reads = ("context", "detail")
    margin = None  # everything: the trunk looks at the whole picture

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec], exchange: bool = True) -> None:
        super().__init__()
        self.space, self.tasks = spec.name, tuple(tasks)
        deep, shallow = (spec.level(name).channels for name in self.reads)
        self.trunk = Trunk(deep, shallow)
        names = [task.name for task in self.tasks]
        self.own = nn.ModuleDict({name: convolution(COARSE, OWN, 1) for name in names})
        self.exchange = WindowExchange(len(names), OWN) if exchange and len(names) > 1 else None
        self.branches = nn.ModuleDict({name: Branch(OWN) for name in names})
        self.drop = nn.Dropout2d(0.1)
        last = {task.name: nn.Conv2d(OWN, task.channels, 1) for task in self.tasks if task.name != "edges"}
        self.last = nn.ModuleDict(last)
        self.edges = EdgeLast(shallow, OWN) if "edges" in names else None

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2 to task -> B C H/4 W/4, edges B 1 H/2 W/2.

        H and W are any multiples of 4. semantics, edges: logits. depth: canonical metres. normals: unit vectors.
        Raises ShapeError when a level is missing.
        """
        context, detail, size = whole_cells(features)
        fine, coarse, _ = self.trunk(context, detail)
        own = [layer(coarse) for layer in self.own.values()]
        if self.exchange is not None:
            own = self.exchange(own)
        found = {}
        for (name, branch), heard in zip(self.branches.items(), own, strict=True):
            joined = self.drop(branch(heard, fine))
            if self.edges is not None and name == "edges":
                found[name] = crop(self.edges(joined, detail), (size[0] // 2, size[1] // 2))
            else:
                found[name] = finished(name, crop(exact(self.last[name], joined), (size[0] // 4, size[1] // 4)))
        return found


class ClassifyHead(nn.Module):
    """Features of a space to what the whole picture is: `classes` B K, logits."""

    reads = ("context", "detail")
    margin = None

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.space, self.tasks = spec.name, tuple(tasks)
        deep, shallow = (spec.level(name).channels for name in self.reads)
        self.trunk = Trunk(deep, shallow)
        self.last = nn.Linear(2 * COARSE, self.tasks[0].channels)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` and `detail`, of any size, to `classes` B K."""
        context, detail, _ = whole_cells(features)
        _, coarse, whole = self.trunk(context, detail)
        return {self.tasks[0].name: exact(self.last, torch.cat([whole, coarse.mean(dim=(2, 3))], dim=1))}


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


def finished(task: str, answer: Tensor) -> Tensor:
    """What the last convolution says, in the unit of its task."""
    if task == "depth":
        return (TYPICAL * answer.clamp(-6.0, 6.0).exp()).clamp(NEAR, FAR)
    if task == "normals":
        return F.normalize(answer, dim=1, eps=LENGTH)
    return answer
