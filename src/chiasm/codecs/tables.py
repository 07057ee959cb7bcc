"""What the codec `transform` knows of a space: fitted once, named by hash, never decided by a float while
decoding.

per level    scale C, mean C, basis C x K (orthonormal columns), parent or none, wavelet depth
per quality  one quantiser step a level; integer weights that predict a magnitude from its surroundings;
             where in its interval a symbol is reconstructed
shared       64 integer distributions over magnitude symbols, and the thresholds that choose one
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chiasm.codecs import contexts, entropy
from chiasm.errors import PacketError

Array = np.ndarray
QUALITIES = 8
VERSION = 1
_FACTS = ("name", "stride", "parent", "smooth", "depth")
_NAMES = ("scale", "mean", "basis", "weights", "offsets")


@dataclass(frozen=True)
class LevelTables:
    """One level. `parent`: the level whose doubled decoded map is subtracted first, or ''.

    Channels are divided by `scale` (float32 C), which makes an error of one worth the same in each. The first
    `smooth` components go through a wavelet of `depth` steps. mean: float32 C; basis: float32 C x
    K, orthonormal columns; weights: int32 qualities x bands x 3 passes x 3 orientations x K x features;
    offsets: float32 qualities x bands x K x 3, how far below m a magnitude m of 1, 2, or more is
    reconstructed. Bands count from fine to coarse; components count from the first of the band.
    """

    name: str
    stride: int
    parent: str
    smooth: int
    depth: int
    scale: Array
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
    """All that a decoder needs besides a packet. steps: float32 qualities x levels; counts: int64 classes x
    symbols, each row summing to 2^16; classes: uint8 look-up from a predicted magnitude (in 1/128) to a row
    of counts."""

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
        return _ordered(save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, header))

    @cached_property
    def name(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `data`: what a packet calls its tables."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def step(self, name: str, quality: int) -> float:
        """The quantiser's step of a level at a quality."""
        index = [level.name for level in self.levels].index(name)
        return float(self.steps[quality - 1, index])

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
                LevelTables(**{**about, **{name: arrays[f"{about['name']}/{name}"] for name in _NAMES}})
                for about in json.loads(header["levels"])
            )
            if arrays["counts"].dtype != np.int32:
                raise TypeError(f"counts of {arrays['counts'].dtype}, not int32")
            counts = arrays["counts"].astype(np.int64)
            tables = Tables(header["space"], levels, arrays["steps"], counts, arrays["classes"])
            wrong = next((rule for rule, kept in _rules(tables) if not kept), "")
        except PacketError:
            raise
        except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise PacketError(f"{len(data)} bytes are not codec tables ({error}); fetch the tables again") from error
        if wrong:
            raise PacketError(f"codec tables break the rule {wrong!r}; fetch the tables again")
        vars(tables)["data"] = bytes(data)  # they keep the name they came under, whatever writes safetensors
        return tables


def _header(data: bytes) -> Mapping[str, str]:
    length = int.from_bytes(data[:8], "little")
    held: Mapping[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return held


def _ordered(data: bytes) -> bytes:
    """The same safetensors with the keys of its header in order: the library writes metadata in any order."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _rules(tables: Tables) -> Iterator[tuple[str, bool]]:
    """What tables must keep to, each rule with whether they do; a later one may rely on those before it."""
    names = [level.name for level in tables.levels]
    yield "a space has a name", isinstance(tables.space, str) and 0 < len(tables.space.encode()) <= 255
    yield "there are 1 to 16 levels, each with its own name", 0 < len(set(names)) == len(names) <= 16
    yield "steps: float32 8 x levels", _is(tables.steps, np.float32, (QUALITIES, len(names)))
    yield "steps are positive", bool(np.isfinite(tables.steps).all() and (tables.steps > 0).all())
    yield "counts: classes x 20, at most 256 classes", tables.counts.shape[1:] == (entropy.SYMBOLS,)
    yield "counts have 1 to 256 rows", 0 < len(tables.counts) <= 256
    yield "counts are positive", bool((tables.counts > 0).all())
    yield "rows of counts sum to 2^16", bool((tables.counts.sum(axis=1) == entropy.TOTAL).all())
    yield "classes: uint8 4096", _is(tables.classes, np.uint8, (contexts.LOOKUP,))
    yield "classes name rows of counts", int(tables.classes.max()) < len(tables.counts)
    before: dict[str, int] = {"": 0}
    for level in tables.levels:
        yield from _level_rules(level, before)
        before[level.name] = level.stride


def _level_rules(level: LevelTables, before: Mapping[str, int]) -> Iterator[tuple[str, bool]]:
    """`before`: the strides of the levels that come earlier."""
    numbers = (level.stride, level.smooth, level.depth)
    yield "a level has a name", isinstance(level.name, str) and 0 < len(level.name.encode()) <= 255
    yield "stride, smooth and depth are integers", all(type(number) is int for number in numbers)
    yield "a stride is 1 to 1024, a depth 0 to 8", 0 < level.stride <= 1024 and 0 <= level.depth <= 8
    yield "a parent comes before its level", level.parent in before
    yield "a parent has twice the stride", not level.parent or before[level.parent] == 2 * level.stride
    channels, components = level.mean.size, level.basis.shape[-1]
    yield (
        "mean: float32, at most 4096 channels",
        _is(level.mean, np.float32, (channels,)) and channels <= 4096,
    )
    yield "scale: float32 channels", _is(level.scale, np.float32, (channels,))
    yield "scales are positive", bool(np.isfinite(level.scale).all() and (level.scale > 0).all())
    yield "basis: float32 channels x components", _is(level.basis, np.float32, (channels, components))
    yield "there are 1 to as many components as channels", 0 < components <= channels
    yield "smooth components are components", 0 <= level.smooth <= components
    yield "a wavelet has 2 steps or more", not level.smooth or level.depth >= 2
    shape = (QUALITIES, level.bands)
    per_feature = (*shape, 3, 3, components, contexts.FEATURES)
    yield "weights: int32 8 x bands x 3 x 3 x components x 9", _is(level.weights, np.int32, per_feature)
    yield "weights are 0 to 2^20", bool((level.weights >= 0).all() and (level.weights <= 1 << 20).all())
    yield (
        "offsets: float32 8 x bands x components x 3",
        _is(level.offsets, np.float32, (*shape, components, 3)),
    )
    floats = (level.mean, level.basis, level.offsets)
    yield "floats are finite", all(bool(np.isfinite(x).all()) for x in floats)


def _is(x: Array, kind: type[np.generic], shape: tuple[int, ...]) -> bool:
    return x.dtype == kind and x.shape == shape
