"""What is left of a picture when it is drawn from its features, and from the coarse level alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.evaluation.meters.distances import Decode, Encode
from chiasm.evaluation.meters.metrics import psnr, quantised, ssim
from chiasm.evaluation.protocols.pictures import Picture

SHRINK = 4  # the stride of context, and so of the picture that it must beat


@dataclass(frozen=True)
class Redrawn:
    """One picture (or the mean over a set): PSNR in dB of 8-bit pixels, SSIM.

    coarse_psnr: drawn from the coarse level alone; bicubic_psnr: from a 4 times smaller picture, bicubic
    enlarged.
    """

    name: str
    psnr: float
    ssim: float
    coarse_psnr: float
    bicubic_psnr: float


@dataclass(frozen=True)
class Reconstruction:
    """Per picture, and the plain mean of the pictures' scores."""

    pictures: tuple[Redrawn, ...]
    mean: Redrawn


def bicubic(pixels: Tensor) -> tuple[Tensor, ...]:
    """B 3 H W shrunk by 4 and enlarged again bicubically: shrunk by area, and by an antialiased bicubic."""
    size = (pixels.shape[-2] // SHRINK, pixels.shape[-1] // SHRINK)
    small = (
        F.interpolate(pixels, size, mode="area"),
        F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1),
    )
    return tuple(F.interpolate(item, pixels.shape[-2:], mode="bicubic", align_corners=False) for item in small)


def reconstruction(
    encode: Encode, decode: Decode, pictures: Sequence[Picture], coarse: str = "context"
) -> Reconstruction:
    """Scores each picture as 8-bit pixels. Of the two bicubic ways a picture is compared with the better."""
    rows = []
    with torch.no_grad():
        for picture in pictures:
            pixels, truth = picture.batch, picture.pixels[None]
            features = encode(pixels)
            whole = quantised(decode(features))
            alone = quantised(decode({coarse: features[coarse]}))
            rival = max(float(psnr(quantised(item), truth)) for item in bicubic(pixels))
            scores = float(psnr(whole, truth)), float(ssim(whole, truth)), float(psnr(alone, truth)), rival
            rows.append(Redrawn(picture.name, *scores))
    columns = zip(*((row.psnr, row.ssim, row.coarse_psnr, row.bicubic_psnr) for row in rows), strict=True)
    return Reconstruction(tuple(rows), Redrawn("mean", *(fmean(column) for column in columns)))
