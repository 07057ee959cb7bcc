"""Folders of photographs without targets, for what is learnt from pictures alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from chiasm.camera import DecoderPool, Mosaic, find
from chiasm.contracts import Frame, Sample
from chiasm.errors import ConfigError, ImageError

LONGEST = 640  # pixels of the longer side; what is larger is shrunk
LIMIT = 8 << 30  # bytes of pixels that are held


class Photographs:
    """Samples that have a picture and nothing else, at most LONGEST pixels long, held in memory."""

    tasks: tuple[str, ...] = ()

    def __init__(self, names: tuple[str, ...], pictures: tuple[NDArray[np.uint8], ...], skipped: int = 0) -> None:
        """pictures: H x W x 3, sRGB. skipped: how many files could not be read."""
        self.names, self.pictures, self.skipped = names, pictures, skipped

    @staticmethod
    def load(folder: Path, limit: int = LIMIT) -> Photographs:
        """Every photograph below `folder`, until `limit` bytes are held; what cannot be read, and RAW, is skipped.

        Raises ConfigError when none can be read.
        """
        names, pictures, skipped, held = [], [], 0, 0
        with DecoderPool(workers=2) as pool:
            for path, result in pool.decode_all(find([folder])):
                if isinstance(result, (ImageError, Mosaic)):
                    skipped += 1
                    continue
                pictures.append(_shrunk(result.pixels))
                names.append(path.relative_to(folder).with_suffix("").as_posix())
                held += pictures[-1].nbytes
                if held > limit:
                    break
        if not pictures:
            raise ConfigError(f"{folder}: expected photographs, got none that can be read ({skipped} cannot)")
        return Photographs(tuple(names), tuple(pictures), skipped)

    def split(self, held_out: Callable[[str], bool]) -> tuple[Photographs, Photographs]:
        """Those whose names are not held out, and those that are. Raises ConfigError when nothing is left."""
        parts = [[index for index, name in enumerate(self.names) if held_out(name) == out] for out in (False, True)]
        if not parts[0]:
            raise ConfigError(
                f"expected more than {len(self.names)} pictures ({self.names[0]}, ...), a tenth is held out; add some"
            )
        training, others = (
            Photographs(tuple(self.names[i] for i in part), tuple(self.pictures[i] for i in part)) for part in parts
        )
        return training, others

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One picture, H x W."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.pictures[index].transpose(2, 0, 1)))
        return Sample(self.names[index], Frame(pixels.float() / 255.0), {}, {})


def _shrunk(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = pixels if pixels.dtype == np.uint8 else (pixels.astype(np.uint16) >> 8).astype(np.uint8)
    factor = max(values.shape[:2]) / LONGEST
    if factor <= 1:
        return values.astype(np.uint8, copy=False)
    size = (max(1, round(values.shape[1] / factor)), max(1, round(values.shape[0] / factor)))
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize(size, Image.Resampling.BOX))
