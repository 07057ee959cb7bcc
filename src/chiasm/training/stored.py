"""Stored features with labels from a folder: what a head learns from when no pixel is read.

store ─► reader ─► levels, View ──────┐
                                      ├─► Item ─► random window, mirrored ─► features, Batch
labels ─► target, mask ─► seen by it ─┘
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Features, Size, Space, TaskSpec, View
from chiasm.datasets.batches import Batch
from chiasm.datasets.folders import by_name, rows
from chiasm.datasets.labels import METRES_PER_UNIT, read_label
from chiasm.errors import ConfigError, nearest
from chiasm.features.layout import Window, blank, crop, cut, pad, padded
from chiasm.flow.pipeline import Pipeline
from chiasm.heads.kinds import KINDS, Reduction, mirrored
from chiasm.heads.linear import PooledHead
from chiasm.heads.saved import HeadModule

SHOWN = 3  # names in a message
HALF = 6e4  # numbers below are held in half precision


class FeatureReader(Protocol):
    """Where stored features come from."""

    def features(self, key: str, levels: Sequence[str]) -> tuple[Features, View, Size]:
        """The levels of one picture, 1 C h w or 1 D, what the encoder saw of it, and its height and width."""
        ...


@dataclass(frozen=True)
class PipelineReader:
    """Features out of a pipeline's store: as they were stored (`whole`), or at working size, see `features.working`."""

    pipeline: Pipeline
    whole: bool

    def features(self, key: str, levels: Sequence[str]) -> tuple[Features, View, Size]:
        """See `FeatureReader`. Raises StoreError for a picture that was stored without a level."""
        if not self.whole:
            return self.pipeline.predictor.working(key, levels)
        reading = self.pipeline.reading(key, levels)
        maps = [name for name in levels if self.pipeline.space.level(name).kind == "map"]
        return reading.features, reading.views[(maps or list(levels))[0]], reading.size


@dataclass(frozen=True)
class Item:
    """A stored picture with its label: its key, name, label file (or class) and size in pixels."""

    key: str
    name: str
    label: Path | int
    size: Size


