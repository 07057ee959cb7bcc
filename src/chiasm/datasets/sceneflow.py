"""Scene Flow (FlyingThings3D, Driving, Monkaa): rendered stereo with dense disparity, 960 x 540. For reporting only.

    folder/frames_finalpass/.../left/NNNN.{png,webp}      folder/disparity/.../left/NNNN.pfm

Licence: research use; cite Mayer et al. 2016. Every left picture below the folder is scored, so put there the part that
is meant, for FlyingThings3D usually TEST; disparities of other pictures may lie there too.

As of `middlebury` the depth is relative, 1 / disparity, to be evaluated after fitting scale and shift: the heads know
no baseline. A disparity that is not finite or not above 0 is not valid. (In the smaller "subset" of FlyingThings3D left
disparities are negative: that is an error here, not a picture without depth.) Nothing is held in memory.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chiasm.contracts import Frame, Sample
from chiasm.datasets.folders import by_name
from chiasm.datasets.labels import picture, wrong_size
from chiasm.datasets.middlebury import TASKS
from chiasm.errors import ConfigError, ImageError

FRAMES, DISPARITIES = "frames_finalpass", "disparity"
SUFFIXES = frozenset({".png", ".webp"})
HEADER = re.compile(rb"Pf\n(\d{1,6}) (\d{1,6}) *\n([+-]?\d{1,9}(?:\.\d{1,9})?) *\n")
LONGEST = 64  # bytes of a header


class SceneFlow:
    """The left picture of each pair, with relative depth, named as its path below frames_finalpass."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], disparities: tuple[Path, ...]) -> None:
        self.names = names
        self._images = images
        self._disparities = disparities

    @staticmethod
    def load(folder: Path) -> SceneFlow:
        """Every left picture below `folder`. Raises ConfigError when there is none, or one has no disparity."""
        home, truth = folder / FRAMES, folder / DISPARITIES
        found = {name: path for name, path in by_name(home, SUFFIXES).items() if name.split("/")[-2:-1] == ["left"]}
        if not found:
            raise ConfigError(f"{home}: expected .../left/NNNN.png or .webp, got none; unpack frames_finalpass there")
        files = tuple(truth / f"{name}.pfm" for name in found)
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise ConfigError(
                f"{missing[0]}: expected a file, and one for each of {len(files)} left pictures, got {len(missing)} "
                "too few; unpack their disparities too, or move those pictures away"
            )
        return SceneFlow(tuple(found), tuple(found.values()), files)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One sample, H x W as stored. Raises ConfigError for a wrong size or sign, ImageError for damage."""
        pixels, path = picture(self._images[index]), self._disparities[index]
        disparity = read_pfm(path)
        if disparity.shape != pixels.shape[:2]:
            raise wrong_size(path, (disparity.shape[0], disparity.shape[1]), (pixels.shape[0], pixels.shape[1]))
        if (disparity < 0).any() and not (disparity > 0).any():
            raise ConfigError(
                f"{path}: expected disparities above 0, got none, the least being {disparity[disparity < 0].min():g}; "
                "negate them, or take the files of the full set"
            )
        with np.errstate(divide="ignore", over="ignore"):
            inverse = torch.from_numpy(1 / disparity)[None]
        valid = (inverse[0] > 0) & inverse[0].isfinite()
        frame = Frame(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255.0)
        return Sample(self.names[index], frame, {"depth": torch.where(valid, inverse, 0.0)}, {"depth": valid})


def read_pfm(path: Path) -> NDArray[np.float32]:
    """The one channel of a PFM, float32 H x W, the uppermost row first (a file has the lowest first).

    The sign of its scale says how bytes are ordered, negative for the least significant first; how large the scale is
    says nothing. Raises ImageError for anything but a whole file with a header of three lines: Pf, W H, scale.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: expected a PFM, got {error}; check the path", "unreadable") from error
    header = HEADER.match(data[:LONGEST])
    width, height, scale = (float(word) for word in header.groups()) if header else (0.0, 0.0, 0.0)
    if header is None or not width * height * scale:
        start = data[:16].decode("ascii", "backslashreplace")
        raise ImageError(
            f"{path}: expected a PFM of one channel with the lines Pf, width and height, scale, got {start!r}; "
            "copy it again, or convert it",
            "unsupported",
        )
    wanted = header.end() + 4 * int(width) * int(height)
    if len(data) != wanted:
        raise ImageError(
            f"{path}: expected {wanted} bytes for {int(height)} x {int(width)} pixels, got {len(data)}; copy it again",
            "damaged",
        )
    rows = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=header.end()).reshape(int(height), int(width))
    return rows[::-1].astype(np.float32)
