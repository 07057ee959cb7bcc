"""Protocol `evaluate raw`: does a mosaic land where its photograph lands, and what does it develop to?

    picture ──► unseen sensor ──► target (sRGB)        ──► E0 ──► features ──► D0: the ceiling
                     └──► noise ──► mosaic, matrix, gains ──► E1 ──► features ──► D0: ours
                                             └──► classical demosaicing ──► the same `develop` [──► denoiser]

alignment   mean distance of E1(mosaic) and E0(target) over the mean distance of different pictures, per level
demosaicing PSNR against the target, the outermost 8 pixels left out, mean of the pictures

Each picture is seen by one of the pinned unseen sensors in turn, through each pinned unseen noise. Mosaic, matrix and
gains are given to both sides.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from chiasm.contracts import Features, Sensor
from chiasm.datasets import synthetic_raw
from chiasm.datasets.pinned_sensors import Noise, pinned
from chiasm.evaluation.baselines.demosaicing import METHODS, drawn
from chiasm.evaluation.meters.distances import Decode, Distance, Encode, distance, relative, spread
from chiasm.evaluation.meters.metrics import psnr, quantised
from chiasm.evaluation.protocols.denoising import Coded, smoothed
from chiasm.evaluation.protocols.pictures import Picture, cropped
from chiasm.images.raw import sensor

BORDER = 8  # pixels in which some methods repeat and others mirror
CLEAN = "clean"

CASES = 1 + len(pinned().noises)  # mosaics of each picture



@dataclass(frozen=True)
class RawSpace:
    """What is under test: the RAW encoder beside the RGB one, the decoder of both, and the codec."""

    encode: Callable[[Tensor, Tensor], Features]
    teacher: Encode
    decode: Decode
    coded: Coded


@dataclass(frozen=True)
class RawRow:
    """One noise. psnr: way -> dB; ways are ours, ours at qualities, the ceiling, and classical ones."""

    noise: str
    psnr: Mapping[str, float]
    alignment: Mapping[str, Distance]


@dataclass(frozen=True)
class RawReport:
    """rows: one for each noise, `clean` first; sensors: the same numbers by sensor, all noises together."""

    pictures: tuple[str, ...]
    rows: tuple[RawRow, ...]
    sensors: tuple[RawRow, ...]
    qualities: tuple[int, ...]


def evaluate_raw(
    space: RawSpace,
    pictures: Sequence[Picture],
    qualities: Sequence[int] = (2, 4, 6, 8),
    tell: Callable[[], None] = lambda: None,
) -> RawReport:
    """The whole protocol on at least two pictures; `tell` is called after each mosaic."""
    pictures = [cropped(picture, 4) for picture in pictures]
    units = spread(space.teacher, pictures)
    found: dict[str, dict[str, list[float]]] = {}
    gaps: dict[str, dict[str, list[Distance]]] = {}
    for one, noise, made in cases(pictures):
        scores, apart = _scored(space, made, noise, qualities)
        for name in (noise.name if noise else CLEAN, one.camera):
            bank, held = found.setdefault(name, defaultdict(list)), gaps.setdefault(name, defaultdict(list))
            for way, value in scores.items():
                bank[way].append(value)
            for level, gap in apart.items():
                held[level].append(gap)
        tell()
    cameras = [one.camera for one in pinned().sensors]

    def row(name: str) -> RawRow:
        return RawRow(name, {way: fmean(each) for way, each in found[name].items()}, relative(gaps[name], units))

    noises = [CLEAN, *(noise.name for noise in pinned().noises)]
    names = tuple(picture.name for picture in pictures)
    seen = tuple(row(name) for name in cameras if name in found)
    return RawReport(names, tuple(map(row, noises)), seen, tuple(qualities))


def cases(pictures: Sequence[Picture]) -> Iterator[tuple[Sensor, Noise | None, synthetic_raw.Synthetic]]:
    """Every picture through its sensor, without noise and through each pinned one. The noise is the picture's own."""
    held = pinned()
    for index, picture in enumerate(pictures):
        one = held.sensors[index % len(held.sensors)]
        yield one, None, synthetic_raw.unprocess(picture.batch, [one])
        for noise in held.noises:
            draws = torch.Generator().manual_seed(zlib.crc32(f"{picture.name} {noise.name}".encode()))
            made = synthetic_raw.unprocess(picture.batch, [noise.on(one)], draws, model=synthetic_raw.model_of(noise))
            yield one, noise, made


@torch.no_grad()
def _scored(
    space: RawSpace, made: synthetic_raw.Synthetic, noise: Noise | None, qualities: Sequence[int]
) -> tuple[dict[str, float], dict[str, Distance]]:
    features, wanted = space.encode(made.mosaic, made.condition), space.teacher(made.target)
    shown = {"ours": space.decode(features)}
    for quality in qualities:
        shown[f"ours at quality {quality}"] = space.decode(space.coded(features, quality))
    shown["ceiling"] = space.decode(wanted)
    matrix = sensor.matrices(made.sensors)
    for method in METHODS:
        shown[method] = drawn(made.mosaic, matrix, method)
    if noise is not None:
        shown["menon, denoised"] = smoothed(shown["menon"])
    scores = {way: _psnr(pixels, made.target) for way, pixels in shown.items()}
    return scores, {level: distance(x, wanted[level]) for level, x in features.items()}


def _psnr(found: Tensor, wanted: Tensor) -> float:
    inner = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return float(psnr(quantised(found)[inner], quantised(wanted)[inner]))
