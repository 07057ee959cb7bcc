"""The codec `transform`: features of one picture or tile to one stream per level, and back.

A stream is: which components of which bands are not all zero (a bit each), then the groups of those
components, bands coarse to fine. A level is coded after its parent, whose magnitudes tell what to expect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from chiasm.codecs import contexts, entropy
from chiasm.codecs.bands import Symbols, band_shapes, coefficients, quantise, synthesise
from chiasm.codecs.contexts import PASSES, Surroundings
from chiasm.codecs.tables import QUALITIES, LevelTables, Tables
from chiasm.contracts import Features
from chiasm.errors import PacketError, nearest

Array = np.ndarray
NAME = "transform"
PRICE = 0.1  # squared quantiser steps that a bit is worth to the encoder


@dataclass(frozen=True)
class TransformCodec:
    """Closed-form transform, integer contexts, range coding; see `docs/format.md` for the bytes.

    A level with a parent is coded as what it adds to it, so its parent must be in the same packet; the
    reverse does not hold: `context` decodes without `detail`.
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
        """One stream for each level in `features`: maps 1 C H/s W/s of one picture or tile.

        quality: 1 (smallest) to 8. Raises PacketError for a quality out of range, an unknown level, or a
        level given without its parent.
        """
        levels = list(self._order(features))
        maps = {level.name: features[level.name] for level in levels}
        bands = coefficients(maps, self.fitted)
        symbols = quantise(bands, self.fitted, checked(quality))
        return self.encode(symbols, quality, bands)

    def decompress(self, streams: Mapping[str, bytes], size: tuple[int, int], quality: int) -> Features:
        """The features of streams made by `compress`, float32. size: height and width in pixels, multiples of
        the grid.

        Raises PacketError for streams that end early, hold what no encoder writes, or lack their parent
        level.
        """
        return synthesise(self.decode(streams, size, quality), self.fitted, quality, size)

    def encode(
        self, symbols: Symbols, quality: int, real: Mapping[str, list[Tensor]] | None = None
    ) -> dict[str, bytes]:
        """Integers to streams: no floating point, unless `real` is given.

        real: the bands that `symbols` was rounded from. Then lonely ones are dropped where they cost more
        than they are worth (see `thresholds`), in `symbols` too.
        """
        checked(quality)
        streams: dict[str, bytes] = {}
        for level in self._order(symbols):
            writer, bands = entropy.Writer(self.distributions), symbols[level.name]
            present = not_zero(bands)
            sizes = None if real is None else self._sizes(level, real[level.name], quality)
            group: list[tuple[list[Array], list[Array]]] = []
            for step in walk(level, symbols, level.weights[quality - 1], present):
                kinds = [contexts.classes(prediction, self.fitted.classes) for prediction in step.predictions]
                if sizes is not None and step.band < len(sizes):
                    self._thin(step, kinds, bands[step.band], sizes[step.band])
                values = [bands[step.band][place] for place in step.places]
                step.learn(values)
                group.append((values, kinds))
                if len(group) == len(PASSES):
                    _write(writer, group)
                    group = []
            streams[level.name] = np.packbits(not_zero(bands)).tobytes() + writer.bytes()
        return streams

    @cached_property
    def thresholds(self) -> Array:
        """Per class of prediction, the size (in steps) below which a magnitude of one is not worth its bits.

        Keeping y as 1 rather than 0 saves y^2 - (y - 1)^2 of squared error and costs the difference of their
        bits, sign included; the exchange rate PRICE is in squared steps a bit.
        """
        bits = -np.log2(self.fitted.counts[:, :2] / entropy.TOTAL)
        worth = 0.5 + 0.5 * PRICE * (bits[:, 1] - bits[:, 0] + 1.0)
        clipped: Array = np.clip(worth, 0.5, 1.45).astype(np.float32)
        return clipped

    def _sizes(self, level: LevelTables, real: list[Tensor], quality: int) -> list[Array]:
        """Magnitudes in steps of every band but the means, which are coded as differences and kept as they are."""
        kept = real[:-1] if level.smooth else real
        return [band.abs().div_(self.fitted.step(level.name, quality)).numpy() for band in kept]

    def _thin(self, step: Step, kinds: list[Array], band: Array, size: Array) -> None:
        """Set ones to zero, in place, whose size does not reach the threshold of their class."""
        for place, kind in zip(step.places, kinds, strict=True):
            values = band[place]
            drop = (np.abs(values) == 1) & (size[place] < self.thresholds[kind])
            band[place] = np.where(drop, 0, values)

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
                raise PacketError(
                    f"the stream of {level.name!r} has {len(data)} bytes, fewer than its {length} flag bytes"
                )
            bits = np.unpackbits(np.frombuffer(data, np.uint8, length)).astype(bool)
            present = bits[:flags]
            if bits[flags:].any():
                raise PacketError(f"the stream of {level.name!r} has flags of no component; fetch it again")
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
            reader.finish()
        return symbols

    def _order(self, held: Mapping[str, object]) -> Iterator[LevelTables]:
        known = [level.name for level in self.fitted.levels]
        for name in held:
            if name not in known:
                raise PacketError(f"space {self.space!r} has no level {name!r}; {nearest(name, known)}")
        for level in self.fitted.levels:
            if level.name in held:
                if level.parent and level.parent not in held:
                    raise PacketError(
                        f"level {level.name!r} is coded on top of {level.parent!r}, which is missing; give both"
                    )
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

    @property
    def places(self) -> list[tuple[Array, slice, slice, slice]]:
        """Indices of the band at which the symbols of this pass lie, one for each rectangle."""
        return [(self.components, slice(None), *where) for where in self.rectangles]

    def learn(self, values: list[Array]) -> None:
        for where, part in zip(self.rectangles, values, strict=True):
            self.surroundings.learn(where, part)


def walk(level: LevelTables, symbols: Symbols, weights: Array, present: Array) -> Iterator[Step]:
    """The one order in which symbols are coded. Reads from `symbols` only what earlier steps have filled
    in."""
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
                    (
                        len(components),
                        orientations,
                        len(range(*r.indices(height))),
                        len(range(*c.indices(width))),
                    )
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


def not_zero(bands: list[Array]) -> Array:
    """The flags of a level: a bool for each component of each band."""
    found: Array = np.concatenate([band.any(axis=(1, 2, 3)) for band in bands])
    return found


def _write(writer: entropy.Writer, group: list[tuple[list[Array], list[Array]]]) -> None:
    """The passes of one group, without components of which thinning has left nothing: their flag will be 0.

    To what is predicted for the others they add nothing, present or not.
    """
    left = np.any([part.any(axis=(1, 2, 3)) for values, _ in group for part in values], axis=0)
    if not left.any():
        return
    for values, kinds in group:
        writer.write(*(_joined([part[left] for part in parts]) for parts in (values, kinds)))


def _joined(parts: list[Array]) -> Array:
    joined: Array = np.concatenate([part.ravel() for part in parts])
    return joined


def checked(quality: int) -> int:
    """quality itself, or a PacketError naming the range."""
    if not 1 <= quality <= QUALITIES:
        raise PacketError(f"quality {quality} is not between 1 (smallest) and {QUALITIES} (finest)")
    return quality
