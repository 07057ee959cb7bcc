"""Cityscapes: streets of other cities than CamVid's, scored as CamVid's 11 classes. 2048 x 1024, read at half the size.

    folder/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png
    folder/gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png

Licence: research use after registering; cite Cordts et al. 2016. Never trained on here: 500 pictures of `val` are for
reporting, and `train`, where it is there, for priors alone. Results are no entry of the benchmark, which has 19
classes, full size, and a test part.

Terrain and all that CamVid does not have is void. The halved pictures are means of 2 x 2 sRGB values, the ids those of
the upper left pixel of the four. Nothing is held in memory: a sample is read, and checked, whenever it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Frame, Sample
from chiasm.datasets.camvid import CLASSES, SEMANTICS, VOID
from chiasm.datasets.folders import by_name
from chiasm.datasets.labels import check_ids, grey, halved, picture, semantics, wrong_size
from chiasm.errors import ConfigError, nearest

TASKS = (SEMANTICS,)
PARTS = ("train", "val")
PICTURE, LABELS = "_leftImg8bit", "_gtFine_labelIds.png"
IDS, PLATE = 34, 255  # labelIds are 0 to 33; licence plates are -1, which 8 bits hold as 255
BECOMES = {
    7: "Road", 8: "Pavement", 11: "Building", 12: "Building", 13: "Fence", 17: "Pole", 19: "SignSymbol",
    20: "SignSymbol", 21: "Tree", 23: "Sky", 24: "Pedestrian", 25: "Bicyclist", 26: "Car", 27: "Car", 28: "Car",
    32: "Bicyclist", 33: "Bicyclist",
}  # fmt: skip


class Cityscapes:
    """Samples with semantics of CamVid's classes, named CITY/NAME."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], labels: tuple[Path, ...]) -> None:
        self.names = names
        self._images = images
        self._labels = labels

    @staticmethod
    def load(folder: Path, part: str) -> Cityscapes:
        """folder: that holds leftImg8bit and gtFine. part: train or val. Raises ConfigError when files are missing."""
        if part not in PARTS:
            raise ConfigError(
                f"Cityscapes: expected a part among {', '.join(PARTS)}, got {part!r}; {nearest(part, PARTS)}"
            )
        home, truth = folder / "leftImg8bit" / part, folder / "gtFine" / part
        found = {name: path for name, path in by_name(home, frozenset({".png"})).items() if name.endswith(PICTURE)}
        if not found:
            raise ConfigError(f"{home}: expected CITY/*{PICTURE}.png, got none; unpack leftImg8bit_trainvaltest there")
        names = tuple(name.removesuffix(PICTURE) for name in found)
        labels = tuple(truth / f"{name}{LABELS}" for name in names)
        missing = [path for path in labels if not path.is_file()]
        if missing:
            raise ConfigError(
                f"{truth}: expected labels of {len(names)} pictures, got none for {len(missing)} of them "
                f"({missing[0].name}); unpack gtFine_trainvaltest there"
            )
        return Cityscapes(names, tuple(found.values()), labels)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One sample, half of the stored H x W. Raises ConfigError for an id or size that cannot be."""
        pixels, path = picture(self._images[index]), self._labels[index]
        ids = grey(path)
        if ids.shape != pixels.shape[:2]:
            raise wrong_size(path, (ids.shape[0], ids.shape[1]), (pixels.shape[0], pixels.shape[1]))
        check_ids(ids, IDS, PLATE, path)
        classes, labelled = semantics(_of_camvid(ids[::2, ::2]), VOID)
        frame = Frame(halved(pixels, self._images[index]))
        return Sample(self.names[index], frame, {"semantics": classes}, {"semantics": labelled})


def _of_camvid(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """labelIds to CamVid's ids, of the same shape."""
    table = np.full(256, VOID, np.uint8)
    for label, name in BECOMES.items():
        table[label] = CLASSES.index(name)
    found: NDArray[np.uint8] = table[ids]
    return found
