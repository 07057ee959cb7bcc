"""Samples of one size to a batch, and several sets to one stream of samples.

    sets, odds ──Mixture.draw──► samples ──augmented──► ──collate──► Batch

A batch may hold pictures of several sets, each with other targets: what a picture does not have is 0 and not valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from chiasm.contracts import Sample, TaskSpec
from chiasm.errors import ConfigError, ShapeError
from chiasm.geometry import pinhole as geometry


class SampleSet(Protocol):
    """What every data set is: samples by number, the tasks they have targets for, and their names."""

    @property
    def tasks(self) -> tuple[str, ...]: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Batch:
    """B pictures of one size.

    pixels: float32 B 3 H W in [0, 1]. targets: task -> B C H W, as in `Sample`; for a `label` int64 B. valid: task ->
    bool B 1 H W; for a `label` bool B. cameras: B 4, see `geometry.stacked`, zeros where unknown; seen: bool B, where
    the camera is known. names: of the samples.
    """

    pixels: Tensor
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    cameras: Tensor
    seen: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(
            self.pixels.to(device),
            {task: target.to(device) for task, target in self.targets.items()},
            {task: mask.to(device) for task, mask in self.valid.items()},
            self.cameras.to(device),
            self.seen.to(device),
            self.names,
        )


def collate(samples: Sequence[Sample], tasks: Sequence[TaskSpec]) -> Batch:
    """One batch with every task asked for; targets of other tasks are left out.

    Raises ShapeError when pictures or targets differ in size, or there is no sample.
    """
    sizes = {tuple(sample.frame.pixels.shape) for sample in samples}
    if len(sizes) != 1:
        raise ShapeError(f"collate: expected samples of one size, got {sorted(sizes) or 'none'}; augment them first")
    targets, valid = {}, {}
    for task in tasks:
        pairs = [_target_of(sample, task) for sample in samples]
        targets[task.name] = torch.stack([target for target, _ in pairs])
        valid[task.name] = torch.stack([mask for _, mask in pairs])
    known = torch.tensor([sample.camera is not None for sample in samples])
    cameras = torch.zeros(len(samples), 4)
    cameras[known] = geometry.stacked([sample.camera for sample in samples if sample.camera is not None])
    pixels = torch.stack([sample.frame.pixels for sample in samples])
    return Batch(pixels, targets, valid, cameras, known, tuple(sample.name for sample in samples))


def _target_of(sample: Sample, task: TaskSpec) -> tuple[Tensor, Tensor]:
    """Target C H W and mask 1 H W of one sample; zeros and false when it has none."""
    size, ids = sample.frame.size, task.kind in ("classes", "label")
    wanted = (1 if ids else task.channels, *size) if task.kind != "label" else ()
    if task.name not in sample.targets:
        shape = (1, *size) if wanted else ()
        return torch.zeros(wanted, dtype=torch.int64 if ids else torch.float32), torch.zeros(shape, dtype=torch.bool)
    target, mask = sample.targets[task.name], sample.valid[task.name]
    if target.shape != wanted or mask.shape != wanted[1:]:
        raise ShapeError(
            f"{sample.name}: expected {task.name} of {list(wanted)} with a mask of {list(wanted[1:])}, "
            f"got {list(target.shape)} and {list(mask.shape)}"
        )
    return target, mask[None] if wanted else mask


@dataclass(frozen=True)
class Mixture:
    """Several sets, and the odds of each, in any scale; a set's size does not matter."""

    sets: tuple[SampleSet, ...]
    odds: tuple[float, ...]

    def __post_init__(self) -> None:
        filled = all(len(held) > 0 for held in self.sets)
        if len(self.sets) != len(self.odds) or not filled or min(self.odds, default=-1) < 0 or sum(self.odds) <= 0:
            raise ConfigError(
                "Mixture: expected sets that hold samples, with one share >= 0 for each and not all of them 0, "
                f"got sets of {[len(held) for held in self.sets]} samples and odds {list(self.odds)}"
            )

    def picks(self, count: int, generator: torch.Generator) -> list[tuple[int, int]]:
        """Numbers of `count` sets and of a sample in each: a function of the generator."""
        odds = torch.tensor(self.odds, dtype=torch.float64)
        which = torch.multinomial(odds, count, replacement=True, generator=generator).tolist()
        where = torch.rand(count, dtype=torch.float64, generator=generator).tolist()
        return [(pick, int(place * len(self.sets[pick]))) for pick, place in zip(which, where, strict=True)]

    def draw(self, count: int, generator: torch.Generator) -> list[Sample]:
        """That many samples, with replacement."""
        return [self.sets[pick][index] for pick, index in self.picks(count, generator)]
