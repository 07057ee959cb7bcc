"""Folders of photographs, split into what trains and what chooses checkpoints; the same for every recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chiasm.datasets.pictures import PictureSet, held_out
from chiasm.errors import ConfigError
from chiasm.images import find

VALIDATED = 24  # held-out pictures that are scored


def read_sets(folders: Sequence[Path], longest: int | None = None) -> tuple[tuple[PictureSet, ...], PictureSet]:
    """A set of training pictures for each folder, and one of held-out pictures (one file in ten, by name's hash).

    A folder none of whose names is held out is scored on its first picture. longest: see `PictureSet.load`. Raises
    ConfigError when a folder holds no readable picture.
    """
    sets: list[PictureSet] = []
    chosen: list[np.ndarray] = []
    for folder in folders:
        files = find([folder])
        aside = [path for path in files if held_out(path.name)][: max(1, VALIDATED // len(folders))]
        kept = [path for path in files if not held_out(path.name)] or files
        sets.append(PictureSet.load(kept or [folder], longest=longest))
        try:
            chosen += PictureSet.load(aside, longest=longest).pictures if aside else sets[-1].pictures[:1]
        except ConfigError:  # what the names picked cannot be read
            chosen += sets[-1].pictures[:1]
    return tuple(sets), PictureSet(tuple(chosen))
