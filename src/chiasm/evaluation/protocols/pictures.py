"""The pictures a protocol runs on: a name and 8-bit pixels, found in a folder of public sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chiasm.errors import ImageError, ShapeError
from chiasm.evaluation.meters.metrics import unit
from chiasm.images import Mosaic, decode

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Picture:
    """One picture of a set. pixels: uint8 3 x H x W, sRGB: what a file holds, so that no codec gains by
    rounding."""

    name: str
    pixels: Tensor

    def __post_init__(self) -> None:
        shape, kind = tuple(self.pixels.shape), self.pixels.dtype
        if len(shape) != 3 or shape[0] != 3 or kind != torch.uint8:
            raise ShapeError(f"picture {self.name!r} must be uint8 3 H W, got {kind} {shape}; convert it first")

    @property
    def area(self) -> int:
        """Pixels: H times W."""
        return int(self.pixels.shape[1] * self.pixels.shape[2])

    @property
    def batch(self) -> Tensor:
        """float32 1 x 3 x H x W in [0, 1], as an encoder reads it."""
        return unit(self.pixels)[None]


def read_picture(path: Path) -> Picture:
    """The file as `chiasm encode` reads it: upright, sRGB; 8 bits of each channel.

    Raises ImageError when it is no photograph that can be read.
    """
    shot = decode(path)
    if isinstance(shot, Mosaic):
        raise ImageError(f"{path}: expected a photograph, got a RAW file; develop it first", "unsupported")
    values = shot.pixels if shot.pixels.dtype == np.uint8 else np.round(shot.pixels / 257.0).astype(np.uint8)
    return Picture(path.stem, torch.from_numpy(values.copy()).permute(2, 0, 1).contiguous())


def read_folder(folder: Path, limit: int | None = None) -> list[Picture]:
    """The pictures of a folder in order of name, the first `limit` of them.

    Raises ImageError, reason "empty", when there is none.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise ImageError(f"{folder} must hold pictures ({', '.join(sorted(SUFFIXES))}), and holds none", "empty")
    return [read_picture(path) for path in paths]


def find_set(data: Path, names: Sequence[str]) -> Path | None:
    """The first folder of `names` (such as "kodak") in the data root, or None: the caller skips and says
    so."""
    return next((data / name for name in names if (data / name).is_dir()), None)


def cropped(picture: Picture, multiple: int) -> Picture:
    """The picture's upper left part whose sides are multiples of `multiple` pixels: no pad enters a score."""
    height, width = (side - side % multiple for side in picture.pixels.shape[1:])
    return Picture(picture.name, picture.pixels[:, :height, :width].contiguous())
