"""Classes, depth, normals and edges of every place, read from stored features by one head (or any subset of them).

    context ─┬─ stem ─► H/4 ──► H/8 ──► H/16 ──► H/32 ─► + what the whole picture is
    detail  ─┘           │        │        │        │
       │                fuse ◄── fuse ◄── fuse ◄────┘        top-down sums, as in a feature pyramid
       │                 │        │
       │                 │        └─► one map per task ─► exchange (7 x 7 windows) ─┐
       │                 └──────────► one map per task ◄────────── doubled ─────────┘
       └──► edges only, H/2                  └─► semantics, depth, normals at H/4; edges at H/2

The space holds what the picture looks like within some 24 pixels; what things are takes far more around them, so the
trunk goes down to H/32. Depth is in metres for a camera of `camera.geometry.CANONICAL_FOCAL` pixels; it is predicted as
a logarithm. Normals have length one. The sizes were chosen so that head and encoder stay below 5 GMACs at 320 x 240.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from chiasm.contracts import Features, FeatureSpec, TaskSpec
from chiasm.errors import ShapeError
from chiasm.features.layout import crop, pad, padded
from chiasm.features.plane import double
from chiasm.tasks.exchange import WindowExchange

SCALE = 0.1  # features are about ten times as large as what convolutions want
WIDTHS = (48, 96, 160, 192)
DEPTHS = (1, 2, 3, 2)
M = TypeVar("M", bound=nn.Module)
OWN = 32  # channels of a task's own map
GRID = 32  # cells of the coarsest map, in pixels
NEAR, FAR = 0.05, 500.0  # metres that depth is kept between
TYPICAL = 2.5  # metres: where depth starts
LENGTH = 1e-6


def convolution(inputs: int, outputs: int, edge: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU; a stride of 2 halves even sizes."""
    layer = nn.Conv2d(inputs, outputs, edge, stride, (edge - 1) // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def folded(module: M) -> M:
    """A copy for inference whose BatchNorms have become part of the convolutions before them."""
    copied = copy.deepcopy(module).eval()
    for part in list(copied.modules()):
        if isinstance(part, Block) and isinstance(part.norm, nn.BatchNorm2d):
            part.second, part.norm = fuse_conv_bn_eval(part.second, part.norm), nn.Identity()
        elif isinstance(part, nn.Sequential) and len(part) > 1 and isinstance(part[1], nn.BatchNorm2d):
            assert isinstance(part[0], nn.Conv2d)
            part[0], part[1] = fuse_conv_bn_eval(part[0], part[1]), nn.Identity()
    return copied.requires_grad_(False)


class Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))): two 3x3 convolutions at one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)
        self.norm: nn.Module = norm  # until it is folded

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class Trunk(nn.Module):
    """Maps at H/4, H/8, H/16 and H/32 from `context` and `detail`, and their top-down sums."""

    def __init__(self, context: int, detail: int) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.deep = convolution(context, 2 * first // 3, 1)
        self.shallow = convolution(detail, first - 2 * first // 3 + 16, 3, 2)
        self.stem = convolution(first + 16, first, 1)
        stages = []
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            down = [convolution(WIDTHS[index - 1], width, 3, 2)] if index else []
            stages.append(nn.Sequential(*down, *(Block(width) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.whole = nn.Sequential(nn.Linear(WIDTHS[-1], WIDTHS[-1]), nn.ReLU(), nn.Linear(WIDTHS[-1], WIDTHS[-1]))
        self.down = nn.ModuleList([convolution(WIDTHS[-1], WIDTHS[1], 1), convolution(WIDTHS[1], WIDTHS[1], 3)])
        self.across = nn.ModuleList([nn.Conv2d(width, WIDTHS[1], 1) for width in WIDTHS[1:3]])
        self.smooth = convolution(WIDTHS[1], WIDTHS[1])

    def forward(self, context: Tensor, detail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B C H/4 W/4 and B C H/2 W/2 to B 48 H/4 W/4, B 96 H/8 W/8 and the whole picture's B 192."""
        x = self.stem(torch.cat([self.deep(SCALE * context), self.shallow(SCALE * detail)], dim=1))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        whole: Tensor = self.whole(x.mean(dim=(2, 3)))
        fused = self.down[0](x + whole[:, :, None, None])
        fused = self.down[1](double(fused) + self.across[1](maps[2]))
        return maps[0], self.smooth(double(fused) + self.across[0](maps[1])), whole


class Branch(nn.Module):
    """One task's map at H/4, from what it heard at H/8 and what is fine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = convolution(WIDTHS[0], width, 1)
        self.join = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, exchanged: Tensor, fine: Tensor) -> Tensor:
        """B w H/8 W/8 and B 48 H/4 W/4 to B w H/4 W/4."""
        joined: Tensor = self.join(double(exchanged) + self.fine(fine))
        return joined


class EdgeLast(nn.Module):
    """Edges at H/2: what the branch says at H/4, sharpened by `detail`."""

    def __init__(self, detail: int, width: int) -> None:
        super().__init__()
        self.near = convolution(detail, 16)
        self.last = nn.Sequential(convolution(width + 16, 24), nn.Conv2d(24, 1, 1))

    def forward(self, joined: Tensor, detail: Tensor) -> Tensor:
        logit: Tensor = self.last(torch.cat([double(joined), self.near(SCALE * detail)], dim=1))
        return logit


class DenseHead(nn.Module):
    """Features of a space with `context` and `detail` to the answers of some of semantics, depth, normals, edges."""

    reads = ("context", "detail")
    sees = None  # everything: the trunk looks at the whole picture

    def __init__(self, spec: FeatureSpec, tasks: Sequence[TaskSpec], exchange: bool = True) -> None:
        super().__init__()
        self.space, self.tasks = spec.space, tuple(tasks)
        deep, shallow = (spec.level(name).channels for name in self.reads)
        self.trunk = Trunk(deep, shallow)
        names = [task.name for task in self.tasks]
        self.own = nn.ModuleDict({name: convolution(WIDTHS[1], OWN, 1) for name in names})
        self.exchange = WindowExchange(len(names), OWN) if exchange and len(names) > 1 else None
        self.branches = nn.ModuleDict({name: Branch(OWN) for name in names})
        self.drop = nn.Dropout2d(0.1)
        last = {task.name: nn.Conv2d(OWN, task.channels, 1) for task in self.tasks if task.name != "edges"}
        self.last = nn.ModuleDict(last)
        self.edges = EdgeLast(shallow, OWN) if "edges" in names else None

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2 to task -> B C H/4 W/4, edges B 1 H/2 W/2.

        H and W are any multiples of 4. semantics, edges: logits. depth: metres. normals: unit vectors.
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
                found[name] = crop(self.edges(joined, detail).float(), (size[0] // 2, size[1] // 2))
            else:
                found[name] = finished(name, crop(self.last[name](joined), (size[0] // 4, size[1] // 4)))
        return found


class ClassifyHead(nn.Module):
    """Features of a space to what the whole picture is: `classes` B K, logits."""

    reads = ("context", "detail")
    sees = None

    def __init__(self, spec: FeatureSpec, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.space, self.tasks = spec.space, tuple(tasks)
        deep, shallow = (spec.level(name).channels for name in self.reads)
        self.trunk = Trunk(deep, shallow)
        self.last = nn.Linear(WIDTHS[-1] + WIDTHS[1], self.tasks[0].channels)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` and `detail`, of any size, to `classes` B K."""
        context, detail, _ = whole_cells(features)
        _, coarse, whole = self.trunk(context, detail)
        return {self.tasks[0].name: self.last(torch.cat([whole, coarse.mean(dim=(2, 3))], dim=1))}


def whole_cells(features: Features) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """`context` and `detail` grown to whole cells of the coarsest map, and the size in pixels before that."""
    missing = [name for name in DenseHead.reads if name not in features.maps]
    if missing:
        found = ", ".join(features.maps) or "no level"
        raise ShapeError(f"this head reads level {missing[0]!r}, got {found}; encode the picture with that level")
    context, detail = features.maps["context"], features.maps["detail"]
    size = (4 * context.shape[-2], 4 * context.shape[-1])
    height, width = padded(size, GRID)
    return pad(context, (height // 4, width // 4)), pad(detail, (height // 2, width // 2)), size


def finished(task: str, answer: Tensor) -> Tensor:
    """What the last convolution says, in the unit of its task, float32."""
    if task == "depth":
        return (TYPICAL * answer.float().clamp(-6.0, 6.0).exp()).clamp(NEAR, FAR)
    if task == "normals":
        return F.normalize(answer.float(), dim=1, eps=LENGTH)
    return answer.float()
