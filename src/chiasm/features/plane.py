"""Transforms of the plane that training, codec and validation share: wavelets and affine warps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Villasenor's 6/10 biorthogonal pair (Villasenor, Belzer and Liao 1995, filter 3): even lengths, so that a
# band's samples lie at the centres of 2x2 cells and a mirrored picture has mirrored bands; close to
# orthonormal.
_SIX = (-0.129078, 0.047699, 0.788486)
_TEN = (0.018914, 0.006989, -0.067237, 0.133389, 0.615051)

# Orthonormal opponent colours: grey, red against blue, green against both. Rows: features, columns: R, G, B.
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
OPPONENT = OPPONENT / OPPONENT.norm(dim=1, keepdim=True)


def split_filters() -> tuple[Tensor, Tensor]:
    """Analysis and synthesis kernels of one two-dimensional wavelet step.

    Each is 4 x 10 x 10 (low, right, down, both).

    For convolutions of stride 2 and padding 4: `conv2d` with the first and `conv_transpose2d` with the second
    reconstruct exactly away from borders.
    """
    six = torch.tensor([0.0, 0.0, *_SIX, *reversed(_SIX), 0.0, 0.0])
    ten = torch.tensor([*_TEN, *reversed(_TEN)])
    sign = torch.tensor([1.0, -1.0]).repeat(5)
    low, high = ten.norm(), six.norm()  # synthesis of unit norm: an error of a band is one of the plane
    return _products(six * low, ten * sign * high), _products(ten / low, six * sign / high)


def _products(low: Tensor, high: Tensor) -> Tensor:
    return torch.stack([torch.outer(rows, columns) for rows in (low, high) for columns in (low, high)])


# The Cohen-Daubechies-Feauveau 9/7 wavelet as lifting steps (Daubechies and Sweldens 1998), scaled to be
# nearly orthonormal: a quantiser's error in a band is then its error in the plane.
_LIFT = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
_SCALE = 1.149604398860241


def _next(x: Tensor) -> Tensor:
    return torch.cat([x[..., 1:], x[..., -1:]], dim=-1)


def _previous(x: Tensor) -> Tensor:
    return torch.cat([x[..., :1], x[..., :-1]], dim=-1)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    low, high = x[..., 0::2], x[..., 1::2]
    high = high + _LIFT[0] * (low + _next(low))
    low = low + _LIFT[1] * (high + _previous(high))
    high = high + _LIFT[2] * (low + _next(low))
    low = low + _LIFT[3] * (high + _previous(high))
    return low * _SCALE, high / _SCALE


def _merge(low: Tensor, high: Tensor) -> Tensor:
    low, high = low / _SCALE, high * _SCALE
    low = low - _LIFT[3] * (high + _previous(high))
    high = high - _LIFT[2] * (low + _next(low))
    low = low - _LIFT[1] * (high + _previous(high))
    high = high - _LIFT[0] * (low + _next(low))
    return torch.stack([low, high], dim=-1).flatten(-2)


def wavelet(x: Tensor, depth: int) -> list[Tensor]:
    """B C H W (multiples of 2^depth) to bands, fine to coarse.

    `depth` of them are B C 3 h w (right, down, both), the last is B C 1 h w.
    """
    bands: list[Tensor] = []
    for _ in range(depth):
        low, right = _split(x)
        low_low, low_down = _split(low.transpose(-1, -2))
        right_low, right_down = _split(right.transpose(-1, -2))
        bands.append(torch.stack([right_low, low_down, right_down], dim=2).transpose(-1, -2))
        x = low_low.transpose(-1, -2)
    return [*bands, x[:, :, None]]


def unwavelet(bands: Sequence[Tensor]) -> Tensor:
    """The exact inverse of `wavelet`."""
    x = bands[-1][:, :, 0]
    for band in reversed(bands[:-1]):
        right_low, low_down, right_down = band.transpose(-1, -2).unbind(2)
        low = _merge(x.transpose(-1, -2), low_down).transpose(-1, -2)
        right = _merge(right_low, right_down).transpose(-1, -2)
        x = _merge(low, right)
    return x


def double(x: Tensor) -> Tensor:
    """B C H W to B C 2H 2W, bilinear about pixel centres: how `context` looks from `detail`."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Affine(NamedTuple):
    """x' = A x + t about the centre of the picture, y down; t in pixels of the picture, not of a map."""

    a: float
    b: float
    c: float
    d: float
    right: float = 0.0
    down: float = 0.0

    @staticmethod
    def of(*, degrees: float = 0.0, scale: float = 1.0, shear: float = 0.0, flip: bool = False) -> Affine:
        """Rotation (counter-clockwise as seen), scale, horizontal shear in degrees and horizontal flip."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        k = math.tan(math.radians(shear))
        sign = -1.0 if flip else 1.0
        return Affine(
            scale * sign * cos,
            scale * (sign * k * cos + sin),
            -scale * sign * sin,
            scale * (cos - sign * k * sin),
        )


def warp(x: Tensor, transform: Affine, stride: int = 1) -> Tensor:
    """Move the content of B C H W by `transform`, bilinear, zeros from outside; pixel centres lie at +0.5.

    stride: pixels per element of x, by which the translation is divided: the f_s of arXiv:2509.20481, Eq. 3.
    """
    height, width = x.shape[-2:]
    det = transform.a * transform.d - transform.b * transform.c
    ia, ib, ic, id_ = transform.d / det, -transform.b / det, -transform.c / det, transform.a / det
    right, down = transform.right / stride, transform.down / stride
    tx, ty = -(ia * right + ib * down), -(ic * right + id_ * down)
    theta = x.new_tensor([[ia, ib * height / width, tx * 2 / width], [ic * width / height, id_, ty * 2 / height]])
    grid = F.affine_grid(theta.expand(x.shape[0], 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def valid(size: tuple[int, int], transform: Affine, margin: int, stride: int) -> Tensor:
    """1 1 H/s W/s mask, 1 where a warped map depends on nothing nearer than `margin` pixels to a border."""
    height, width = size
    inside = torch.zeros(1, 1, height, width)
    inside[..., margin : height - margin, margin : width - margin] = 1.0
    moved = (warp(inside, transform) > 0.999).float() * inside
    return 1.0 - F.max_pool2d(1.0 - moved, stride)
