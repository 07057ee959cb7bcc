"""NYUv2: rooms with depth and classes. Official split, every second test picture; 320 x 240.

    folder/{train,test}/{images/NNNN.jpg, depths/NNNN.png, labels/NNNN.png}

Licence: research use; cite Silberman et al. 2012. Split: 80 frames of train, chosen by the hash of their names, are
`val` and choose checkpoints; `train` is without them; `test` is only for reporting.

Four pixels at each border say nothing for any task: the picture is white there and the depth is filled in. Depth was
filled in elsewhere too, and comes in steps of 3.9 cm.

A sample costs 0.3 MB in memory from its first use on, 0.8 MB when its normals were asked for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chiasm.contracts import Frame, Intrinsics, Sample, TaskSpec
from chiasm.datasets import vocabulary
from chiasm.datasets.folders import matched
from chiasm.datasets.labels import EDGES, Held, boundaries, check_ids, check_sizes, closed, grey, semantics
from chiasm.errors import ConfigError, nearest
from chiasm.geometry import pinhole as geometry

CLASSES = vocabulary.ROOM
VOID = 39  # class 40 of NYU40, and unlabelled
SEMANTICS = TaskSpec("semantics", len(CLASSES), "classes", CLASSES)
DEPTH = TaskSpec("depth", 1, "distance", unit="metre")
NORMALS = TaskSpec("normals", 3, "direction")
TASKS = (SEMANTICS, DEPTH, NORMALS, EDGES)

STEPS_PER_METRE = 25.5
BORDER = 4  # pixels
GAP = 3  # pixels: labels were drawn with void lines of up to twice that between things
FULL = Intrinsics(518.86, 519.47, 325.58, 253.74)  # of 640 x 480 pixels
PARTS = ("train", "val", "test")

# Smaller windows show the steps of the depth as terraces (7 pixels: most walls are a staircase), larger ones lose what
# is small. A step alone leaves a misfit of 1.1 cm (rms), which is 2 % of the depth of near things.
WINDOW = 15  # pixels, 31 of the 640 wide original
MISFIT = (0.02, 0.025)  # of the depth, and metres: a fit that is worse than both gives no normal


class NYUv2:
    """Samples with semantics, depth in metres, normals from local planes, and edges where classes meet."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], depths: tuple[Path, ...],
                 labels: tuple[NDArray[Any], ...]) -> None:  # fmt: skip
        self.names = names
        self._pictures = Held(images)
        self._depths = depths
        self._labels = labels
        self._metres: dict[int, NDArray[Any]] = {}
        self._normals: dict[int, Tensor] = {}
        self._whole: dict[int, NDArray[Any]] = {}

    @staticmethod
    def load(folder: Path, part: str) -> NYUv2:
        """folder: that holds train and test. part: train, val or test.

        Raises ConfigError when files are missing, sizes differ or an id is no class.
        """
        if part not in PARTS:
            raise ConfigError(f"NYUv2: expected a part among {', '.join(PARTS)}, got {part!r}; {nearest(part, PARTS)}")
        home = folder / ("test" if part == "test" else "train")
        names, images, files = matched(home / "images", home / "labels")
        _, _, depths = matched(home / "images", home / "depths")
        check_sizes(images, files)
        check_sizes(images, depths)
        kept = range(len(names)) if part == "test" else _split(names, part)
        labels = tuple(grey(files[index]) for index in kept)
        for index, ids in zip(kept, labels, strict=True):
            check_ids(ids, len(CLASSES), VOID, files[index])
        return NYUv2(
            tuple(names[index] for index in kept),
            tuple(images[index] for index in kept),
            tuple(depths[index] for index in kept),
            labels,
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One sample, H x W as stored. The first time it also fits the normals, a few tenths of a second."""
        pixels = self._pictures.pixels(index)
        kept = inside(*pixels.shape[-2:])
        ids = self._labels[index]
        depth, known = self.depth(index)
        normals = self._fitted(index)
        classes, labelled = semantics(ids, VOID)
        edges, sure = boundaries(self._closed(index), VOID)
        valid = {"semantics": labelled & kept, "depth": known, "normals": normals.any(0), "edges": sure & kept}
        targets = {"semantics": classes, "depth": depth, "normals": normals, "edges": edges}
        held = {task: target * valid[task] for task, target in targets.items()}
        return Sample(self.names[index], Frame(pixels), held, valid, self.camera(index))

    def camera(self, index: int) -> Intrinsics:
        """The camera at the size of this picture."""
        height, width = self._labels[index].shape
        return geometry.resized(FULL, height / 480, width / 640)

    def depth(self, index: int) -> tuple[Tensor, Tensor]:
        """Metres, float32 1 H W, and valid, bool H W: not the border, not 0."""
        if index not in self._metres:
            self._metres[index] = grey(self._depths[index])
        depth = torch.from_numpy(self._metres[index].astype(np.float32))[None] / STEPS_PER_METRE
        return depth, (depth[0] > 0) & inside(*depth.shape[-2:])

    def _closed(self, index: int) -> NDArray[Any]:
        """Ids without the void lines between things, for edges."""
        if index not in self._whole:
            self._whole[index] = closed(self._labels[index], VOID, GAP)
        return self._whole[index]

    def _fitted(self, index: int) -> Tensor:
        """Unit normals 3 H W, 0 where no plane fits. Kept in half precision, 6 bytes for each pixel."""
        if index not in self._normals:
            depth, valid = self.depth(index)
            self._normals[index] = fitted(depth, valid, self.camera(index)).half()
        return self._normals[index].float()


def fitted(depth: Tensor, valid: Tensor, camera: Intrinsics, window: int = WINDOW) -> Tensor:
    """Unit normals 3 H W of local planes, 0 where none fits. depth: metres 1 H W; valid: bool H W."""
    normals, residual = geometry.normals_from_depth(depth[None], geometry.stacked([camera]), window, valid[None, None])
    fits = valid & (residual[0, 0] < (MISFIT[1] / depth[0]).clamp(min=MISFIT[0]))
    return torch.where(fits, normals[0], 0.0)


def inside(height: int, width: int, border: int = BORDER) -> Tensor:
    """True but for the border, bool H W."""
    kept = torch.zeros(height, width, dtype=torch.bool)
    kept[border : height - border, border : width - border] = True
    return kept


def _split(names: tuple[str, ...], part: str) -> list[int]:
    """The places of `train` or `val` among all training names: a tenth, by the names' hashes, is `val`."""
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).digest())
    count = round(len(names) / 10)  # 80 of 795
    return sorted(order[:count] if part == "val" else order[count:])
