"""The codecs `vector-fp16` and `vector-fp32`: one vector for a picture, as little-endian numbers and nothing else.

A store keeps such a stream as a list of numbers, which its search reads as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs.checks import no_parent, no_quality
from chiasm.contracts import Parent
from chiasm.errors import PacketError

Array = np.ndarray
Numbers = Literal["fp16", "fp32"]
KINDS = {"fp16": "<f2", "fp32": "<f4"}


@dataclass(eq=False)
class VectorCodec:
    """Vectors of D numbers, each rounded to float16 (relative error at most 2^-11) or kept as float32.

    The symbols are the numbers.
    """

    numbers: Numbers = "fp16"
    device: torch.device = torch.device("cpu")
    name: str = field(init=False)
    tables: str = field(default="", init=False)
    qualities: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.name = f"vector-{self.numbers}"

    def parent(self, level: str) -> str:
        """No level is coded on top of another."""
        return ""

    def encode(self, level: str, values: Tensor, quality: int = 0, parent: Parent | None = None) -> tuple[bytes, Array]:
        """values: 1 D on any device. Raises PacketError for values that are not finite or beyond 65,504 in float16."""
        no_quality(self.name, level, quality)
        no_parent(self.name, level, parent)
        self._check(level, tuple(values.shape[1:]))
        x = values.detach()[0].float().cpu().numpy()
        if not np.isfinite(x).all():
            raise PacketError(
                f"level {level!r} holds values that are not finite; check the encoder's weights and input"
            )
        if self.numbers == "fp16" and np.abs(x).max() > np.finfo(np.float16).max:
            raise PacketError(
                f"level {level!r} holds {np.abs(x).max():.6g}, and {self.name} has nothing beyond 65504; "
                "choose vector-fp32"
            )
        symbols: Array = x.astype(KINDS[self.numbers])
        return symbols.tobytes(), symbols

    def decode(
        self, level: str, data: bytes, shape: tuple[int, ...], quality: int = 0, parent: Parent | None = None
    ) -> Parent:
        """The inverse: float32 1 D on `device`. Raises PacketError for another length, or what is not finite."""
        no_quality(self.name, level, quality)
        no_parent(self.name, level, parent)
        self._check(level, shape)
        width = np.dtype(KINDS[self.numbers]).itemsize
        if len(data) != shape[0] * width:
            raise PacketError(
                f"level {level!r} of {shape[0]} numbers takes {shape[0] * width} bytes as {self.name}, "
                f"got {len(data)}; fetch it again"
            )
        symbols = np.frombuffer(data, KINDS[self.numbers])
        if not np.isfinite(symbols).all():
            raise PacketError(f"the stream of {level!r} has a number that no encoder writes; fetch it again")
        return Parent(torch.from_numpy(symbols.astype(np.float32))[None].to(self.device), symbols)

    def _check(self, level: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 1 or shape[0] < 1:
            raise PacketError(
                f"{self.name} codes vectors, got level {level!r} of shape {tuple(shape)}; choose plain-fp16 for a map"
            )
