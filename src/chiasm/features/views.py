"""How a picture is fitted to what an encoder reads, and the way back from a map to the picture's pixels.

    picture ──fit──► View ──apply──► pixels of the encoder ──► maps ──raised──► at the picture's pixels

Three policies. `native`: as it is, padded at the bottom and right to the grid. `longest:518`: resized so that the
longer side is near 518 and both sides are multiples of the grid; the aspect is kept but for that. `square:224`:
the whole picture squashed to 224 x 224. Coordinates are continuous: (0, 0) is the upper left corner of the upper left
pixel, and the centre of pixel i lies at i + 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Size, View
from chiasm.errors import ConfigError, ShapeError
from chiasm.features.layout import pad, padded

NATIVE = "native"
LARGEST = 8192  # pixels of a side that a picture may be resized to
_RESIZED = re.compile(r"(longest|square):([1-9][0-9]{0,4})")


def parse(policy: str) -> tuple[str, int]:
    """`native`, `longest:N` or `square:N` to its name and N (0 for native). Raises ConfigError for anything else."""
    if policy == NATIVE:
        return NATIVE, 0
    found = _RESIZED.fullmatch(policy)
    if found is None or int(found[2]) > LARGEST:
        raise ConfigError(
            f"expected a view native, longest:N or square:N with N from 1 to {LARGEST} pixels, got {policy!r}; "
            "for example longest:518"
        )
    return found[1], int(found[2])


def fit(policy: str, size: Size, grid: int) -> View:
    """The view of a picture of `size` (height, width) under a policy.

    grid: native and longest give multiples of it, at least one; square gives N x N as it is asked, so that a network
    is shown the size that it was trained at. Raises ConfigError for an unknown policy.
    """
    name, edge = parse(policy)
    if name == NATIVE:
        return View(padded(size, grid))
    if name == "square":
        seen = (edge, edge)
    else:
        height, width = (max(1, round(side * edge / max(size) / grid)) * grid for side in size)
        seen = (height, width)
    return View(seen, (seen[0] / size[0], seen[1] / size[1]))


def apply(pixels: Tensor, view: View) -> Tensor:
    """Pixels ... C H W of a whole picture, in [0, 1], as the encoder sees them: ... C and the view's size.

    Resized by an antialiased bicubic filter, clamped to [0, 1]; padded by repeating the last row and column. Raises
    ShapeError for a view that is moved, or that is of a picture of another size.
    """
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    if view.offset != (0.0, 0.0):
        raise ShapeError(f"expected a view whose offset is 0, got {view.offset}; cut the picture first")
    if view.scale == (1.0, 1.0):
        return pad(pixels, view.size)
    if any(abs(side * scale - edge) > 0.5 for side, scale, edge in zip(size, view.scale, view.size, strict=True)):
        raise ShapeError(
            f"a view of {view.size} pixels at scale {view.scale} is not of a picture of {size}; make it with fit"
        )
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    seen = F.interpolate(flat, size=view.size, mode="bicubic", antialias=True, align_corners=False)
    return seen.clamp_(0, 1).reshape(*pixels.shape[:-2], *view.size)


@dataclass(frozen=True)
class Axis:
    """Where the pixels of one axis lie between elements: the ones before and after, and the share of the latter."""

    before: Tensor
    after: Tensor
    share: Tensor

    def part(self, start: int, stop: int) -> Axis:
        return Axis(self.before[start:stop], self.after[start:stop], self.share[start:stop])

    def between(self, maps: Tensor, dim: int) -> Tensor:
        """Maps ... h w at the pixels of this axis, dim -2 or -1: linear between elements, constant beyond them."""
        share = self.share if dim == -1 else self.share[:, None]
        return torch.lerp(maps.index_select(dim, self.before), maps.index_select(dim, self.after), share)


def axes(view: View, size: Size, maps: Tensor, stride: float) -> tuple[Axis, Axis]:
    """Where the centres of a picture's pixels lie in maps ... h w: rows (H) and columns (W), on the maps' device.

    size: of the picture. stride: pixels of the view per element. Element i stands for the pixels from i * stride to
    (i + 1) * stride of the view, also where a convolution has rounded its size up or down (260 pixels to 9 or 8
    elements at stride 32): so labels were laid on what a head learnt from, whole or cut into windows.
    """
    rows, columns = (
        _axis(view.scale[axis], view.offset[axis], size[axis], maps.shape[axis - 2], stride) for axis in (0, 1)
    )
    return _placed(rows, maps), _placed(columns, maps)


def _axis(scale: float, offset: float, pixels: int, elements: int, stride: float) -> Axis:
    seen = scale * (torch.arange(pixels, dtype=torch.float64) + 0.5) + offset  # places in the encoder's input
    place = (seen / stride - 0.5).clamp(0, elements - 1)  # centres of elements lie at + 0.5 too
    before = place.floor().long()
    return Axis(before, (before + 1).clamp_max(elements - 1), place - before)


def _placed(axis: Axis, maps: Tensor) -> Axis:
    return Axis(axis.before.to(maps.device), axis.after.to(maps.device), axis.share.to(maps))


def raised(maps: Tensor, view: View, size: Size, stride: float) -> Tensor:
    """Maps B C h w to the pixels of the picture, B C H W: bilinear between elements, the outer ones repeated.

    The arguments are those of `axes`. A map of the picture's own size comes back as it is.
    """
    covered = [n * stride for n in maps.shape[-2:]]
    seen = [n * scale for n, scale in zip(size, view.scale, strict=True)]
    if covered == list(view.size) == seen and not any(view.offset):
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)  # the same numbers, faster
    rows, columns = axes(view, size, maps, stride)
    return rows.between(columns.between(maps, -1), -2)


def stride_of(size: Sequence[int], maps: Iterable[tuple[int, Sequence[int]]], seen: Size) -> float:
    """Pixels of the encoder's input per element of an answer: the stride of the map that it has the size of.

    size: height and width of the answer. maps: stride, and height and width, of each map that was read. seen: size of
    the encoder's input, which is divided where no map has the answer's size.
    """
    strides = [stride for stride, other in maps if tuple(other) == tuple(size)]
    return min(strides) if strides else seen[0] / size[0]
