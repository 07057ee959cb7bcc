"""The pinned family of affine motions, applied to pixels or to feature maps by one rule.

A motion f moves the content of a picture about its centre. It is written as the way back: the position in the
output, in pixels from the centre, times `back`, is the position in the input. Pixel centres are at +0.5
(align_corners=False), so a map of stride s, whose cell j covers pixels s j to s (j + 1), is moved by the same
motion with its translation divided by s: the f_s of arXiv:2509.20481, eq. 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.errors import ShapeError

Matrix = tuple[tuple[float, float], tuple[float, float]]
IDENTITY: Matrix = ((1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Motion:
    """One affine motion.

    back: 2 x 2 over (x right, y down), output position from the centre to input position from the centre.
    shift: pixels (x, y) that the content moves, after `back`. exact: no value is interpolated at strides 1, 2
    and 4.
    """

    name: str
    back: Matrix = IDENTITY
    shift: tuple[int, int] = (0, 0)
    exact: bool = False

    def __call__(self, maps: Tensor, stride: int = 1) -> Tensor:
        """B C h w at `stride` pixels a cell to the moved B C h' w' (h', w' swapped by a quarter turn).

        What comes from outside is 0: see `valid`. Flips, quarter turns and whole cells of translation copy
        values; the rest is sampled bilinearly.
        """
        whole = all(step % stride == 0 for step in self.shift)
        if self.back == IDENTITY and whole:
            return _shifted(maps, self.shift[0] // stride, self.shift[1] // stride)
        if self.shift == (0, 0) and _turns(self.back):
            return _turned(maps, self.back)
        height, width = maps.shape[-2] * stride, maps.shape[-1] * stride
        grid = F.affine_grid(self._theta(height, width), [1, 1, *maps.shape[-2:]], align_corners=False)
        grid = grid.to(maps).expand(maps.shape[0], -1, -1, -1)
        return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def valid(self, size: tuple[int, int], stride: int, margin: int) -> Tensor:
        """Where E(f(x)) and f_s(E(x)) may be compared: bool h' w' over the output's cells.

        size: height and width in pixels of the input; margin: pixels, the encoder's receptive radius. A cell
        is valid when the disc of that radius about its centre lies in the output, and the disc's image, and
        the same disc about the cell's image, lie in the input: no border and no invented pixel reaches either
        side.
        """
        height, width = (size[1], size[0]) if _turns(self.back) and self.back[0][0] == 0 else size
        y = torch.arange(height // stride).double()[:, None] * stride + stride / 2  # centres of cells, pixels
        x = torch.arange(width // stride).double()[None] * stride + stride / 2
        (a, b), (c, d) = self.back
        across, down = x - width / 2 - self.shift[0], y - height / 2 - self.shift[1]
        from_x, from_y = a * across + b * down + size[1] / 2, c * across + d * down + size[0] / 2
        reach = margin * max(1.0, float(torch.linalg.matrix_norm(torch.tensor(self.back), 2)))
        output = torch.minimum(torch.minimum(x, width - x), torch.minimum(y, height - y)) >= margin
        source = torch.minimum(torch.minimum(from_x, size[1] - from_x), torch.minimum(from_y, size[0] - from_y))
        return output & (source >= reach - 1e-6)

    def _theta(self, height: int, width: int) -> Tensor:
        """The way back in grid_sample's coordinates, -1 to 1 over each side: the same at every stride."""
        (a, b), (c, d) = self.back
        right, down = self.shift
        first = (a, b * height / width, -2 * (a * right + b * down) / width)
        second = (c * width / height, d, -2 * (c * right + d * down) / height)
        return torch.tensor([[first, second]], dtype=torch.float32)


def rotation(degrees: float) -> Matrix:
    """Content turns counter-clockwise as one sees it (y points down) by `degrees`."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((cosine, -sine), (sine, cosine))


def scale(factor: float) -> Matrix:
    """Content becomes `factor` times as large."""
    return ((1 / factor, 0.0), (0.0, 1 / factor))


def shear(degrees: float) -> Matrix:
    """Upright lines lean by `degrees`."""
    return ((1.0, math.tan(math.radians(degrees))), (0.0, 1.0))


MOTIONS = (
    Motion("hflip", ((-1.0, 0.0), (0.0, 1.0)), exact=True),
    Motion("vflip", ((1.0, 0.0), (0.0, -1.0)), exact=True),
    Motion("rot90", ((0.0, -1.0), (1.0, 0.0)), exact=True),
    Motion("rot180", ((-1.0, 0.0), (0.0, -1.0)), exact=True),
    Motion("rot270", ((0.0, 1.0), (-1.0, 0.0)), exact=True),
    Motion("shift 4,0", shift=(4, 0), exact=True),
    Motion("shift 0,8", shift=(0, 8), exact=True),
    Motion("shift -12,16", shift=(-12, 16), exact=True),
    Motion("rotate +15", rotation(15)),
    Motion("rotate -15", rotation(-15)),
    Motion("scale 0.8", scale(0.8)),
    Motion("scale 1.25", scale(1.25)),
    Motion("shear +5", shear(5)),
    Motion("shear -5", shear(-5)),
)


def _turns(back: Matrix) -> bool:
    """Whether the motion only permutes and mirrors the axes, so that cells fall on cells."""
    return sorted(abs(value) for row in back for value in row) == [0, 0, 1, 1]


def _turned(maps: Tensor, back: Matrix) -> Tensor:
    (a, b), (c, d) = back
    if a == 0:  # x of the input runs along y of the output: the axes swap, then either may be mirrored
        maps, along_x, along_y = maps.transpose(-2, -1), c, b
    else:
        along_x, along_y = a, d
    axes = [axis for axis, sign in ((-1, along_x), (-2, along_y)) if sign < 0]
    return maps.flip(axes) if axes else maps


def _shifted(maps: Tensor, right: int, down: int) -> Tensor:
    height, width = maps.shape[-2:]
    if abs(down) >= height or abs(right) >= width:
        raise ShapeError(f"a map of {height} x {width} cells cannot move by {down}, {right} cells; use larger pictures")
    return F.pad(maps, (right, -right, down, -down))  # a negative pad crops what leaves the picture
