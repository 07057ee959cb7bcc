"""Any folder of pictures as a source of random training crops, held in memory as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.errors import ConfigError, ImageError
from chiasm.images import DecoderPool, Mosaic, find


def held_out(name: str, share: float = 0.1) -> bool:
    """Whether a file of this name chooses checkpoints and does not train: one in ten, by the name's hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < share * 2**32


@dataclass(frozen=True)
class PictureSet:
    """Upright sRGB pictures, each H x W x 3 uint8. skipped: what could not be read, with its reason."""

    pictures: tuple[np.ndarray, ...]
    skipped: tuple[str, ...] = ()

    @staticmethod
    def load(paths: Sequence[Path], *, longest: int | None = None, limit_bytes: int = 8 << 30) -> PictureSet:
        """Decode files and folders until `limit_bytes` of pixels are held.

        longest: pixels of the longer side, at most; larger pictures are held smaller.
        Raises ConfigError when none can be read.
        """
        pictures: list[np.ndarray] = []
        skipped: list[str] = []
        held = 0
        with DecoderPool(workers=2) as pool:
            for path, result in pool.decode_all(find(paths)):
                if isinstance(result, ImageError):
                    skipped.append(f"{path}: {result}")
                    continue
                if isinstance(result, Mosaic):
                    skipped.append(f"{path}: a RAW file; this set takes photographs, so develop it first")
                    continue
                pixels = result.pixels if result.pixels.dtype == np.uint8 else (result.pixels >> 8).astype(np.uint8)
                pictures.append(_within(pixels, longest))
                held += pictures[-1].nbytes
                if held > limit_bytes:
                    break
        if not pictures:
            where = ", ".join(map(str, paths)) or "an empty list"
            raise ConfigError(
                f"found no readable picture in {where} ({len(skipped)} unreadable); name a folder of photographs"
            )
        return PictureSet(tuple(pictures), tuple(skipped))

    def tensor(self, index: int) -> Tensor:
        """One whole picture, float32 3 H W in [0, 1]."""
        return torch.from_numpy(self.pictures[index].copy()).permute(2, 0, 1).float() / 255.0

    def crop(self, edge: int, generator: torch.Generator) -> Tensor:
        """One random crop of a random picture, see `crop_of`."""
        pick = float(torch.rand(1, generator=generator))
        return self.crop_of(int(pick * len(self.pictures)), edge, generator)

    def crop_of(self, index: int, edge: int, generator: torch.Generator) -> Tensor:
        """One random crop, float32 3 edge edge in [0, 1]: random place, size and mirror.

        Half of them are taken from up to twice the edge and shrunk, which also thins out JPEG artefacts. A
        function of the generator alone.
        """
        grow, top, left, mirror = torch.rand(4, generator=generator).tolist()
        picture = self.pictures[index]
        height, width = picture.shape[:2]
        span = min(round(edge * max(1.0, 2.0 * grow)), max(edge, min(height, width)))
        y, x = int(top * max(1, height - span + 1)), int(left * max(1, width - span + 1))
        region = torch.from_numpy(picture[y : y + span, x : x + span].copy()).permute(2, 0, 1).float() / 255.0
        if min(region.shape[-2:]) < edge:  # a picture smaller than the crop is repeated at its border
            bottom, right = max(0, edge - region.shape[-2]), max(0, edge - region.shape[-1])
            region = F.pad(region[None], (0, right, 0, bottom), mode="replicate")[0]
        if max(region.shape[-2:]) > edge:
            region = F.interpolate(region[None], (edge, edge), mode="bilinear", antialias=True, align_corners=False)[0]
        return region.flip(-1) if mirror < 0.5 else region


def _within(pixels: np.ndarray, longest: int | None) -> np.ndarray:
    """The picture H W 3, uint8, at a size whose longer side has at most `longest` pixels."""
    height, width = pixels.shape[:2]
    if longest is None or max(height, width) <= longest:
        return pixels
    share = longest / max(height, width)
    size = max(1, round(share * height)), max(1, round(share * width))
    whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    small = F.interpolate(whole, size, mode="bilinear", antialias=True, align_corners=False)
    found: np.ndarray = small[0].permute(1, 2, 0).contiguous().numpy()
    return found


def crops(sets: Sequence[PictureSet], count: int, edge: int, generator: torch.Generator) -> Tensor:
    """Random crops, count 3 edge edge, each from a set picked with equal odds.

    So a large folder does not drown a small one.
    """
    picks = torch.randint(len(sets), (count,), generator=generator).tolist()
    return torch.stack([sets[pick].crop(edge, generator) for pick in picks])
