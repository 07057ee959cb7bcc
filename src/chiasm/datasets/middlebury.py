"""Middlebury 2003: two stereo scenes with dense disparity, 450 x 375. For reporting only.

    folder/{Cones,Teddy}/{im2.png, im6.png, disp2.png, disp6.png}

Licence: free with citation; Scharstein and Szeliski 2003. Nothing is trained on it, so there are no parts.

Disparity in pixels is value / 4, 0 unknown. Neither the focal length nor the distance of the cameras is known, so the
depth is relative: 1 / disparity, right up to a factor (and, as the pictures were cut, perhaps an offset of the
disparity). Evaluate it only after fitting scale and shift, never in metres. A sample costs 0.7 MB once used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chiasm.contracts import Frame, Sample, TaskSpec
from chiasm.datasets.labels import Held, check_sizes, grey
from chiasm.errors import ConfigError

DEPTH = TaskSpec("depth", 1, "distance", unit="relative")
TASKS = (DEPTH,)
STEPS_PER_PIXEL = 4
VIEWS = ("2", "6")  # left and right


class Middlebury:
    """Both views of each scene, named Scene/im2, with relative depth."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], steps: tuple[NDArray[np.uint8], ...]) -> None:
        self.names = names
        self._pictures = Held(images)
        self._steps = steps

    @staticmethod
    def load(folder: Path) -> Middlebury:
        """Every view that is in the folders below `folder` with its disparity.

        Raises ConfigError when there is none or sizes differ.
        """
        found = [
            (f"{home.name}/im{view}", home / f"im{view}.png", home / f"disp{view}.png")
            for home in (sorted(folder.iterdir()) if folder.is_dir() else ())
            for view in VIEWS
            if (home / f"im{view}.png").is_file() and (home / f"disp{view}.png").is_file()
        ]
        if not found:
            raise ConfigError(
                f"{folder}: expected folders with im2.png and disp2.png (or im6.png and disp6.png), got none; "
                "unpack Cones and Teddy of Middlebury 2003 there"
            )
        names, images, files = ([row[column] for row in found] for column in range(3))
        check_sizes([Path(path) for path in images], [Path(path) for path in files])
        steps = tuple(grey(Path(path)) for path in files)
        return Middlebury(tuple(map(str, names)), tuple(map(Path, images)), steps)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        disparity = torch.from_numpy(self._steps[index].astype(np.float32))[None] / STEPS_PER_PIXEL
        valid = disparity[0] > 0
        depth = torch.where(valid, 1.0 / disparity.clamp(min=1 / STEPS_PER_PIXEL), 0.0)
        return Sample(self.names[index], Frame(self._pictures.pixels(index)), {"depth": depth}, {"depth": valid})
