"""Protocol `evaluate denoise`: clean pictures read from the features of noisy ones, beside other denoisers.

gaussian     sigma 15, 25, 50 of 255: the kind that training draws
photon       Poisson-Gaussian, variance 0.02 x + 0.0005 on [0, 1]: never seen in training
real         pairs of a camera's noisy JPEG and the mean of many exposures, where a folder holds them

A noisy picture is clipped and rounded to 8 bits, as a file would hold it. PSNR against the clean picture, mean of the
pictures.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Features
from chiasm.errors import ImageError, MissingExtraError
from chiasm.evaluation.meters.distances import Decode, Encode
from chiasm.evaluation.meters.metrics import psnr, quantised, unit
from chiasm.evaluation.protocols.pictures import Picture, cropped, read_picture

SIGMAS = (15.0, 25.0, 50.0)
PHOTON = (0.02, 0.0005)  # variance per unit of light, and of darkness
REAL = ("_real", "_mean")  # how the files of a pair end

Coded = Callable[[Features, int], Features]  # features through the codec at a quality
Denoise = Callable[[Tensor], Tensor]  # 1 3 H W in [0, 1], H and W multiples of 4


@dataclass(frozen=True)
class Pair:
    """A noisy picture and its clean one, both uint8, of one kind of noise."""

    noise: str
    noisy: Picture
    clean: Picture


@dataclass(frozen=True)
class DenoiseReport:
    """psnr: noise -> way -> mean dB; `noisy` is the input itself. counts: noise -> pictures."""

    psnr: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]


def evaluate_denoise(
    ways: Mapping[str, Denoise],
    pictures: Sequence[Picture],
    real: Sequence[Pair] = (),
    tell: Callable[[], None] = lambda: None,
) -> DenoiseReport:
    """Every way on every pair; `tell` is called after each pair."""
    found: dict[str, dict[str, list[float]]] = {}
    for pair in (*pairs(pictures), *real):
        bank = found.setdefault(pair.noise, {name: [] for name in ("noisy", *ways)})
        bank["noisy"].append(float(psnr(pair.noisy.pixels, pair.clean.pixels)))
        for name, denoise in ways.items():
            with torch.no_grad():
                drawn = quantised(denoise(pair.noisy.batch))[0]
            bank[name].append(float(psnr(drawn, pair.clean.pixels)))
        tell()
    means = {noise: {name: fmean(values) for name, values in bank.items()} for noise, bank in found.items()}
    return DenoiseReport(means, {noise: len(bank["noisy"]) for noise, bank in found.items()})


def ways_of(encode: Encode, coded: Coded, head: Decode, qualities: Sequence[int] = (2, 4, 6, 8)) -> dict[str, Denoise]:
    """A head behind its encoder, on features that were not coded and on those of some qualities."""

    def ours(quality: int | None, pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            features = encode(pixels)
            return head(features if quality is None else coded(features, quality))

    each: dict[str, Denoise] = {"ours": partial(ours, None)}
    return each | {f"ours at quality {quality}": partial(ours, quality) for quality in qualities}


def pairs(pictures: Sequence[Picture]) -> Iterator[Pair]:
    """The synthetic pairs; the noise of a picture is its own and the same for every way."""
    for picture in (cropped(each, 4) for each in pictures):
        clean = unit(picture.pixels)
        shot, read = PHOTON
        levels = {f"sigma {sigma:.0f}": torch.full_like(clean, sigma / 255.0) for sigma in SIGMAS}
        for name, deviation in levels.items():
            yield Pair(name, _made(picture, clean + deviation * _normal(picture, name)), picture)
        draws = torch.Generator().manual_seed(zlib.crc32(picture.name.encode()))
        counted = torch.poisson(clean / shot, generator=draws) * shot
        yield Pair("photon", _made(picture, counted + read**0.5 * _normal(picture, "photon")), picture)


def _normal(picture: Picture, noise: str) -> Tensor:
    draws = torch.Generator().manual_seed(zlib.crc32(f"{picture.name} {noise}".encode()))
    return torch.randn(picture.pixels.shape, generator=draws)


def _made(picture: Picture, pixels: Tensor) -> Picture:
    return Picture(picture.name, quantised(pixels))


def read_pairs(folder: Path, limit: int | None = None) -> list[Pair]:
    """Pairs NAME_real and NAME_mean of a folder, in order of name. Raises ImageError when there is none."""
    found = []
    for noisy in sorted(folder.glob(f"*{REAL[0]}.*"))[:limit]:
        clean = noisy.with_name(noisy.name.replace(REAL[0], REAL[1]))
        if clean.exists():
            found.append(Pair("real", cropped(read_picture(noisy), 4), cropped(read_picture(clean), 4)))
    if not found:
        raise ImageError(f"{folder} must hold pairs NAME{REAL[0]} and NAME{REAL[1]}, and holds none", "empty")
    return found


def smoothed(pixels: Tensor) -> Tensor:
    """1 3 H W in [0, 1] without noise, by non-local means at the level it estimates itself (scikit-image).

    Fast mode, patches of 5 within 13, h = 0.8 sigma: the settings of the library's own example.
    """
    try:
        from skimage.restoration import denoise_nl_means
    except ImportError as error:
        raise MissingExtraError('non-local means is an extra: pip install "chiasm[evaluate]"') from error
    picture = pixels[0].clamp(0, 1).permute(1, 2, 0).double().numpy()
    corners = picture[:-1, :-1] - picture[1:, :-1] - picture[:-1, 1:] + picture[1:, 1:]
    sigma = float(np.median(np.abs(corners))) / (2 * 0.6745)  # of noise: pictures have few corners (Donoho 1994)
    settings = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": -1}
    found = denoise_nl_means(picture, h=0.8 * sigma, sigma=sigma, **settings) if sigma > 0 else picture
    return torch.from_numpy(found).permute(2, 0, 1)[None].to(pixels)
