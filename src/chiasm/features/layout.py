"""Every pad, crop and tile in chiasm. Whoever must change a size calls this module; nobody does it by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Features
from chiasm.errors import ShapeError


def padded(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """The smallest height and width that hold `size` and are multiples of `grid`."""
    height, width = size
    return -(-height // grid) * grid, -(-width // grid) * grid


def pad(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Grow ... C H W to `size` at the bottom and right by repeating the last row and column."""
    height, width = size
    bottom, right = height - pixels.shape[-2], width - pixels.shape[-1]
    if bottom < 0 or right < 0:
        raise ShapeError(f"pad: expected a size of at least {tuple(pixels.shape[-2:])}, got {size}")
    if not bottom and not right:
        return pixels
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    return F.pad(flat, (0, right, 0, bottom), mode="replicate").reshape(*pixels.shape[:-2], height, width)


def crop(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The top left `size` of ... H W: the inverse of `pad`."""
    height, width = size
    return pixels[..., :height, :width]


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels: rows top to bottom, columns left to right, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, size: tuple[int, int]) -> Window:
        """This window with `margin` pixels more on every side, kept inside a picture of `size`."""
        return Window(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(size[0], self.bottom + margin),
            min(size[1], self.right + margin),
        )

    def within(self, outer: Window) -> Window:
        """The same rectangle in the coordinates of `outer`."""
        return Window(
            self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left
        )

    def at(self, stride: int) -> tuple[slice, slice]:
        """Row and column slices of a map at `stride`, the last row and column rounded up."""
        return (
            slice(self.top // stride, -(-self.bottom // stride)),
            slice(self.left // stride, -(-self.right // stride)),
        )


def tiles(size: tuple[int, int], edge: int) -> Iterator[Window]:
    """Square windows of `edge` pixels that cover `size`, row by row; those at the border are smaller."""
    height, width = size
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            yield Window(top, left, min(top + edge, height), min(left + edge, width))


def cut(features: Features, strides: Sequence[tuple[str, int]], window: Window) -> Features:
    """The part of every map that lies in `window` (in pixels of the picture)."""
    return Features({name: features.maps[name][..., *window.at(stride)] for name, stride in strides if name in features.maps})
