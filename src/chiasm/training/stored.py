"""Stored features with labels from a folder: what a head learns from when no pixel is read.

store ─► features at working size ─┐
                                   ├─► Item ─► random window, mirrored ─► features, Batch
labels ─► target and valid mask ───┘
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Features, TaskSpec
from chiasm.datasets.batches import Batch
from chiasm.datasets.folders import by_name, rows
from chiasm.datasets.labels import METRES_PER_UNIT, read_label
from chiasm.errors import ConfigError, nearest
from chiasm.features.layout import Window, blank, cut, pad, padded
from chiasm.flow.pipeline import Pipeline

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Item:
    """A stored picture with its label: its key, name, label file (or class) and size in pixels."""

    key: str
    name: str
    label: Path | int
    size: tuple[int, int]


@dataclass
class Stored:
    """Items of a store that a head for `task` can learn from.

    whole: whether features are taken at full size, as heads that see no further than some pixels do, or at working
    size. limit: bytes of features that are held in memory; what is beyond is decoded again each time. metres_per_unit:
    of depth labels.
    """

    pipeline: Pipeline
    task: TaskSpec
    items: Sequence[Item]
    whole: bool = False
    limit: int = 4 << 30
    metres_per_unit: float = METRES_PER_UNIT
    held: dict[str, tuple[Features, Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Features, Tensor, Tensor]:
        """Features 1 C H/s W/s, half precision, with the target 1 C H W (or 1) and valid mask 1 1 H W (or 1).

        H and W are those of the features, and the target is shrunk with them. Raises ConfigError or ImageError for a
        label that does not fit, ConfigError for a picture that was stored without a level.
        """
        item = self.items[index]
        if item.name not in self.held:  # one picture may be stored under two names, with two labels
            found = self._read(item)
            if sum(_bytes(features) for features, _, _ in self.held.values()) + _bytes(found[0]) > self.limit:
                return found
            self.held[item.name] = found
        return self.held[item.name]

    def _read(self, item: Item) -> tuple[Features, Tensor, Tensor]:
        features, factor = (self.pipeline.features(item.key), 1) if self.whole else self.pipeline.working(item.key)
        if missing := [name for name in self.pipeline.spec.names if name not in features]:
            raise ConfigError(f"{item.name} was stored without level {missing[0]!r}; encode it again with all levels")
        features = {name: x.half() for name, x in features.items()}
        if isinstance(item.label, int):
            return features, torch.tensor([item.label]), torch.tensor([True])
        target, valid = read_label(item.label, self.task, item.size, self.metres_per_unit)
        target, valid = shrunk(target, valid, factor, self.task.kind == "probability")
        height, width = (4 * n for n in features["context"].shape[-2:])
        grown = blank(valid[None, None], (height, width))
        return features, pad(target[None], (height, width)), grown

    def window(self, index: int, size: tuple[int, int], draws: torch.Generator) -> tuple[Features, Tensor, Tensor]:
        """A random part of `size` pixels (multiples of 4) of one item, half of the time mirrored.

        A picture that is smaller is repeated at its border, where nothing is valid. Features are mirrored as they are:
        the space is trained so that this is nearly the mirrored picture's (Eq. 3 of arXiv:2509.20481).
        """
        features, target, valid = self[index]
        down, right, flip = torch.rand(3, generator=draws).tolist()
        maps, masks = dict(features), {"target": target, "valid": valid}
        strides = {name: 4 if name == "context" else 2 for name in maps}
        height, width = (4 * n for n in maps["context"].shape[-2:])
        grown = max(height, size[0]), max(width, size[1])
        maps = {
            name: pad(x.float(), (grown[0] // strides[name], grown[1] // strides[name])) for name, x in maps.items()
        }
        top, left = (int(share * ((have - want) // 4 + 1)) * 4
                     for share, have, want in zip((down, right), grown, size, strict=True))  # fmt: skip
        part = Window(top, left, top + size[0], left + size[1])
        maps = cut(maps, strides, part)
        if target.ndim == 4:
            masks = {"target": pad(target, grown), "valid": blank(valid, grown)}
            masks = cut(masks, {"target": 1, "valid": 1}, part)
        if flip < 0.5:
            maps = {name: x.flip(-1) for name, x in maps.items()}
            if target.ndim == 4:
                masks = {name: x.flip(-1) for name, x in masks.items()}
                if self.task.kind == "direction":
                    masks["target"] = masks["target"] * torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
        return maps, masks["target"], masks["valid"]


def batch_of(parts: Sequence[tuple[Features, Tensor, Tensor]], task: TaskSpec) -> tuple[Features, Batch]:
    """Windows of one size as one batch; it holds no pixels."""
    maps = {name: torch.cat([features[name].float() for features, _, _ in parts]) for name in parts[0][0]}
    target, valid = torch.cat([x for _, x, _ in parts]), torch.cat([x for _, _, x in parts])
    nothing = torch.zeros(len(parts), dtype=torch.bool)
    batch = Batch(torch.zeros(0), {task.name: target}, {task.name: valid}, torch.zeros(len(parts), 4), nothing, ())
    return maps, batch


def shrunk(target: Tensor, valid: Tensor, factor: int, strongest: bool = False) -> tuple[Tensor, Tensor]:
    """Target C H W and mask H W at ceil(H / factor) and so on: ids from cells' middles, other values as means.

    strongest: the largest of a cell instead, so that thin lines survive.
    """
    if factor == 1:
        return target, valid
    size = padded((valid.shape[-2], valid.shape[-1]), factor)
    grown, known = pad(target, size), blank(valid, size)
    if target.dtype == torch.int64:
        middle = slice(factor // 2, None, factor)
        return grown[:, middle, middle], known[middle, middle]
    share = F.avg_pool2d(known[None].float(), factor)
    if strongest:
        return F.max_pool2d(grown * known, factor), share[0] >= 0.5
    mean = F.avg_pool2d(grown * known, factor) / share.clamp_min(1e-6)
    return mean, share[0] >= 0.5


def _bytes(features: Features) -> int:
    return sum(x.numel() * x.element_size() for x in features.values())


def items_of(pipeline: Pipeline, labels: Path, task: TaskSpec) -> list[Item]:
    """The stored pictures that `labels` says something of, by name.

    labels: a folder of files called as the pictures (in folders as far as they need that to differ); for `classes` a
    CSV file with lines `picture,class`. Raises ConfigError when a label's picture is not stored, or two are.
    """
    wanted: Mapping[str, Path | int] = _table(labels, task) if task.kind == "label" else by_name(labels)
    ends: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for record in pipeline.store.scan(()):
        for uri in record.uris:
            # with its suffix too: a.jpg.png labels a.jpg where there is an a.raw beside it
            for path in (PurePosixPath(uri), PurePosixPath(uri).with_suffix("")):
                for start in range(len(path.parts)):
                    ends.setdefault("/".join(path.parts[start:]), []).append((record.key, record.packet.size))
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


def fingerprint(items: Sequence[Item], task: TaskSpec) -> str:
    """A digest of what a head would learn from: pictures, labels and task. Reads the label files."""
    told = hashlib.sha256(repr((task, len(items))).encode())
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
