"""A sample to a random view of it: zoomed, cut, mirrored, recoloured, spoilt. Targets, masks and camera go along.

    Sample ──zoom and cut──► exactly the crop's size ──mirror──► ──colours──blur──noise──JPEG──► Sample

How each target is zoomed: pictures are averaged when they shrink and interpolated when they grow. Ids, depth and
normals take the nearest pixel, since a mean of two depths is a surface that nobody saw. An edge is the strongest of the
pixels that fall on it when shrinking, so that thin lines survive. Masks are strict: a pixel is valid only when every
pixel that it was made of is. What a target is follows from the kind of its task; maps of unknown tasks are treated as
ids are.

Depth comes out canonical where the camera is known, see `geometry.canonical`: the picture's own metres are
`geometry.metric(depth, sample.camera)`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from chiasm.contracts import AnswerKind, Frame, Intrinsics, Sample
from chiasm.errors import ConfigError, ShapeError
from chiasm.geometry import pinhole as geometry

# Kinds of the tasks that public sets and generated scenes have targets of.
PUBLIC: Mapping[str, AnswerKind] = {
    "semantics": "classes", "depth": "distance", "normals": "direction", "edges": "probability"
}  # fmt: skip
_SHARPEST, _SOFTEST = 0.3, 1.1  # sigma of the blur in pixels


@dataclass(frozen=True)
class Augment:
    """What is drawn at random, and how strongly. All strengths 0 and zoom (1, 1): only a random crop.

    height, width: of the result, pixels. zoom: lowest and highest factor, drawn evenly by its logarithm; what then does
    not fill the crop is padded. fill: the lowest factor is raised, up to the highest, so that the picture fills at
    least this share of each side. mirror, grey, blur, noise, jpeg: odds. brightness, contrast, saturation: relative,
    0.4 is a factor in 0.6 to 1.4. hue: radians either way. gamma, balance: the exponent, and the gains of red and blue,
    reach from exp(-x) to exp(x). grain: highest standard deviation of noise. worst: lowest JPEG quality; up to 95.
    """

    height: int
    width: int
    zoom: tuple[float, float] = (0.5, 2.0)
    fill: float = 0.75
    mirror: float = 0.5
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.4
    hue: float = 0.1
    gamma: float = 0.25
    balance: float = 0.15
    grey: float = 0.03
    blur: float = 0.15
    noise: float = 0.2
    grain: float = 0.04
    jpeg: float = 0.2
    worst: int = 30

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or not 0 < self.zoom[0] <= self.zoom[1] or self.fill < 0:
            raise ConfigError(
                "Augment: expected a crop of at least 1 x 1 and a zoom with 0 < lowest <= highest, fill >= 0, "
                f"got {self.height} x {self.width}, {self.zoom} and {self.fill}"
            )


class _Cut(NamedTuple):
    """Rows and columns of the source that become the crop; they may reach beyond it."""

    top: int
    left: int
    rows: int
    columns: int


def augmented(
    sample: Sample, settings: Augment, generator: torch.Generator, kinds: Mapping[str, AnswerKind] = PUBLIC
) -> Sample:
    """A random view of settings.height x settings.width: a function of the sample and the generator.

    kinds: of tasks, by their names. A label of the whole picture stays as it is. An id drawn from a crop may be of a
    thing outside it; choose the zoom accordingly. Beyond the border pixels are repeated and no target is valid. Raises
    ShapeError for a mosaic.
    """
    if sample.frame.kind != "rgb":
        raise ShapeError(f"{sample.name}: expected a photograph to augment, got kind {sample.frame.kind!r}")
    places = torch.rand(4, generator=generator).tolist()  # the same number of draws whatever is switched on
    colours = torch.rand(8, generator=generator).tolist()
    spoils = torch.rand(6, generator=generator).tolist()
    part = _cut_of(sample.frame.size, settings, places)
    flip = places[3] < settings.mirror
    pixels = _recoloured(_shown(sample.frame.pixels, part, settings), settings, colours)
    pixels = _spoilt(pixels.flip(-1) if flip else pixels, settings, spoils, generator)
    targets, valid = {}, {}
    for task, target in sample.targets.items():
        known = sample.valid[task]
        if target.ndim == 3:
            kind = kinds.get(task, "classes")
            taken, known = _taken(kind, target, known, part, settings)
            targets[task], valid[task] = (_mirrored(kind, taken), known.flip(-1)) if flip else (taken, known)
        else:
            targets[task], valid[task] = target, known
    camera = sample.camera and _seen_by(sample.camera, part, settings, flip)
    if camera is not None:
        far = {task: x for task, x in targets.items() if kinds.get(task) == "distance"}
        targets |= {task: geometry.canonical(x, camera) for task, x in far.items()}
    return replace(sample, frame=Frame(pixels), targets=targets, valid=valid, camera=camera)


def canonical(sample: Sample) -> Sample:
    """The sample as it is, its depth canonical as that of `augmented`: for evaluation beside training."""
    if sample.camera is None or "depth" not in sample.targets:
        return sample
    return replace(
        sample, targets={**sample.targets, "depth": geometry.canonical(sample.targets["depth"], sample.camera)}
    )


def _cut_of(size: tuple[int, int], settings: Augment, draws: list[float]) -> _Cut:
    """Whole rows and columns that are nearest to the crop divided by a random zoom, at a random place."""
    least = settings.fill * max(settings.height / size[0], settings.width / size[1])
    high = math.log(settings.zoom[1])
    low = min(high, math.log(max(settings.zoom[0], least)))
    zoom = math.exp(low + draws[0] * (high - low))
    rows, columns = max(1, round(settings.height / zoom)), max(1, round(settings.width / zoom))
    top, left = (math.floor(draw * (abs(have - take) + 1)) * (1 if have >= take else -1)
                 for draw, have, take in ((draws[1], size[0], rows), (draws[2], size[1], columns)))  # fmt: skip
    return _Cut(top, left, rows, columns)


def _seen_by(camera: Intrinsics, part: _Cut, settings: Augment, flip: bool) -> Intrinsics:
    camera = geometry.cut(camera, part.top, part.left)
    camera = geometry.resized(camera, settings.height / part.rows, settings.width / part.columns)
    return geometry.mirrored(camera, settings.width) if flip else camera


def _shown(pixels: Tensor, part: _Cut, settings: Augment) -> Tensor:
    """The picture's part at the crop's size, 3 h w."""
    held, _ = _selected(pixels, part.top, part.rows, 1)
    held, _ = _selected(held, part.left, part.columns, 2)
    if held.shape[1:] == (settings.height, settings.width):
        return held
    wanted = (settings.height, settings.width)
    shrinks = part.rows > settings.height or part.columns > settings.width
    return F.interpolate(held[None], wanted, mode="bilinear", align_corners=False, antialias=shrinks)[0]


def _selected(x: Tensor, first: int, count: int, axis: int) -> tuple[Tensor, Tensor]:
    """Rows or columns first to first + count, those at the border repeated beyond it, and which are inside."""
    places = torch.arange(first, first + count)
    inside = (places >= 0) & (places < x.shape[axis])
    if bool(inside.all()):
        return x.narrow(axis, first, count), inside
    return x.index_select(axis, places.clamp(0, x.shape[axis] - 1)), inside


def _taken(kind: AnswerKind, target: Tensor, valid: Tensor, part: _Cut, settings: Augment) -> tuple[Tensor, Tensor]:
    """A target C H W and its mask H W at the crop's size."""
    valid = valid[None]
    spans = ((part.top, part.rows, settings.height), (part.left, part.columns, settings.width))
    for axis, (first, count, wanted) in enumerate(spans, 1):
        target, inside = _selected(target, first, count, axis)
        valid = _selected(valid, first, count, axis)[0] & (inside[None, :, None] if axis == 1 else inside)
        if count == wanted:
            continue
        if kind == "probability" and count > wanted:  # every pixel falls on one place, whose strongest edge stays
            target, valid = _pooled(target, wanted, axis), ~(_pooled((~valid).float(), wanted, axis) > 0)
            continue
        nearest = ((torch.arange(wanted) + 0.5) * (count / wanted)).long().clamp(max=count - 1)
        target, valid = target.index_select(axis, nearest), valid.index_select(axis, nearest)
    return target * valid, valid[0]


