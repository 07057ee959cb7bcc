"""The codecs `plain-*`: a map of any space as the numbers themselves, for spaces that nothing was fitted to.

    C h w ─┬─► bits of fp16 or bf16 ─► all high bytes ─► deflate, all low bytes ─► deflate
           └─► round(x / scale of its channel) ─► itself or differences along rows ─► deflate

The numbers come back exactly; what is lost is lost before, in rounding to 16 or 8 bits. Channels stay whole and in
order, so that a run of equal bytes is a run within one channel.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs.checks import no_parent, no_quality
from chiasm.contracts import Parent
from chiasm.errors import PacketError

Array = np.ndarray
Numbers = Literal["fp16", "bf16", "int8"]
LARGEST = {"fp16": 65_504.0, "bf16": float(torch.finfo(torch.bfloat16).max), "int8": float(torch.finfo().max)}
STEPS = 127  # of int8, on either side of zero
SMALLEST = np.finfo(np.float32).tiny  # scale of a channel: below it lie numbers that some machines count as zero


@dataclass(eq=False)
class PlainCodec:
    """Maps C h x w as 16-bit floating point numbers or 8-bit steps of each channel's largest magnitude.

    Relative error at most 2^-11 for fp16 (absolute 2^-25 below 6.1e-5), 2^-8 for bf16; for int8 absolute, 1/254 of the
    largest magnitude in the channel. The symbols are those numbers: uint16 bit patterns or int8, C h w.
    """

    numbers: Numbers
    device: torch.device = torch.device("cpu")
    name: str = field(init=False)
    tables: str = field(default="", init=False)
    qualities: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.name = f"plain-{self.numbers}"

    def parent(self, level: str) -> str:
        """No level is coded on top of another."""
        return ""

    def encode(self, level: str, values: Tensor, quality: int = 0, parent: Parent | None = None) -> tuple[bytes, Array]:
        """values: 1 C h w on any device. Gives the stream and the symbols.

        Raises PacketError for values that are not finite or too large for these numbers, another shape, or a quality.
        """
        no_quality(self.name, level, quality)
        no_parent(self.name, level, parent)
        check_map(self.name, level, tuple(values.shape[1:]))
        x = values.detach()[0].float()
        self._check_range(level, x)
        if self.numbers == "int8":
            scale, symbols = _steps(x)
            ways = enumerate((symbols, _differences(symbols)))
            written = (bytes([way]) + _deflated(part.tobytes()) for way, part in ways)
            return scale.astype("<f4").tobytes() + min(written, key=len), symbols
        bits = x.to(torch.float16 if self.numbers == "fp16" else torch.bfloat16).view(torch.int16).cpu().numpy()
        high, low = ((bits >> shift).astype(np.uint8).tobytes() for shift in (8, 0))
        return _deflated(high) + _deflated(low), bits.view(np.uint16)

    def decode(
        self, level: str, data: bytes, shape: tuple[int, ...], quality: int = 0, parent: Parent | None = None
    ) -> Parent:
        """The inverse: float32 1 C h w on `device`. Raises PacketError for what `encode` does not write."""
        no_quality(self.name, level, quality)
        no_parent(self.name, level, parent)
        check_map(self.name, level, shape)
        if self.numbers == "int8":
            scale, symbols = _read_steps(level, data, shape)
            values = torch.from_numpy(symbols.astype(np.float32) * scale[:, None, None])
            return Parent(values[None].to(self.device), symbols)
        high, rest = inflated(level, data, math.prod(shape))
        low, rest = inflated(level, rest, math.prod(shape))
        check_end(level, rest)
        planes = np.frombuffer(high + low, np.uint8).reshape(2, *shape)
        bits = planes[0].astype(np.uint16) << 8 | planes[1]
        kind = torch.float16 if self.numbers == "fp16" else torch.bfloat16
        values = torch.from_numpy(bits.view(np.int16)).to(self.device).view(kind).float()
        if not bool(values.isfinite().all()):
            raise PacketError(f"the stream of {level!r} has a number that no encoder writes; fetch it again")
        return Parent(values[None], bits)

    def _check_range(self, level: str, x: Tensor) -> None:
        largest = float(x.abs().max())  # NaN where there is one
        if not np.isfinite(largest):
            raise PacketError(
                f"level {level!r} holds values that are not finite; check the encoder's weights and input"
            )
        if largest > LARGEST[self.numbers]:
            other = "plain-bf16" if self.numbers == "fp16" else "plain-int8"
            raise PacketError(
                f"level {level!r} holds {largest:.6g}, and {self.name} has nothing beyond "
                f"{LARGEST[self.numbers]:.6g}; choose {other}"
            )


def _steps(x: Tensor) -> tuple[Array, Array]:
    """Scales C, float32, and int8 C h w of a map."""
    largest = x.abs().amax(dim=(1, 2)).double()
    scale = (largest / STEPS).float().clamp_min(float(SMALLEST))
    scale = torch.where(scale * STEPS > LARGEST["int8"], scale.nextafter(torch.zeros_like(scale)), scale)
    steps = (x / scale[:, None, None]).round().clamp(-STEPS, STEPS).to(torch.int8)
    return scale.cpu().numpy(), steps.cpu().numpy()


def _differences(symbols: Array) -> Array:
    """Each step less its left neighbour, modulo 256: smaller where maps are smooth, larger where they are sparse."""
    differences = symbols.copy()
    differences[..., 1:] -= symbols[..., :-1]
    return differences


def _read_steps(level: str, data: bytes, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The inverse of `_steps`, from a stream."""
    channels = shape[0]
    if len(data) <= 4 * channels:
        raise PacketError(
            f"the stream of {level!r} has {len(data)} bytes, no more than its {channels} scales take; fetch it again"
        )
    scale = np.frombuffer(data, "<f4", channels).astype(np.float32)
    way = data[4 * channels]
    held, rest = inflated(level, data[4 * channels + 1 :], math.prod(shape))
    check_end(level, rest)
    symbols = np.frombuffer(held, np.int8).reshape(shape)
    if way:
        symbols = np.cumsum(symbols, axis=-1, dtype=np.int8)
    with np.errstate(over="ignore", invalid="ignore"):
        sound = bool(((scale >= SMALLEST) & (scale * np.float32(STEPS) <= LARGEST["int8"])).all())
    if not sound or way > 1 or symbols.min() < -STEPS:
        raise PacketError(f"the stream of {level!r} has a scale or step that no encoder writes; fetch it again")
    return scale, symbols


