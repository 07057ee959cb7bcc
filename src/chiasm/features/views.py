"""How a picture is fitted to what an encoder reads, and the way back from a map to the picture's pixels.

    picture ──fit──► View ──apply──► pixels of the encoder ──► maps ──raised──► at the picture's pixels

Three policies. `native`: as it is, padded at the bottom and right to the grid. `longest:518`: resized so that the
longer side is near 518 and both sides are multiples of the grid; the aspect is kept but for that. `square:224`:
the whole picture squashed to 224 x 224. Coordinates are continuous: (0, 0) is the upper left corner of the upper left
pixel, and the centre of pixel i lies at i + 0.5.
"""

from __future__ import annotations

import re

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


def centres(view: View, size: Size, shape: Size, stride: float | None = None) -> tuple[Tensor, Tensor]:
    """Where the centres of a picture's pixels lie in a map: fractional indices of rows (H) and of columns (W).

    size: of the picture. shape: height and width of the map. stride: pixels of the view from one element to the next;
    None: the view's size over the map's. Element 0 is index 0.0. Elements stand around the middle of the view, so that
    a convolution which rounds its size up (260 pixels to 9 elements at stride 32) is met where it looked.
    """
    rows, columns = (
        _along(view.size[axis], view.scale[axis], view.offset[axis], size[axis], shape[axis], stride) for axis in (0, 1)
    )
    return rows, columns


def _along(edge: int, scale: float, offset: float, pixels: int, elements: int, stride: float | None) -> Tensor:
    step = edge / elements if stride is None else stride
    seen = scale * (torch.arange(pixels, dtype=torch.float64) + 0.5) + offset  # places in the encoder's input
    return (seen - edge / 2) / step + (elements - 1) / 2


def raised(maps: Tensor, view: View, size: Size, stride: float | None = None) -> Tensor:
    """Maps B C h w to the pixels of the picture, B C H W: bilinear between elements, the outer ones repeated.

    The arguments are those of `centres`. A map of the picture's own size comes back as it is.
    """
    rows, columns = centres(view, size, (int(maps.shape[-2]), int(maps.shape[-1])), stride)
    return _interpolated(_interpolated(maps, rows, -2), columns, -1)


def _interpolated(maps: Tensor, places: Tensor, axis: int) -> Tensor:
    """Values at fractional indices along one axis, linear; beyond the ends, those of the ends."""
    last = maps.shape[axis] - 1
    places = places.clamp(0, last)
    below = places.floor().long()
    share = (places - below).to(maps)
    low, high = below.to(maps.device), (below + 1).clamp(max=last).to(maps.device)
    share = share.reshape([-1, 1] if axis == -2 else [-1])
    return torch.lerp(maps.index_select(axis, low), maps.index_select(axis, high), share)
