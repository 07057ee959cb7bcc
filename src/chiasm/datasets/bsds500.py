"""BSDS500: photographs, 481 x 321 or upright, with the boundaries that four to nine people drew.

    folder/{train,val}/{images/*.jpg, boundaries/*.tif}        one page of 1 bit for each person

Licence: non-commercial research; cite Arbelaez et al. 2011. Split: the two folders; the 200 test pictures are not
here, so `val` chooses checkpoints and reports. A sample costs 0.6 MB in memory from its first use on.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch import Tensor

from chiasm.contracts import Frame, Sample
from chiasm.datasets.folders import matched
from chiasm.datasets.labels import EDGES, Held, check_sizes, wrong_size
from chiasm.errors import ConfigError, ImageError, nearest

TASKS = (EDGES,)
PARTS = ("train", "val")
SUFFIXES = frozenset({".tif"})


class BSDS500:
    """Samples with edges: the share of people who drew one at each pixel, known everywhere."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], drawings: tuple[Path, ...]) -> None:
        self.names = names
        self._pictures = Held(images)
        self._drawings = drawings
        self._shares: dict[int, NDArray[np.uint8]] = {}  # of 255

    @staticmethod
    def load(folder: Path, part: str) -> BSDS500:
        """folder: that holds the parts. part: train or val. Raises ConfigError when files are missing or sizes
        differ.
        """
        if part not in PARTS:
            raise ConfigError(f"BSDS500: expected a part among {', '.join(PARTS)}, got {part!r}; "
                              f"{nearest(part, PARTS)}")  # fmt: skip
        names, images, files = matched(folder / part / "images", folder / part / "boundaries", SUFFIXES)
        check_sizes(images, files)
        return BSDS500(names, images, files)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._shares:
            self._shares[index] = (self.annotations(index).float().mean(0) * 255).round().byte().numpy()
        edges = torch.from_numpy(self._shares[index].astype(np.float32))[None] / 255.0
        valid = torch.ones(edges.shape[-2:], dtype=torch.bool)
        return Sample(self.names[index], Frame(self._pictures.pixels(index)), {"edges": edges}, {"edges": valid})

    def annotations(self, index: int) -> Tensor:
        """What each person drew, bool A H W, read from the file: precision and recall are counted against each."""
        return pages(self._drawings[index])


def pages(path: Path) -> Tensor:
    """The pages of one file of boundaries, bool A H W. Raises ImageError or ConfigError."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # damage that Pillow reads over
            drawn = [np.asarray(page.convert("1")) for page in ImageSequence.Iterator(image)]
    except (OSError, ValueError, SyntaxError, KeyError, TypeError) as error:
        raise ImageError(f"{path}: expected a TIFF of boundaries, got {error}; copy it again", "damaged") from error
    for page in drawn:
        if page.shape != drawn[0].shape:
            height, width = drawn[0].shape
            raise wrong_size(path, (page.shape[0], page.shape[1]), (height, width))
    return torch.from_numpy(np.stack(drawn))
