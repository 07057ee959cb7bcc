"""The codec `pixels`: a picture itself, without loss, as a level of 8-bit values.

    C h w in [0, 1] ─► 0 to 255 ─► green and what red and blue differ from it ─► differences of neighbours ─► deflate

For what a fitted space draws badly: icons, screenshots, palettes, pictures of a few pixels. Which of the steps between
are taken is tried out, and written in front.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs.checks import no_parent, no_quality
from chiasm.codecs.plain import check_end, check_map, inflated
from chiasm.contracts import Parent
from chiasm.errors import PacketError

Array = np.ndarray
LEFT, UP, COLOUR = 1, 2, 4  # added up: which steps are taken
WAYS = (0, UP, LEFT | UP, COLOUR | LEFT, COLOUR | UP, COLOUR | LEFT | UP)


@dataclass(eq=False)
class PixelCodec:
    """Maps C x h x w of values in [0, 1], each rounded to the nearest of 0, 1/255, ..., 1: exact for 8-bit pictures.

    The symbols are uint8 C h w.
    """

    device: torch.device = torch.device("cpu")
    name: str = field(default="pixels", init=False)
    tables: str = field(default="", init=False)
    qualities: int = field(default=0, init=False)

    def parent(self, level: str) -> str:
        """No level is coded on top of another."""
        return ""

    def encode(self, level: str, values: Tensor, quality: int = 0, parent: Parent | None = None) -> tuple[bytes, Array]:
        """values: 1 C h w in [0, 1] on any device. Raises PacketError for others, another shape, or a quality."""
        no_quality(self.name, level, quality)
        no_parent(self.name, level, parent)
        check_map(self.name, level, tuple(values.shape[1:]))
        x = values.detach()[0].float() * 255.0
        low, high = float(x.amin()), float(x.amax())
        if not (low >= -0.5 and high <= 255.5):  # neither holds of NaN
            raise PacketError(
                f"level {level!r} holds values of {low / 255:.6g} to {high / 255:.6g}, and pixels has those in [0, 1]; "
                "choose plain-fp16"
            )
        symbols: Array = x.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        ways = [way for way in WAYS if len(symbols) == 3 or not way & COLOUR]
        return min((bytes([way]) + _deflated(_forward(symbols, way).tobytes()) for way in ways), key=len), symbols

    def decode(
        self, level: str, data: bytes, shape: tuple[int, ...], quality: int = 0, parent: Parent | None = None
    ) -> Parent:
        """The inverse: float32 1 C h w on `device`. Raises PacketError for what `encode` does not write."""
        no_quality(self.name, level, quality)
        no_parent(self.name, level, parent)
        check_map(self.name, level, shape)
        way = data[0] if data else 0
        if way >= 2 * COLOUR or (way & COLOUR and shape[0] != 3):
            raise PacketError(f"the stream of {level!r} was written in a way that no encoder has; fetch it again")
        held, rest = inflated(level, data[1:], math.prod(shape))
        check_end(level, rest)
        symbols = _backward(np.frombuffer(held, np.uint8).reshape(shape), way)
        return Parent((torch.from_numpy(symbols).to(self.device).float() / 255.0)[None], symbols)


def _deflated(data: bytes) -> bytes:
    """Deflate with its search for earlier matches: drawings repeat themselves."""
    coder = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return coder.compress(data) + coder.flush()


def _forward(symbols: Array, way: int) -> Array:
    """Differences modulo 256, of colours, then of left and of upper neighbours."""
    x = symbols
    if way & COLOUR:
        x = np.stack([x[1], x[0] - x[1], x[2] - x[1]])
    for flag, axis in ((LEFT, -1), (UP, -2)):
        if way & flag:
            x = np.diff(x, axis=axis, prepend=np.uint8(0))
    return x


def _backward(x: Array, way: int) -> Array:
    """The inverse of `_forward`."""
    for flag, axis in ((LEFT, -1), (UP, -2)):
        if way & flag:
            x = np.cumsum(x, axis=axis, dtype=np.uint8)
    if way & COLOUR:
        return np.stack([x[1] + x[0], x[0], x[2] + x[0]])
    return np.array(x)