@dataclass
class Stored:
    """Items of a store that a head for `task` can learn from.

    space, reads: the levels that the head reads. pooled: maps are averaged when they are read, for a head that averages
    them anyway. limit: bytes of features that are held in memory; what is beyond is decoded again each time.
    metres_per_unit: of depth labels.
    """

    reader: FeatureReader
    space: Space
    reads: tuple[str, ...]
    task: TaskSpec
    items: Sequence[Item]
    pooled: bool = False
    limit: int = 4 << 30
    metres_per_unit: float = METRES_PER_UNIT
    held: dict[str, tuple[Features, Tensor, Tensor]] = field(default_factory=dict, repr=False)
    used: int = 0  # bytes of features that are held

    @property
    def strides(self) -> dict[str, int]:
        """Of the maps that are read; empty where everything is a vector."""
        levels = () if self.pooled else (self.space.level(name) for name in self.reads)
        return {level.name: level.stride for level in levels if level.stride}

    @property
    def grid(self) -> int:
        """Pixels of the encoder's input that windows begin and end at multiples of."""
        return math.lcm(*self.strides.values())

    def of(self, items: Sequence[Item]) -> Stored:
        """The same of other items, with nothing held yet."""
        return replace(self, items=items, held={}, used=0)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Features, Tensor, Tensor]:
        """Maps 1 C h w and vectors 1 D, half precision, with the target 1 C H W (or 1) and valid mask 1 1 H W (or 1).

        H and W are those of the encoder's input: the label is laid where the encoder saw its picture. Raises
        ConfigError or ImageError for a label that does not fit, ConfigError for a picture without a level.
        """
        item = self.items[index]
        if item.name not in self.held:  # one picture may be stored under two names, with two labels
            found = self._read(item)
            if self.used + _bytes(found[0]) > self.limit:
                return found
            self.used += _bytes(found[0])
            self.held[item.name] = found
        return self.held[item.name]

    def _read(self, item: Item) -> tuple[Features, Tensor, Tensor]:
        features, view, size = self.reader.features(item.key, self.reads)
        if self.pooled:
            features = {name: x.mean(dim=(2, 3)) if x.ndim == 4 else x for name, x in features.items()}
        features = {name: x.half() if bool((x.abs() < HALF).all()) else x for name, x in features.items()}
        if isinstance(item.label, int):
            return features, torch.tensor([item.label]), torch.tensor([True])
        target, valid = read_label(item.label, self.task, size, self.metres_per_unit)
        target, valid = seen(target, valid, view, KINDS[self.task.kind].reduction)
        return features, target[None], valid[None, None]

    def window(self, index: int, size: Size, draws: torch.Generator) -> tuple[Features, Tensor, Tensor]:
        """A random part of `size` pixels (multiples of the grid) of one item, half of the time mirrored.

        A picture that is smaller is repeated at its border, where nothing is valid. Features are mirrored as they are:
        the shipped space is trained so that this is nearly the mirrored picture's (Eq. 3 of arXiv:2509.20481). Vectors
        are left as they are.
        """
        features, target, valid = self[index]
        strides, unit = self.strides, self.grid
        whole = {name: x.float() for name, x in features.items()}
        down, right, flip = torch.rand(3, generator=draws).tolist()
        if not strides:
            return whole, target, valid
        maps = {name: whole[name] for name in strides}
        grown = self._grown(maps, [size, target.shape[-2:]] if target.ndim == 4 else [size])
        maps = {name: pad(x, (grown[0] // strides[name], grown[1] // strides[name])) for name, x in maps.items()}
        top, left = (int(share * ((have - want) // unit + 1)) * unit
                     for share, have, want in zip((down, right), grown, size, strict=True))  # fmt: skip
        part = Window(top, left, top + size[0], left + size[1])
        maps = cut(maps, strides, part)
        if target.ndim == 4:
            target, valid = (x[..., *part.at(1)] for x in (pad(target, grown), blank(valid, grown)))
        if flip < 0.5:
            maps = {name: x.flip(-1) for name, x in maps.items()}
            if target.ndim == 4:
                target, valid = mirrored(self.task.kind, target), valid.flip(-1)
        return {**whole, **maps}, target, valid

    def _grown(self, maps: Features, sizes: Sequence[Sequence[int]]) -> Size:
        """The smallest size in pixels that holds all maps and `sizes`: whole strides of every map.

        A network may round its maps up or down, each level by itself.
        """
        ends = [[n * self.strides[name] for n in x.shape[-2:]] for name, x in maps.items()]
        height, width = (max(sides) for sides in zip(*ends, *sizes, strict=True))
        return padded((height, width), self.grid)


def batch_of(parts: Sequence[tuple[Features, Tensor, Tensor]], task: TaskSpec) -> tuple[Features, Batch]:
    """Windows of one size as one batch; it holds no pixels."""
    maps = {name: torch.cat([features[name].float() for features, _, _ in parts]) for name in parts[0][0]}
    target, valid = torch.cat([x for _, x, _ in parts]), torch.cat([x for _, _, x in parts])
    nothing = torch.zeros(len(parts), dtype=torch.bool)
    batch = Batch(torch.zeros(0), {task.name: target}, {task.name: valid}, torch.zeros(len(parts), 4), nothing, ())
    return maps, batch


def seen(target: Tensor, valid: Tensor, view: View, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """A label C H W and its mask H W where the encoder saw its picture: at the size of the encoder's input."""
    size = (valid.shape[-2], valid.shape[-1])
    factor = max(1, round(1 / min(view.scale)))
    if view.scale == (1 / factor, 1 / factor):
        target, valid = shrunk(target, valid, factor, reduction)
    else:
        wanted = tuple(max(1, round(n * scale)) for n, scale in zip(size, view.scale, strict=True))
        target, valid = resized(target, valid, (wanted[0], wanted[1]), reduction)
    top, left = (round(x) for x in view.offset)
    target, valid = target[:, max(0, -top) :, max(0, -left) :], valid[max(0, -top) :, max(0, -left) :]
    target, valid = (F.pad(x, (max(0, left), 0, max(0, top), 0)) for x in (target, valid))
    target, valid = crop(target, view.size), crop(valid, view.size)
    return pad(target, view.size), blank(valid, view.size)


def resized(target: Tensor, valid: Tensor, size: Size, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """Target C H W and mask H W at any other size."""
    known = valid[None, None].float()
    share = F.interpolate(known, size, mode="bilinear", align_corners=False, antialias=True)[0]
    if reduction == "middle":
        near = [((torch.arange(n) + 0.5) * (have / n)).long() for n, have in zip(size, valid.shape, strict=True)]
        return target[:, near[0]][:, :, near[1]], valid[near[0]][:, near[1]]
    values = target[None].float() * known
    if reduction == "largest":
        return F.adaptive_max_pool2d(values, size)[0], share[0] >= 0.5
    mean = F.interpolate(values, size, mode="bilinear", align_corners=False, antialias=True)[0]
    return mean / share.clamp_min(1e-6), share[0] >= 0.5


def shrunk(target: Tensor, valid: Tensor, factor: int, reduction: Reduction = "mean") -> tuple[Tensor, Tensor]:
    """Target C H W and mask H W at ceil(H / factor) and so on.

    reduction: what stands for a cell: its middle (class ids have no mean), its mean, or its largest value, so that thin
    lines survive.
    """
    if factor == 1:
        return target, valid
    size = padded((valid.shape[-2], valid.shape[-1]), factor)
    grown, known = pad(target, size), blank(valid, size)
    if reduction == "middle":
        middle = slice(factor // 2, None, factor)
        return grown[:, middle, middle], known[middle, middle]
    share = F.avg_pool2d(known[None].float(), factor)
    if reduction == "largest":
        return F.max_pool2d(grown * known, factor), share[0] >= 0.5
    mean = F.avg_pool2d(grown * known, factor) / share.clamp_min(1e-6)
    return mean, share[0] >= 0.5


def _bytes(features: Features) -> int:
    return sum(x.numel() * x.element_size() for x in features.values())


def items_of(pictures: Iterable[tuple[str, Sequence[str], Size]], labels: Path, task: TaskSpec) -> list[Item]:
    """The stored pictures that `labels` says something of, by name.

    pictures: key, uris and size of each. labels: a folder of files called as the pictures (in folders as far as they
    need that to differ); for a `label` a CSV file with lines `picture,class`. Raises ConfigError when a label's picture
    is not stored, or two are.
    """
    wanted: Mapping[str, Path | int] = _table(labels, task) if task.kind == "label" else by_name(labels)
    ends: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for key, uris, size in pictures:
        for uri in uris:
            # with its suffix too: a.jpg.png labels a.jpg where there is an a.raw beside it
            for path in (PurePosixPath(uri), PurePosixPath(uri).with_suffix("")):
                for start in range(len(path.parts)):
                    ends.setdefault("/".join(path.parts[start:]), []).append((key, size))
    extra = [name for name in wanted if name not in ends]
    if extra:
        raise ConfigError(
            f"{labels} has {len(extra)} labels of {len(wanted)} ({_list(extra)}) whose pictures are not in the store; "
            "encode those pictures, or move these labels away"
        )
    found = []
    for name, label in wanted.items():
        keys = dict.fromkeys(ends[name])
        if len(keys) > 1:
            raise ConfigError(
                f"{labels}: {len(keys)} stored pictures are called {name!r}; add their folder or suffix"
            )
        ((key, size),) = keys
        found.append(Item(key, name, label, size))
    return found


def stored_for(head: HeadModule, reader: FeatureReader, space: Space, items: Sequence[Item]) -> Stored:
    """What this head can learn from, for its first task."""
    return Stored(reader, space, head.reads, head.tasks[0], items, pooled=isinstance(head, PooledHead))


def fingerprint(items: Sequence[Item], head: HeadModule) -> str:
    """A digest of what a head would learn from, its tasks, network and levels included. Reads the label files."""
    told = hashlib.sha256(repr((head.tasks, type(head).__name__, head.space, head.reads, len(items))).encode())
    for item in items:
        label = item.label.read_bytes() if isinstance(item.label, Path) else str(item.label).encode()
        told.update(repr((item.key, item.name, hashlib.sha256(label).hexdigest())).encode())
    return told.hexdigest()[:16]


def _list(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _table(file: Path, task: TaskSpec) -> dict[str, int]:
    """Lines `picture,class` as names without suffix and ids; a heading is skipped."""
    found: dict[str, int] = {}
    for number, picture, word in rows(file):
        name = PurePosixPath(picture).as_posix()
        if not PurePosixPath(picture).name:
            raise ConfigError(f"{file}, line {number}: expected `picture,class`, got no picture")
        if word not in task.classes:
            raise ConfigError(f"{file}, line {number}: there is no class {word!r}; {nearest(word, task.classes)}")
        if name in found:
            raise ConfigError(f"{file}, line {number}: {picture!r} comes a second time; keep one line for each picture")
        found[name] = task.classes.index(word)
    if not found:
        raise ConfigError(f"{file} must hold lines `picture,class`, and holds none")
    return found
