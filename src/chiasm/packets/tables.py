"""What the codec `transform` knows of a space: fitted once, named by hash, never decided by a float while decoding.

    per level    mean C, basis C x K (orthonormal columns), parent or none, wavelet depth
    per quality  one quantiser step a level; integer weights that predict a magnitude from its surroundings;
                 where in its interval a symbol is reconstructed
    shared       64 integer distributions over magnitude symbols, and the thresholds that choose one
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chiasm.errors import PacketError

Array = np.ndarray
QUALITIES = 8
VERSION = 1
_FACTS = ("name", "stride", "parent", "smooth", "depth")
_NAMES = ("mean", "basis", "weights", "offsets")


@dataclass(frozen=True)
class LevelTables:
    """One level. `parent`: the level whose doubled decoded map is subtracted first, or ''.

    The first `smooth` components go through a wavelet of `depth` steps. mean: float32 C; basis: float32 C x K,
    orthonormal columns; weights: int32 qualities x bands x 3 passes x 3 orientations x K x features; offsets: float32
    qualities x bands x K x 3, how far below m a magnitude m of 1, 2, or more is reconstructed. Bands count from fine
    to coarse; components count from the first of the band.
    """

    name: str
    stride: int
    parent: str
    smooth: int
    depth: int
    mean: Array
    basis: Array
    weights: Array
    offsets: Array

    @property
    def components(self) -> int:
        return int(self.basis.shape[1])

    @property
    def bands(self) -> int:
        return self.depth + 2 if self.smooth else 1


@dataclass(frozen=True)
class Tables:
    """All that a decoder needs besides a packet. steps: float32 qualities x levels; counts: int64 classes x symbols,
    each row summing to 2^16; classes: uint8 look-up from a predicted magnitude (in 1/128) to a row of counts."""

    space: str
    levels: tuple[LevelTables, ...]
    steps: Array
    counts: Array
    classes: Array

    @cached_property
    def data(self) -> bytes:
        """The tables as safetensors bytes, the same for equal tables."""
        arrays = {"steps": self.steps, "counts": self.counts.astype(np.int32), "classes": self.classes}
        for level in self.levels:
            for name in _NAMES:
                arrays[f"{level.name}/{name}"] = getattr(level, name)
        about = [{key: getattr(x, key) for key in _FACTS} for x in self.levels]
        header = {"format": str(VERSION), "space": self.space, "levels": json.dumps(about)}
        return save({key: np.ascontiguousarray(value) for key, value in sorted(arrays.items())}, header)

    @cached_property
    def name(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `data`: what a packet calls its tables."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def level(self, name: str) -> LevelTables:
        return next(level for level in self.levels if level.name == name)

    @staticmethod
    def read(data: bytes) -> Tables:
        """The inverse of `data`. Raises PacketError for bytes that are not tables of this version."""
        try:
            arrays = load(data)
            header = _header(data)
            if header["format"] != str(VERSION):
                raise PacketError(f"tables have format {header['format']}, this chiasm reads {VERSION}; update chiasm")
            levels = tuple(
                LevelTables(**about, **{name: arrays[f"{about['name']}/{name}"] for name in _NAMES})
                for about in json.loads(header["levels"])
            )
            counts = arrays["counts"].astype(np.int64)
            return Tables(header["space"], levels, arrays["steps"], counts, arrays["classes"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, PacketError):
                raise
            raise PacketError(f"{len(data)} bytes are not codec tables ({error}); fetch the tables again") from error


def _header(data: bytes) -> Mapping[str, str]:
    length = int.from_bytes(data[:8], "little")
    held: Mapping[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return held
