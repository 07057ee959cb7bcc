"""Protocol `evaluate codec`: real bytes and what they draw, beside JPEG, WebP and AVIF at equal PSNR.

For each picture and quality the codec under test makes a whole packet and draws it again, as 8-bit pixels.
Two comparisons are made, both against each rival at its best (see classical.py):

    per picture   the rival's bytes at the PSNR that this picture got
    over the set  the rival's mean bytes at equal mean PSNR, one quality of the rival for all pictures

"saved" is the percent of the rival's bytes that are not needed: positive is better, negative is a loss, and
both are printed. A PSNR that a rival cannot reach, or goes below its lowest quality, has no entry; nothing is
extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from chiasm.errors import ShapeError
from chiasm.evaluation.baselines.classical import families
from chiasm.evaluation.meters.curves import Curve, Family, Point, Saving, bd_rate, over_set
from chiasm.evaluation.meters.metrics import psnr, quantised, ssim
from chiasm.evaluation.protocols.pictures import Picture
from chiasm.flow.pipeline import Pipeline
from chiasm.images import Picture as Shown

QUALITIES = tuple(range(1, 9))
LEVELS_OF_PSNR = tuple(float(decibel) for decibel in range(30, 37))
Bytes = Mapping[str, float | None]  # per rival; None where it has no such PSNR


@dataclass(frozen=True)
class Coded:
    """One picture through a codec. streams: level -> bytes; total: the whole packet, headers and checksums
    included; pixels: float in [0, 1] or uint8, (1) 3 H W, drawn from the bytes; coarse: the same from context
    alone, or None."""

    streams: Mapping[str, int]
    total: int
    pixels: Tensor
    coarse: Tensor | None = None


def roundtrip(pipeline: Pipeline, pixels: Tensor, quality: int) -> Coded:
    """1 3 H W in [0, 1], taken as 8 bit, through a whole packet file and back."""
    shown = pixels[0].mul(255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    data = pipeline.pack_picture(Shown(shown, "", shown.nbytes, "memory"), quality)
    opened = pipeline.opened(data)
    whole, coarse = (
        torch.from_numpy(pipeline.drawing.picture(opened, levels)).permute(2, 0, 1)[None]
        for levels in (None, ("context",))
    )
    return Coded({name: len(each.data) for name, each in opened.packet.levels.items()}, len(data), whole, coarse)


RoundTrip = Callable[[Tensor, int], Coded]  # float 1 3 H W in [0, 1] and a quality


@dataclass(frozen=True)
class Row:
    """One picture at one quality. rivals: bytes of each rival at this PSNR. levels: bytes, "headers" among
    them."""

    picture: str
    quality: int
    area: int
    bytes: int
    levels: Mapping[str, int]
    psnr: float
    ssim: float
    coarse_psnr: float | None
    rivals: Bytes
    saved: Bytes


@dataclass(frozen=True)
class Mean:
    """One quality over the set. bpp and rivals: bits per pixel, rivals at equal mean PSNR; levels: mean
    bytes.

    saved: percent at equal mean PSNR; saved_each: mean of the pictures' own percents at equal PSNR.
    """

    quality: int
    bpp: float
    psnr: float
    ssim: float
    coarse_psnr: float | None
    levels: Mapping[str, float]
    rivals: Bytes
    saved: Bytes
    saved_each: Bytes


@dataclass(frozen=True)
class Equal:
    """All codecs at one mean PSNR (dB): bits per pixel of each, and percent saved against each rival."""

    psnr: float
    bpp: Bytes
    saved: Bytes


@dataclass(frozen=True)
class CodecReport:
    """curves: codec -> mean bytes against mean PSNR. bd: rival -> delta rate of this codec over the set;
    bd_pictures: picture -> the same on its own curves. families: for each picture, codec -> its measured
    points."""

    name: str
    area: float
    rows: tuple[Row, ...]
    means: tuple[Mean, ...]
    equal: tuple[Equal, ...]
    bd: Mapping[str, Saving | None]
    bd_pictures: Mapping[str, Mapping[str, Saving | None]]
    curves: Mapping[str, Curve]
    families: tuple[Mapping[str, Family], ...]

    @property
    def rivals(self) -> tuple[str, ...]:
        return tuple(self.bd)


def evaluate_codec(
    pictures: Sequence[Picture],
    roundtrip: RoundTrip,
    name: str = "chiasm",
    qualities: Sequence[int] = QUALITIES,
    classical: Sequence[Mapping[str, Family]] | None = None,
) -> CodecReport:
    """Runs the protocol. classical: `classical.families` of each picture when the caller has them (5 to 15 s
    each); otherwise they are measured here.

    Raises ShapeError when there is no picture, or the drawn pixels are not of the picture's size.
    """
    if not pictures:
        raise ShapeError("a set needs at least one picture, got none; pass some")
    rivals = classical if classical is not None else [families(picture) for picture in pictures]
    grouped = [_rows(*pair, roundtrip, qualities) for pair in zip(pictures, rivals, strict=True)]
    own = [Family(name, {"": _points(rows)}) for rows in grouped]
    rows = tuple(row for rows in grouped for row in rows)
    area = fmean(picture.area for picture in pictures)
    curves = {name: _own_curve(rows, qualities)}
    curves |= {rival: over_set([found[rival] for found in rivals]) for rival in rivals[0]}
    return CodecReport(
        name=name,
        area=area,
        rows=rows,
        means=tuple(_mean(_at(rows, quality), curves, name) for quality in qualities),
        equal=tuple(_equal(decibel, curves, name, area) for decibel in LEVELS_OF_PSNR),
        bd={rival: bd_rate(curves[name], curves[rival]) for rival in rivals[0]},
        bd_pictures={
            picture.name: {rival: bd_rate(mine.best, family.best) for rival, family in found.items()}
            for picture, mine, found in zip(pictures, own, rivals, strict=True)
        },
        curves=curves,
        families=tuple({name: mine, **found} for mine, found in zip(own, rivals, strict=True)),
    )


def _rows(picture: Picture, rivals: Mapping[str, Family], roundtrip: RoundTrip, qualities: Sequence[int]) -> list[Row]:
    return [_row(picture, rivals, quality, _coded(picture, roundtrip, quality)) for quality in qualities]


def _coded(picture: Picture, roundtrip: RoundTrip, quality: int) -> Coded:
    with torch.no_grad():
        coded = roundtrip(picture.batch, quality)
    size = picture.pixels.shape
    if coded.pixels.shape[-3:] != size:
        came = tuple(coded.pixels.shape)
        raise ShapeError(f"picture {picture.name!r} must come back as {tuple(size)}, got {came}; crop the pad off")
    coarse = None if coded.coarse is None else quantised(coded.coarse).reshape(1, *size)
    return Coded(coded.streams, coded.total, quantised(coded.pixels).reshape(1, *size), coarse)


def _row(picture: Picture, rivals: Mapping[str, Family], quality: int, coded: Coded) -> Row:
    truth = picture.pixels[None]
    reached = float(psnr(coded.pixels, truth))
    beside = {rival: family.bytes_at(reached) for rival, family in rivals.items()}
    return Row(
        picture=picture.name,
        quality=quality,
        area=picture.area,
        bytes=coded.total,
        levels={**coded.streams, "headers": coded.total - sum(coded.streams.values())},
        psnr=reached,
        ssim=float(ssim(coded.pixels, truth)),
        coarse_psnr=None if coded.coarse is None else float(psnr(coded.coarse, truth)),
        rivals=beside,
        saved={rival: _saved(coded.total, size) for rival, size in beside.items()},
    )


def _points(rows: Sequence[Row]) -> tuple[Point, ...]:
    return tuple(Point(row.bytes, row.psnr, f"q{row.quality}") for row in rows)


def _at(rows: Sequence[Row], quality: int) -> list[Row]:
    return [row for row in rows if row.quality == quality]


def _own_curve(rows: Sequence[Row], qualities: Sequence[int]) -> Curve:
    """What was really coded, and no better: unlike a rival, a picture is always charged its own packet."""
    points = []
    for quality in qualities:
        group = _at(rows, quality)
        size, reached = fmean(row.bytes for row in group), fmean(row.psnr for row in group)
        points.append(Point(size, reached, f"q{quality}"))
    return Curve.through(points)


def _mean(rows: Sequence[Row], curves: Mapping[str, Curve], name: str) -> Mean:
    area, reached = fmean(row.area for row in rows), fmean(row.psnr for row in rows)
    bpp = 8 * fmean(row.bytes for row in rows) / area
    coarse = [row.coarse_psnr for row in rows if row.coarse_psnr is not None]
    rivals = {rival: _bpp(curve, reached, area) for rival, curve in curves.items() if rival != name}
    return Mean(
        quality=rows[0].quality,
        bpp=bpp,
        psnr=reached,
        ssim=fmean(row.ssim for row in rows),
        coarse_psnr=fmean(coarse) if coarse else None,
        levels={level: fmean(row.levels[level] for row in rows) for level in rows[0].levels},
        rivals=rivals,
        saved={rival: _saved(bpp, other) for rival, other in rivals.items()},
        saved_each={rival: _mean_known([row.saved[rival] for row in rows]) for rival in rivals},
    )


def _equal(decibel: float, curves: Mapping[str, Curve], name: str, area: float) -> Equal:
    bpp = {codec: _bpp(curve, decibel, area) for codec, curve in curves.items()}
    return Equal(decibel, bpp, {codec: _saved(bpp[name], other) for codec, other in bpp.items() if codec != name})


def _bpp(curve: Curve, decibel: float, area: float) -> float | None:
    size = curve.bytes_at(decibel)
    return None if size is None else 8 * size / area


def _saved(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else 100 - 100 * own / other


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
