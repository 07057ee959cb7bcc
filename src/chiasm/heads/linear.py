"""Small heads on any space: whatever levels it has, at whatever stride.

    map levels ──raised to the finest──► concatenated ──(x - mean) x scale──► 1x1 ► answers           LinearHead
                                                                        └──► 3x3 ► 3x3 ► 1x1          ConvHead
    vectors, means of maps ──► concatenated ──(x - mean) x scale──► linear ► answers                  PooledHead

mean and scale are of each channel of the features that a head learns from, measured once before it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from chiasm.contracts import Features, Level, Space, TaskSpec, View
from chiasm.errors import ShapeError
from chiasm.features import views
from chiasm.heads.kinds import KINDS
from chiasm.heads.trunk import convolution

LEAST = 1e-4  # deviation of a channel, relative to the mean of all, below which it is not raised to 1


class Standard(nn.Module):
    """(x - mean) x scale for each channel, B C or B C h w."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    @torch.no_grad()
    def measure(self, parts: Iterable[Tensor]) -> None:
        """Take mean and deviation from these, each B C ...; nothing changes when there is none."""
        count, total, square = 0, torch.zeros(0), torch.zeros(0)
        for part in parts:
            flat = part.double().transpose(0, 1).flatten(1)  # C n
            total = total + flat.sum(1) if count else flat.sum(1)
            square = square + flat.square().sum(1) if count else flat.square().sum(1)
            count += flat.shape[1]
        if count:
            mean = total / count
            deviation = (square / count - mean.square()).clamp_min(0).sqrt()
            self.mean.copy_(mean)
            self.scale.copy_(1.0 / deviation.clamp_min(max(LEAST * float(deviation.mean()), 1e-12)))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2)
        return (x.float() - self.mean.view(shape)) * self.scale.view(shape)


class LinearHead(nn.Module):
    """Map levels of any space to answers for every place: one 1x1 convolution for each task."""

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec], reads: Sequence[str]) -> None:
        super().__init__()
        self.space, self.tasks, self.reads = spec.name, tuple(tasks), tuple(reads)
        levels = self.levels = map_levels(spec, reads)
        self.margin = 0 if len(levels) == 1 else 2 * max(level.stride for level in levels)
        channels = sum(level.channels for level in levels)
        self.standard = Standard(channels)
        self.last = nn.ModuleList(nn.Conv2d(channels, task.channels, 1) for task in self.tasks)

    def joined(self, features: Features) -> Tensor:
        return joined_maps(features, self.levels)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps B C h w of the levels it reads to task -> B C h w at the finest. Raises ShapeError without a level."""
        return answers(self.tasks, self.last, self.standard(self.joined(features)))


class ConvHead(nn.Module):
    """The same with two 3x3 convolutions before: what lies beside a place counts too."""

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec], reads: Sequence[str], width: int = 64) -> None:
        super().__init__()
        self.space, self.tasks, self.reads = spec.name, tuple(tasks), tuple(reads)
        levels = self.levels = map_levels(spec, reads)
        coarsest, finest = (pick(level.stride for level in levels) for pick in (max, min))
        self.margin = 2 * finest + (0 if len(levels) == 1 else 2 * coarsest)
        self.standard = Standard(sum(level.channels for level in levels))
        self.body = nn.Sequential(
            convolution(len(self.standard.mean), width, 1), convolution(width, width), convolution(width, width)
        )
        self.last = nn.ModuleList(nn.Conv2d(width, task.channels, 1) for task in self.tasks)

    def joined(self, features: Features) -> Tensor:
        return joined_maps(features, self.levels)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps B C h w of the levels it reads to task -> B C h w at the finest. Raises ShapeError without a level."""
        return answers(self.tasks, self.last, self.body(self.standard(self.joined(features))))


class PooledHead(nn.Module):
    """Vectors, and means of maps, of any space to answers for the whole picture: one linear layer for each task."""

    margin = None

    def __init__(self, spec: Space, tasks: Sequence[TaskSpec], reads: Sequence[str]) -> None:
        super().__init__()
        self.space, self.tasks, self.reads = spec.name, tuple(tasks), tuple(reads)
        channels = sum(spec.level(name).channels for name in reads)
        self.standard = Standard(channels)
        self.last = nn.ModuleList(nn.Linear(channels, task.channels) for task in self.tasks)

    def joined(self, features: Features) -> Tensor:
        found = taken(features, self.reads)
        return torch.cat([x.float().mean(dim=(2, 3)) if x.ndim == 4 else x.float() for x in found.values()], dim=1)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Vectors B D and maps B C h w to task -> B C. Raises ShapeError without a level."""
        return answers(self.tasks, self.last, self.standard(self.joined(features)))


def answers(tasks: Sequence[TaskSpec], layers: nn.ModuleList, x: Tensor) -> dict[str, Tensor]:
    """The last layers in float32, also under autocast, each in its kind's form."""
    with torch.autocast(x.device.type, enabled=False):
        pairs = zip(tasks, layers, strict=True)
        return {task.name: KINDS[task.kind].output(layer(x.float())) for task, layer in pairs}


def map_levels(spec: Space, reads: Sequence[str]) -> list[Level]:
    """The levels of these names. Raises ShapeError for none, or one that is a vector."""
    levels = [spec.level(name) for name in reads]
    if not levels:
        raise ShapeError(f"expected a map level or more of space {spec.name!r}, got none; there are {_maps(spec)}")
    for level in levels:
        if not level.stride:
            raise ShapeError(
                f"an answer for every place needs map levels, but {level.name!r} of {spec.name!r} is a vector; "
                f"there are {_maps(spec)}"
            )
    return levels


def _maps(spec: Space) -> str:
    return ", ".join(level.name for level in spec.levels if level.stride) or "no maps"


def taken(features: Features, reads: Sequence[str]) -> Mapping[str, Tensor]:
    """The levels of these names, in this order. Raises ShapeError when one is missing."""
    missing = [name for name in reads if name not in features]
    if missing:
        found = ", ".join(features) or "no level"
        raise ShapeError(f"this head reads level {missing[0]!r}, got {found}; encode the picture with that level")
    return {name: features[name] for name in reads}


def joined_maps(features: Features, levels: Sequence[Level]) -> Tensor:
    """Maps of several strides as one, bilinear, at the places of the finest: B C h w.

    They lie on whole strides from the upper left corner, as `features.views` says, whatever a convolution rounded: so a
    place sees the same in a window as in the whole.
    """
    maps = taken(features, [level.name for level in levels])
    finest = min(levels, key=lambda level: level.stride)
    size, step = (maps[finest.name].shape[-2], maps[finest.name].shape[-1]), finest.stride
    places = View((size[0] * step, size[1] * step), (step, step))
    pairs = zip([level.stride for level in levels], maps.values(), strict=True)
    return torch.cat([x.float() if n == step else views.raised(x.float(), places, size, n) for n, x in pairs], dim=1)
