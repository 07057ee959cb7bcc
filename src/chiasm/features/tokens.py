"""Tokens of a transformer to maps and back: the one place where the order of tokens is known.

    B N D, N = prefix + h * w   ──split──►   prefix tokens B P D (class token, registers)   and   a map B D h w

Patches come row by row after the prefix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chiasm.contracts import Size
from chiasm.errors import ShapeError


def split(tokens: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Tokens B N D to what comes before the patches, B P D, and the map of the patches, B D h w; `size`: h and w.

    Raises ShapeError when there are fewer tokens than places.
    """
    height, width = size
    prefix = tokens.shape[1] - height * width
    if tokens.ndim != 3 or prefix < 0:
        raise ShapeError(
            f"expected tokens B N D with N at least {height} x {width}, got {' '.join(map(str, tokens.shape))}; "
            "the picture's size over the patch size gives the places"
        )
    patches = tokens[:, prefix:].transpose(1, 2)  # B D h*w
    return tokens[:, :prefix], patches.reshape(tokens.shape[0], tokens.shape[2], height, width).contiguous()


def join(prefix: Tensor | None, patches: Tensor) -> Tensor:
    """The inverse of `split`: B P D (or None) and B D h w to B N D."""
    flat = patches.flatten(2).transpose(1, 2)  # B h*w D
    return flat if prefix is None else torch.cat([prefix, flat], dim=1)


def square_size(count: int, most_prefix: int = 16) -> Size | None:
    """Height and width of the map of a square input with `count` tokens; None when no square leaves a short prefix."""
    edge = int(count**0.5)
    return (edge, edge) if edge and count - edge * edge <= most_prefix else None