def check_map(codec: str, level: str, shape: tuple[int, ...]) -> None:
    """Raise PacketError unless the shape is that of a map."""
    if len(shape) != 3 or min(shape) < 1:
        raise PacketError(
            f"{codec} codes maps C x h x w, got level {level!r} of shape {tuple(shape)}; "
            "choose vector-fp16 for a vector"
        )


def _deflated(data: bytes) -> bytes:
    """Raw deflate, or deflate's stored blocks where they are shorter, as they are for the low bytes of most numbers.

    Longer matches than runs are rare in features, and cost four times the time to look for.
    """
    coders = (zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE) for level in (1, 0))
    return min((coder.compress(data) + coder.flush() for coder in coders), key=len)


def inflated(level: str, data: bytes, length: int) -> tuple[bytes, bytes]:
    """The `length` bytes that `data` begins with, and what follows. No more than one byte beyond is ever made."""
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        held = decoder.decompress(data, length + 1)
    except zlib.error as error:
        raise PacketError(f"the stream of {level!r} is no deflate stream ({error}); fetch it again") from error
    if len(held) != length or not decoder.eof:
        raise PacketError(f"the stream of {level!r} does not hold just its {length} bytes; fetch it again")
    return held, decoder.unused_data


def check_end(level: str, rest: bytes) -> None:
    """Raise PacketError if something is left of a stream."""
    if rest:
        raise PacketError(f"the stream of {level!r} has {len(rest)} bytes too many; fetch it again")
