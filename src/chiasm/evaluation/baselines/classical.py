"""JPEG, WebP and AVIF at their best: real encoded files, decoded again by the same library.

| codec | how it is used at its best |
|-------|----------------------------|
| JPEG  | libjpeg-turbo, optimised Huffman tables, progressive; better of 4:2:0 and 4:4:4 |
| WebP  | libwebp lossy, method 6, its slowest search (Pillow's default is 4); always 4:2:0 |
| AVIF  | libavif with aom, speed 6 (Pillow's default), one tile; better of 4:2:0 and 4:4:4 |

No metadata is written. Bytes are the whole file, container included.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from chiasm.evaluation.meters.curves import Family, Point
from chiasm.evaluation.meters.metrics import psnr
from chiasm.evaluation.protocols.pictures import Picture


@dataclass(frozen=True)
class Way:
    """One codec with one chroma format, and the qualities at which its curve is sampled."""

    codec: str
    chroma: str
    qualities: tuple[int, ...]


# Dense where the quality scale is steep, wide enough for the plainest and the busiest Kodak picture.
JPEG = (6, 9, 12, 16, 20, 25, 30, 36, 42, 50, 57, 64, 70, 75, 79, 82, 85, 87, 89, 91, 93, 94, 95, 96, 97, 98)
WEBP = (1, 5, 10, 16, 24, 34, 44, 54, 64, 72, 78, 82, 85, 88, 90, 92, 94, 96, 98, 100)
AVIF = (20, 28, 36, 42, 48, 54, 60, 65, 70, 74, 78, 82, 86, 89, 92, 95)

WAYS = (
    Way("JPEG", "4:2:0", JPEG),
    Way("JPEG", "4:4:4", JPEG),
    Way("WebP", "4:2:0", WEBP),
    Way("AVIF", "4:2:0", AVIF),
    Way("AVIF", "4:4:4", AVIF),
)


def coded(picture: Picture, way: Way, quality: int) -> bytes:
    """The picture as a file of that codec at `quality` (0 to 100)."""
    image = Image.fromarray(np.ascontiguousarray(picture.pixels.permute(1, 2, 0).numpy()))
    file = io.BytesIO()
    if way.codec == "JPEG":
        image.save(file, "JPEG", quality=quality, subsampling=way.chroma, optimize=True, progressive=True)
    elif way.codec == "WebP":
        image.save(file, "WEBP", quality=quality, method=6)
    else:  # one tile and one thread: the same bytes on every machine, and no rate lost at tile borders
        image.save(file, "AVIF", quality=quality, subsampling=way.chroma, speed=6, max_threads=1, autotiling=False)
    return file.getvalue()


def decoded(file: bytes) -> torch.Tensor:
    """uint8 3 x H x W of an encoded picture."""
    with Image.open(io.BytesIO(file)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def sampled(picture: Picture, way: Way) -> tuple[Point, ...]:
    """One point per quality of `way`: the file's bytes and the PSNR of what decodes from it."""
    points = []
    for quality in way.qualities:
        file = coded(picture, way, quality)
        points.append(Point(len(file), float(psnr(decoded(file), picture.pixels)), f"q{quality}"))
    return tuple(points)


def families(picture: Picture, ways: Sequence[Way] = WAYS) -> dict[str, Family]:
    """Codec name -> its curves on one picture, such as families(picture)["JPEG"].bytes_at(34.0).

    Takes about 11 seconds for 768x512 on one core; keep the result, nothing is cached here.
    """
    names = list(dict.fromkeys(way.codec for way in ways))
    return {
        name: Family(name, {way.chroma: sampled(picture, way) for way in ways if way.codec == name}) for name in names
    }
