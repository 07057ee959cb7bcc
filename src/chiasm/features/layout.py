"""Every pad, crop and tile in chiasm: whoever must change a size calls this module, nobody by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.errors import ShapeError


def padded(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """The smallest height and width that hold `size` and are multiples of `grid`."""
    height, width = size
    return -(-height // grid) * grid, -(-width // grid) * grid


def pad(pixels: Tensor, size: tuple[int, int], cell: int = 1) -> Tensor:
    """Grow ... C H W to `size` at the bottom and right by repeating the last row and column of cells.

    cell: 2 for mosaics, whose colours keep their places; H, W and `size` are then multiples of it.
    """
    if cell > 1:
        cells = F.pixel_unshuffle(pixels, cell)
        return F.pixel_shuffle(pad(cells, (size[0] // cell, size[1] // cell)), cell)
    height, width = size
    bottom, right = height - pixels.shape[-2], width - pixels.shape[-1]
    if bottom < 0 or right < 0:
        raise ShapeError(f"pad: expected a size of at least {tuple(pixels.shape[-2:])}, got {size}")
    if not bottom and not right:
        return pixels
    last = pixels.ndim == 4 and not pixels.is_contiguous() and pixels.is_contiguous(memory_format=torch.channels_last)
    grown = torch.empty(
        (*pixels.shape[:-2], height, width), dtype=pixels.dtype, device=pixels.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    rows, columns = pixels.shape[-2:]
    grown[..., :rows, :columns] = pixels  # copies in the order of memory: F.pad takes ten times as long
    grown[..., rows:, :columns] = pixels[..., -1:, :]
    grown[..., columns:] = grown[..., columns - 1 : columns]
    return grown


def blank(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Grow a mask ... H W to `size` at the bottom and right: nothing is valid there. Beside `pad`."""
    return F.pad(mask, (0, size[1] - mask.shape[-1], 0, size[0] - mask.shape[-2]))


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

    def meet(self, other: Window) -> Window | None:
        """The rectangle both share, or None."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Window(top, left, bottom, right) if top < bottom and left < right else None

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
    """Square windows of `edge` pixels that cover `size`, row by row; those at the border are smaller. 0: one window."""
    height, width = size
    if not edge:
        yield Window(0, 0, height, width)
        return
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            yield Window(top, left, min(top + edge, height), min(left + edge, width))


def count(size: tuple[int, int], edge: int) -> int:
    """How many windows `tiles` yields."""
    return -(-size[0] // edge) * -(-size[1] // edge) if edge else 1


def cut(maps: Mapping[str, Tensor], strides: Mapping[str, int], window: Window) -> dict[str, Tensor]:
    """The part of every map that lies in `window` (in pixels of the part that the maps cover)."""
    return {name: x[..., *window.at(strides[name])] for name, x in maps.items()}


def assemble(
    outer: Window, parts: Iterable[tuple[Window, Mapping[str, Tensor]]], strides: Mapping[str, int]
) -> dict[str, Tensor]:
    """One set of maps over `outer` from maps that cover windows of it. Windows lie on the grid."""
    maps: dict[str, Tensor] = {}
    for window, held in parts:
        shared = window.meet(outer)
        if shared is None:
            continue
        for name, x in held.items():
            stride = strides[name]
            if name not in maps:
                height, width = outer.size
                maps[name] = x.new_zeros(*x.shape[:-2], height // stride, width // stride)
            maps[name][..., *shared.within(outer).at(stride)] = x[..., *shared.within(window).at(stride)]
    return maps
