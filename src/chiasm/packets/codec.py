"""The codec `transform`: features of one picture or tile to one stream per level, and back.

A stream is: which components of which bands are not all zero (a bit each), then the groups of those components, bands
coarse to fine. A level is decoded after its parent, whose magnitudes tell what to expect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chiasm.contracts import Features
from chiasm.errors import PacketError, nearest
from chiasm.packets import entropy
from chiasm.packets.contexts import Surroundings, classes, groups, predicted
from chiasm.packets.tables import QUALITIES, LevelTables, Tables
from chiasm.packets.transform import Symbols, coefficients, quantise, synthesise

Array = np.ndarray
NAME = "transform"


@dataclass(frozen=True)
class TransformCodec:
    """Closed-form transform, integer contexts, range coding; see `docs/format.md` for the bytes.

    A level with a parent is coded as what it adds to it, so its parent must be in the same packet; the reverse holds
    not: `context` decodes without `detail`.
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
        """features: maps 1 C H/s W/s, one picture or tile. quality: 1 (smallest) to 8. One stream per level given."""
        checked(quality)
        symbols = quantise(coefficients(features, self.fitted), self.fitted, quality)
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
            writer = entropy.Writer(self.distributions)
            bands = symbols[level.name]
            present = np.stack([band.any(axis=(1, 2, 3)) for band in bands])  # bands x K
            for r, surroundings in self._bands(level, symbols, self._shapes(level, bands)):
                weights, source = level.weights[quality - 1, r], _flattened(bands, r, level)
                for start, stop in groups(level.components):
                    kept = start + np.flatnonzero(present[r, start:stop])
                    if kept.size:
                        kind = self._kind(surroundings, weights, (start, stop), kept)
                        writer.write(source[kept], kind)
                        surroundings.learn(bands[r][kept])
            streams[level.name] = np.packbits(present).tobytes() + writer.bytes()
        return streams

    def decode(self, streams: Mapping[str, bytes], size: tuple[int, int], quality: int) -> Symbols:
        """Streams to integers: no floating point, so the same everywhere."""
        checked(quality)
        symbols: Symbols = {}
        for level in self._order(streams):
            data, flags = streams[level.name], -(-(level.depth + 1) * level.components // 8)
            if len(data) < flags:
                raise PacketError(f"the stream of {level.name!r} has {len(data)} bytes, fewer than its {flags} flag bytes")
            present = np.unpackbits(np.frombuffer(data, np.uint8, flags))[: (level.depth + 1) * level.components]
            present = present.reshape(level.depth + 1, level.components).astype(bool)
            reader = entropy.Reader(data[flags:], self.distributions)
            bands = [np.zeros(shape, np.int32) for shape in _band_shapes(level, size)]
            symbols[level.name] = bands
            for r, surroundings in self._bands(level, symbols, self._shapes(level, bands)):
                weights = level.weights[quality - 1, r]
                for start, stop in groups(level.components):
                    kept = start + np.flatnonzero(present[r, start:stop])
                    if kept.size:
                        kind = self._kind(surroundings, weights, (start, stop), kept)
                        values = reader.read(kind)
                        bands[r][kept] = integrated(values) if _differs(level, r) else values
                        surroundings.learn(bands[r][kept])
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

    def _shapes(self, level: LevelTables, bands: list[Array]) -> list[tuple[int, int, int]]:
        return [(band.shape[1], band.shape[2], band.shape[3]) for band in bands]

    def _bands(
        self, level: LevelTables, symbols: Symbols, shapes: list[tuple[int, int, int]]
    ) -> Iterator[tuple[int, Surroundings]]:
        """Band indices coarse to fine, each with what is known around it."""
        bands = symbols[level.name]
        for r in range(level.depth, -1, -1):
            if r == level.depth:
                yield r, Surroundings(shapes[r], None, self._above(level, symbols))
            elif r == level.depth - 1:
                yield r, Surroundings(shapes[r], None, None)  # the coarsest band holds means: their size tells nothing
            else:
                yield r, Surroundings(shapes[r], bands[r + 1], None)

    def _above(self, level: LevelTables, symbols: Symbols) -> tuple[Array, Array] | None:
        """Total magnitude of the parent level's two finest bands, for a level without a wavelet of its own."""
        if not level.parent or level.depth:
            return None
        near, far = symbols[level.parent][:2]
        return _total(near), _total(far)

    def _kind(self, surroundings: Surroundings, weights: Array, group: tuple[int, int], kept: Array) -> Array:
        start, stop = group
        features = surroundings.features(start, stop)
        if features[0].shape[0] > 1:
            features = [x[kept - start] if x.shape[0] > 1 else x for x in features]
        n = surroundings.orientations
        return classes(predicted(features, weights[:n, kept]), self.fitted.classes)


def _total(band: Array) -> Array:
    from chiasm.packets.contexts import magnitude

    total: Array = magnitude(band).sum(axis=(0, 1), dtype=np.int32)[None]
    return total


def _differs(level: LevelTables, r: int) -> bool:
    """Whether a band is coded as differences of neighbours: the coarsest one of a wavelet, which holds means."""
    return r == level.depth and level.depth > 0


def _flattened(bands: list[Array], r: int, level: LevelTables) -> Array:
    return differentiated(bands[r]) if _differs(level, r) else bands[r]


def differentiated(x: Array) -> Array:
    """... h w integers to differences from the left neighbour, or from above in the first column."""
    d = x.copy()
    d[..., 1:] -= x[..., :-1]
    d[..., 1:, 0] -= x[..., :-1, 0]
    return d


def integrated(d: Array) -> Array:
    """The exact inverse of `differentiated`."""
    x = d.copy()
    x[..., 0] = np.cumsum(d[..., 0], axis=-1, dtype=np.int32)
    summed: Array = np.cumsum(x, axis=-1, dtype=np.int32)
    return summed


def _band_shapes(level: LevelTables, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """K n h w of each band, fine to coarse, for a picture or tile of padded size."""
    unit = 2**level.depth
    height, width = (-(-n // level.stride // unit) * unit for n in size)
    finer = [(level.components, 3, height >> r, width >> r) for r in range(1, level.depth + 1)]
    return [*finer, (level.components, 1, height // unit, width // unit)]


def checked(quality: int) -> int:
    """quality itself, or a PacketError naming the range."""
    if not 1 <= quality <= QUALITIES:
        raise PacketError(f"quality {quality} is not between 1 (smallest) and {QUALITIES} (finest)")
    return quality
