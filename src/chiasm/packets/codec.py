"""The codec `transform`: features of one picture or tile to one stream per level, and back.

A stream is: which components of which bands are not all zero (a bit each), then the groups of those components, bands
coarse to fine. A level is coded after its parent, whose magnitudes tell what to expect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chiasm.contracts import Features
from chiasm.errors import PacketError, nearest
from chiasm.packets import contexts, entropy
from chiasm.packets.contexts import PASSES, Surroundings
from chiasm.packets.tables import QUALITIES, LevelTables, Tables
from chiasm.packets.transform import Symbols, band_shapes, coefficients, quantise, synthesise

Array = np.ndarray
NAME = "transform"


@dataclass(frozen=True)
class TransformCodec:
    """Closed-form transform, integer contexts, range coding; see `docs/format.md` for the bytes.

    A level with a parent is coded as what it adds to it, so its parent must be in the same packet; the reverse does
    not hold: `context` decodes without `detail`.
    """

    fitted: Tables
    name: str = NAME

    @property
    def space(self) -> str:
        return self.fitted.space

    @property
    def tables(self) -> str:
        return self.fitted.name

    @cached_property
    def distributions(self) -> list[object]:
        return entropy.models(self.fitted.counts)

    def compress(self, features: Features, quality: int) -> dict[str, bytes]:
        """features: maps 1 C H/s W/s, one picture or tile. quality: 1 (smallest) to 8. One stream per level given.

        Raises PacketError for a quality out of range, an unknown level, or a level given without its parent.
        """
        levels = list(self._order(features.maps))
        maps = {level.name: features.maps[level.name] for level in levels}
        symbols = quantise(coefficients(Features(maps), self.fitted), self.fitted, checked(quality))
        return self.encode(symbols, quality)

    def decompress(self, streams: Mapping[str, bytes], size: tuple[int, int], quality: int) -> Features:
        """The features of streams made by `compress`, float32. size: height and width in pixels, multiples of the grid.

        Raises PacketError for streams that end early, hold what no encoder writes, or lack their parent level.
        """
        return synthesise(self.decode(streams, size, quality), self.fitted, quality, size)

    def encode(self, symbols: Symbols, quality: int) -> dict[str, bytes]:
        """Integers to streams: no floating point."""
        streams: dict[str, bytes] = {}
        for level in self._order(symbols):
            writer, bands = entropy.Writer(self.distributions), symbols[level.name]
            present = np.concatenate([band.any(axis=(1, 2, 3)) for band in bands])
            for step in walk(level, symbols, level.weights[quality - 1], present):
                values = [bands[step.band][(step.components, slice(None), *where)] for where in step.rectangles]
                kinds = [contexts.classes(prediction, self.fitted.classes) for prediction in step.predictions]
                writer.write(_joined(values), _joined(kinds))
                step.learn(values)
            streams[level.name] = np.packbits(present).tobytes() + writer.bytes()
        return streams

    def decode(self, streams: Mapping[str, bytes], size: tuple[int, int], quality: int) -> Symbols:
        """Streams to integers: no floating point, so the same everywhere."""
        checked(quality)
        symbols: Symbols = {}
        for level in self._order(streams):
            bands = [np.zeros(shape, np.int32) for shape in band_shapes(level, size)]
            symbols[level.name] = bands
            flags = sum(len(band) for band in bands)
            data, length = streams[level.name], -(-flags // 8)
            if len(data) < length:
                raise PacketError(f"the stream of {level.name!r} has {len(data)} bytes, fewer than its {length} flag bytes")
            present = np.unpackbits(np.frombuffer(data, np.uint8, length))[:flags].astype(bool)
            reader = entropy.Reader(data[length:], self.distributions)
            for step in walk(level, symbols, level.weights[quality - 1], present):
                kinds = [contexts.classes(prediction, self.fitted.classes) for prediction in step.predictions]
                read = reader.read(_joined(kinds))
                values, at = [], 0
                for where, kind in zip(step.rectangles, kinds, strict=True):
                    values.append(read[at : at + kind.size].reshape(kind.shape))
                    bands[step.band][(step.components, slice(None), *where)] = values[-1]
                    at += kind.size
                step.learn(values)
        return symbols

    def _order(self, held: Mapping[str, object]) -> Iterator[LevelTables]:
        known = [level.name for level in self.fitted.levels]
        for name in held:
            if name not in known:
                raise PacketError(f"space {self.space!r} has no level {name!r}; {nearest(name, known)}")
        for level in self.fitted.levels:
            if level.name in held:
                if level.parent and level.parent not in held:
                    raise PacketError(f"level {level.name!r} is coded on top of {level.parent!r}, which is missing; give both")
                yield level


@dataclass(frozen=True)
class Step:
    """One pass over one group of components: where it is, and what is predicted there."""

    band: int
    components: Array
    index: int
    surroundings: Surroundings
    features: list[list[Array]]
    predictions: list[Array]

    @property
    def rectangles(self) -> tuple[contexts.Slices, ...]:
        return PASSES[self.index]

    def learn(self, values: list[Array]) -> None:
        for where, part in zip(self.rectangles, values, strict=True):
            self.surroundings.learn(where, part)


def walk(level: LevelTables, symbols: Symbols, weights: Array, present: Array) -> Iterator[Step]:
    """The one order in which symbols are coded. Reads from `symbols` only what earlier steps have filled in."""
    bands = symbols[level.name]
    starts = np.cumsum([0, *(len(band) for band in bands)])
    for band in range(len(bands) - 1, -1, -1):
        here = np.flatnonzero(present[starts[band] : starts[band + 1]])
        if not here.size:
            continue
        surroundings = _surroundings(level, symbols, band)
        orientations, height, width = bands[band].shape[1:]
        for start, stop in contexts.groups(len(bands[band])):
            components = here[(here >= start) & (here < stop)]
            if not components.size:
                continue
            surroundings.begin(components)
            for index, rectangles in enumerate(PASSES):
                chosen = weights[band, index, :orientations][:, components]
                shapes = [
                    (len(components), orientations, len(range(*r.indices(height))), len(range(*c.indices(width))))
                    for r, c in rectangles
                ]
                features = surroundings.features(index)
                predictions = [
                    contexts.predicted(each, chosen, shape) for each, shape in zip(features, shapes, strict=True)
                ]
                yield Step(band, components, index, surroundings, features, predictions)
            surroundings.end()


def _surroundings(level: LevelTables, symbols: Symbols, band: int) -> Surroundings:
    bands = symbols[level.name]
    shape = (bands[band].shape[1], bands[band].shape[2], bands[band].shape[3])
    if level.smooth and 0 < band < len(bands) - 2:
        return Surroundings(shape, bands[band + 1], [])
    if band:  # means, and the band above them, whose coarser band is the means: their size tells nothing
        return Surroundings(shape, None, [])
    if level.smooth:
        return Surroundings(shape, None, [(contexts.total(bands[1]), 2), (contexts.total(bands[2]), 4)])
    if level.parent:
        above = symbols[level.parent]
        totals = [(contexts.total(x), 2 ** (r + 1)) for r, x in enumerate(above[:2])]
        return Surroundings(shape, None, totals)
    return Surroundings(shape, None, [])


def _joined(parts: list[Array]) -> Array:
    joined: Array = np.concatenate([part.ravel() for part in parts])
    return joined


def checked(quality: int) -> int:
    """quality itself, or a PacketError naming the range."""
    if not 1 <= quality <= QUALITIES:
        raise PacketError(f"quality {quality} is not between 1 (smallest) and {QUALITIES} (finest)")
    return quality