def _pooled(x: Tensor, wanted: int, axis: int) -> Tensor:
    """The largest of all rows or columns that fall on each of fewer; each falls on one only, so lines stay thin."""
    count = x.shape[axis]
    starts = -(-torch.arange(wanted + 1) * count // wanted)  # rows starts[i] to starts[i + 1] fall on row i
    best = x.index_select(axis, starts[:-1])
    for step in range(1, int((starts[1:] - starts[:-1]).max())):
        best = torch.maximum(best, x.index_select(axis, torch.minimum(starts[:-1] + step, starts[1:] - 1)))
    return best


def _mirrored(kind: AnswerKind, target: Tensor) -> Tensor:
    """Left and right swapped; the x of directions too."""
    swapped = target.flip(-1)
    if kind == "direction":
        swapped = swapped * swapped.new_tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    return swapped


def _recoloured(pixels: Tensor, settings: Augment, draws: list[float]) -> Tensor:
    """One affine map of colours, then an exponent: 3 H W in [0, 1].

    Brightness, gains, saturation and hue are one matrix in sRGB values; contrast is about the picture's mean.
    """
    ways = [2.0 * draw - 1.0 for draw in draws]
    bright, contrast = 1 + settings.brightness * ways[0], 1 + settings.contrast * ways[1]
    chroma = 0.0 if draws[7] < settings.grey else 1 + settings.saturation * ways[2]
    turn = settings.hue * ways[3]
    gains = torch.tensor([math.exp(settings.balance * ways[4]), 1.0, math.exp(settings.balance * ways[5])])
    to_luma = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # YIQ
    cosine, sine = chroma * math.cos(turn), chroma * math.sin(turn)
    turned = torch.tensor([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    matrix = torch.linalg.inv(to_luma) @ turned @ to_luma @ (bright * gains).diag()
    flat = pixels.reshape(3, -1)
    middle = (matrix @ flat.mean(1, keepdim=True)).mean()
    coloured = torch.addmm((1 - contrast) * middle, contrast * matrix, flat).clamp_(0.0, 1.0)
    exponent = math.exp(settings.gamma * ways[6])
    if abs(exponent - 1) > 1e-6:
        coloured = coloured.clamp_(min=1e-6).pow_(exponent)
    return coloured.reshape(pixels.shape)


def _spoilt(pixels: Tensor, settings: Augment, draws: list[float], generator: torch.Generator) -> Tensor:
    """Blur, noise and JPEG, each by its odds."""
    if draws[0] < settings.blur:
        pixels = _blurred(pixels, _SHARPEST + draws[1] * (_SOFTEST - _SHARPEST))
    if draws[2] < settings.noise:
        noise = torch.randn(pixels.shape, generator=generator)
        pixels = (pixels + noise.mul_(settings.grain * draws[3])).clamp_(0.0, 1.0)
    if draws[4] < settings.jpeg:
        pixels = _compressed(pixels, round(settings.worst + draws[5] * (95 - settings.worst)))
    return pixels.contiguous()


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian of seven taps along each axis; the border repeats itself."""
    bell = [math.exp(-0.5 * (reach / sigma) ** 2) for reach in range(4)]
    taps = [height / (2 * sum(bell) - bell[0]) for height in bell]
    for axis in (1, 2):
        count = pixels.shape[axis]
        total = pixels * taps[0]
        for reach in (1, 2, 3):
            for way in (-reach, reach):
                total.add_(_selected(pixels, way, count, axis)[0], alpha=taps[reach])
        pixels = total
    return pixels


def _compressed(pixels: Tensor, quality: int) -> Tensor:
    """To a JPEG file and back."""
    values = (pixels * 255.0).round().byte().permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=quality)
    back = np.array(Image.open(file))
    return torch.from_numpy(back).permute(2, 0, 1).float() / 255.0
