"""NYUv2 as published: all 654 test pictures at 640 x 480, depth in metres that is not rounded, 894 labels.

    folder/nyu_depth_v2_labeled.mat     images, depths (gaps filled in), labels: HDF5 with its axes turned, N C W H
    folder/splits.mat                   testNdxs, trainNdxs: places from 1
    folder/classMapping40.mat           mapClass: the class of NYU40 for each label from 1

Licence: research use; cite Silberman et al. 2012, and Gupta et al. 2013 for the 40 classes. Split: the official one;
`train` (795) is for priors alone, since the head `dense` learnt from these frames at half the size. Needs the extra
`hdf5`. Nothing is held in memory: a sample is read, and its normals are fitted, whenever it is asked for, in seconds.

What differs from common practice: all but 8 pixels at each border is scored, not the crop of Eigen et al. (rows 45 to
470, columns 41 to 600). There are 39 classes, not 40: `otherprop` is void. Normals are those of local planes, as of
`nyuv2` with a window twice as large, not the ones of Ladicky et al. that papers compare with; where no plane fits there
is none. Edges are where these classes meet, not where instances do.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat  # type: ignore[import-untyped]
from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

from chiasm.contracts import Frame, Sample
from chiasm.datasets import nyuv2
from chiasm.datasets.hdf5 import dataset, hdf5
from chiasm.datasets.labels import boundaries, closed, semantics
from chiasm.datasets.nyuv2 import FULL, TASKS, VOID
from chiasm.errors import ConfigError, ImageError, nearest
from chiasm.geometry import pinhole as geometry

FILE, SPLITS, MAPPING = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
PARTS = {"train": "trainNdxs", "test": "testNdxs"}
BORDER = 2 * nyuv2.BORDER
GAP = 2 * nyuv2.GAP
WINDOW = 2 * nyuv2.WINDOW + 1
NYU40 = 40
DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, OverflowError, MemoryError,
          MatReadError, struct.error, zlib.error)  # fmt: skip


@dataclass(frozen=True)
class NYUv2Full:
    """Samples as those of NYUv2, named by their numbers in the file, from 0001.

    path: of the file; places: in it, from 0; table: label -> id of the class, or VOID.
    """

    path: Path
    places: tuple[int, ...]
    table: NDArray[np.int64]
    tasks = tuple(task.name for task in TASKS)

    @staticmethod
    def load(folder: Path, part: str) -> NYUv2Full:
        """folder: that holds the three files. part: train or test.

        Raises ConfigError when one is missing or holds other shapes or numbers, ImageError when one is damaged,
        MissingExtraError without h5py.
        """
        if part not in PARTS:
            raise ConfigError(f"NYUv2: expected a part among {', '.join(PARTS)}, got {part!r}; {nearest(part, PARTS)}")
        path = folder / FILE
        with hdf5(path) as file:
            shapes = {name: tuple(dataset(file, name, path).shape) for name in ("images", "depths", "labels")}
        _check_shapes(shapes, path)
        places = _whole_numbers(folder / SPLITS, PARTS[part], shapes["images"][0])
        classes = _whole_numbers(folder / MAPPING, "mapClass", NYU40)
        table = np.concatenate([[VOID], classes - 1])  # label 0 is unlabelled; class 40 becomes VOID by itself
        return NYUv2Full(path, tuple(int(place) - 1 for place in places), table)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{place + 1:04}" for place in self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        """One sample, H x W. Raises ConfigError for a label without a class, ImageError for damage."""
        place = self.places[index]
        with hdf5(self.path) as file:
            image, far, labels = (np.swapaxes(file[name][place], -1, -2) for name in ("images", "depths", "labels"))
        height, width = far.shape
        inside = nyuv2.inside(height, width, BORDER)
        camera = geometry.resized(FULL, height / 480, width / 640)
        depth = torch.from_numpy(far.astype(np.float32))[None]
        known = depth[0].isfinite() & (depth[0] > 0) & inside
        normals = nyuv2.fitted(torch.where(known, depth, 0.0), known, camera, WINDOW)
        ids = self._ids(labels, place)
        classes, labelled = semantics(ids, VOID)
        edges, sure = boundaries(closed(ids, VOID, GAP), VOID)
        valid = {"semantics": labelled & inside, "depth": known, "normals": normals.any(0), "edges": sure & inside}
        targets = {"semantics": classes, "depth": depth, "normals": normals, "edges": edges}
        held = {task: torch.where(valid[task], target, 0) for task, target in targets.items()}
        pixels = torch.from_numpy(image.astype(np.float32)) / 255.0
        return Sample(f"{place + 1:04}", Frame(pixels), held, valid, camera)

    def _ids(self, labels: NDArray[Any], place: int) -> NDArray[np.int64]:
        if labels.max() >= len(self.table):
            raise ConfigError(
                f"{self.path}: expected labels 0 to {len(self.table) - 1}, which {MAPPING} maps, got {labels.max()} in "
                f"picture {place + 1}; take both original files"
            )
        ids: NDArray[np.int64] = self.table[labels]
        return ids


def _check_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Raises ConfigError unless images are N 3 W H, depths and labels N W H, and W to H is 4 to 3."""
    images = shapes["images"]
    fits = len(images) == 4 and images[1] == 3 and 3 * images[2] == 4 * images[3] > 0
    if not fits or any(shapes[name] != (images[0], *images[2:]) for name in ("depths", "labels")):
        found = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())
        raise ConfigError(
            f"{path}: expected images N x 3 x 640 x 480, depths and labels N x 640 x 480, got {found}; "
            "take the original file, unconverted"
        )


def _whole_numbers(path: Path, name: str, most: int) -> NDArray[np.int64]:
    """The matrix `name` of a MATLAB 5 file as one row. Raises ConfigError unless all are 1 to `most`."""
    if not path.is_file():
        raise ConfigError(f"{path}: expected a MATLAB file with {name}, got nothing there; download it")
    try:
        found = loadmat(path, variable_names=[name]).get(name)
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"{path}: expected a MATLAB 5 file, got {reason}; copy it again", "damaged") from error
    if found is None or found.dtype.kind not in "iuf" or not found.size:
        raise ConfigError(f"{path}: expected a matrix {name} of numbers, got none; take the original file")
    row = found.reshape(-1)
    wrong = row[~((row >= 1) & (row <= most) & (row == np.floor(row)))]
    if wrong.size:
        raise ConfigError(
            f"{path}: expected {name} to hold whole numbers 1 to {most}, got {wrong[0]} ({wrong.size} of {row.size} "
            "are no such number); take the original file"
        )
    numbers: NDArray[np.int64] = row.astype(np.int64)
    return numbers
