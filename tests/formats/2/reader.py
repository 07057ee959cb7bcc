"""A second decoder of packet format 2, from docs/format.md alone: slow, plain, sharing no code with chiasm.

It proves that the page is complete, and that goldens do not hang on one library's range coder. It expects
packets that are whole: it checks nothing.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

Bands = list[np.ndarray]  # of one level: K n h w, fine to coarse
LIFT = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
SCALE = 1.149604398860241
BUCKETS = ((12, 2), (16, 3), (24, 4), (40, 5), (72, 6), (136, 7), (264, 8), (520, 16))
PASSES = (((0, 0),), ((1, 1),), ((0, 1), (1, 0)))  # first row and column of each rectangle
FURTHER = [[36, 0, 0, 315, 0, 0, 0, 0, 0], [14, 0, 0, 305, 0, 0, 0, 116, 0], [6, 0, 0, 259, 0, 0, 175, 0, 0]]
AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


class Stored(NamedTuple):
    """One level in a file. view: size, scale, offset. parent: name or "". tiles: bytes of each."""

    codec: str
    tables: str
    quality: int
    shape: tuple[int, ...]
    view: tuple[tuple[int, int], tuple[float, float], tuple[float, float]]
    tile: int
    parent: str
    tiles: list[bytes]


class File(NamedTuple):
    space: str
    size: tuple[int, int]
    tables: dict[str, bytes]
    levels: dict[str, Stored]


class Level(NamedTuple):
    name: str
    stride: int
    parent: str
    smooth: int
    depth: int
    scale: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray


class Tables(NamedTuple):
    levels: list[Level]
    steps: np.ndarray
    counts: np.ndarray
    classes: np.ndarray


class Fields:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def part(self, length: int) -> bytes:
        self.at += length
        return self.data[self.at - length : self.at]

    def take(self, layout: str) -> tuple:
        return struct.unpack("<" + layout, self.part(struct.calcsize("<" + layout)))

    def counted(self) -> bytes:
        return self.part(self.part(1)[0])


def read_file(data: bytes) -> File:
    fields = Fields(data, 7)
    space = fields.counted().decode()
    height, width, codecs, views, embedded, count = fields.take("IIBBBB")
    made = [(fields.counted().decode(), fields.counted().hex()) for _ in range(codecs)]
    seen = []
    for _ in range(views):
        *size, resized = fields.take("IIB")
        placed = fields.take("dddd") if resized else (1.0, 1.0, 0.0, 0.0)
        seen.append((tuple(size), placed[:2], placed[2:]))
    lengths = [(fields.part(8).hex(), fields.take("I")[0]) for _ in range(embedded)]
    facts = []
    for _ in range(count):
        name = fields.counted().decode()
        codec, quality, view, tile, parent, dimensions, length, _ = fields.take("BBBHBBII")
        above = facts[parent - 1][0] if parent else ""
        facts.append((name, (*made[codec], quality, fields.take(f"{dimensions}I"), seen[view], tile, above), length))
    fields.at += 4
    tables = {name: fields.part(length) for name, length in lengths}
    levels = {}
    for name, about, length in facts:
        stream = fields.part(length)
        levels[name] = Stored(*about, tiles_of(stream) if about[5] else [stream])
    return File(space, (height, width), tables, levels)


def tiles_of(stream: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<I", stream)
    ends = np.cumsum([4 + 4 * count, *struct.unpack_from(f"<{count}I", stream, 4)]).tolist()
    return [stream[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def read_numbers(codec: str, data: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and float64 values of a level, or tile of one, that was coded by `plain-*` or `vector-*`."""
    if codec == "pixels":
        way, x = data[0], np.frombuffer(zlib.decompress(data[1:], -15), "u1").reshape(shape).astype(int)
        x = x.cumsum(-1) if way & 1 else x
        x = x.cumsum(-2) if way & 2 else x
        x = (np.stack([x[1] + x[0], x[0], x[2] + x[0]]) if way & 4 else x) % 256
        return x.astype("u1"), x / 255
    kind, numbers = codec.split("-")
    if kind == "vector":
        x = np.frombuffer(data, {"fp16": "<f2", "fp32": "<f4"}[numbers])
        return x, x.astype(float)
    if numbers == "int8":
        scale = np.frombuffer(data[: 4 * shape[0]], "<f4").astype(float)
        steps = np.frombuffer(zlib.decompress(data[4 * shape[0] + 1 :], -15), "i1").reshape(shape)
        if data[4 * shape[0]]:
            steps = (steps.astype(int).cumsum(-1) + 128) % 256 - 128
        steps = steps.astype("i1")
        return steps, steps * scale[:, None, None]
    first = zlib.decompressobj(-15)
    both = first.decompress(data) + zlib.decompress(first.unused_data, -15)
    high, low = np.frombuffer(both, "u1").reshape(2, *shape).astype("u4")
    bits = high << 8 | low
    values = bits.astype("u2").view("f2") if numbers == "fp16" else (bits << 16).view("f4")
    return bits.astype("u2"), values.astype(float)


def read_tables(data: bytes) -> Tables:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kinds = {"F32": "<f4", "I32": "<i4", "U8": "u1"}

    def array(name: str) -> np.ndarray:
        begin, end = header[name]["data_offsets"]
        return np.frombuffer(body[begin:end], kinds[header[name]["dtype"]]).reshape(header[name]["shape"])

    levels = [
        Level(
            **about,
            **{key: array(f"{about['name']}/{key}") for key in ("scale", "mean", "basis", "weights", "offsets")},
        )
        for about in json.loads(header["__metadata__"]["levels"])
    ]
    return Tables(levels, array("steps"), array("counts"), array("classes"))


class RangeDecoder:
    def __init__(self, words: list[int]) -> None:
        self.words = [*words, 0, 0]
        self.low, self.range = 0, 2**64 - 1
        self.point, self.next = self.words[0] << 32 | self.words[1], 2

    def symbol(self, counts: list[int]) -> int:
        scale = self.range >> 24
        quantile = (self.point - self.low) % 2**64 // scale
        cumulative = np.cumsum([0, *counts]).tolist()
        left = [c * (2**24 - len(counts)) // 2**16 + k for k, c in enumerate(cumulative[:-1])] + [2**24]
        symbol = max(k for k in range(len(counts)) if left[k] <= quantile)
        self.low = (self.low + scale * left[symbol]) % 2**64
        self.range = scale * (left[symbol + 1] - left[symbol])
        if self.range < 2**32:
            self.low, self.range = self.low << 32 & 2**64 - 1, self.range << 32
            word = self.words[self.next] if self.next < len(self.words) else 0
            self.point, self.next = (self.point << 32 & 2**64 - 1) | word, self.next + 1
        return symbol


class Stream:
    """One level of one tile: flags, directions of further components n x C, range coder words, raw bits."""

    def __init__(self, data: bytes, flags: int, channels: int) -> None:
        at = -(-flags // 8)
        self.flags = [data[i // 8] >> (7 - i % 8) & 1 for i in range(flags)]
        self.directions = np.zeros((0, channels))
        if data[at : at + 4] == b"\xff\xff\xff\xff":
            end = at + 5 + 2 * channels * data[at + 4]
            self.directions = np.frombuffer(data[at + 5 : end], "<f2").reshape(-1, channels).astype(float)
            at = end
        (count,) = struct.unpack_from("<I", data, at)
        self.coder = RangeDecoder(list(struct.unpack_from(f"<{count}I", data, at + 4)))
        self.raw, self.at = data[at + 4 + 4 * count :], 0

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | (self.raw[self.at // 8] >> (7 - self.at % 8) & 1)
            self.at += 1
        return value

    def integers(self, kinds: list[int], counts: np.ndarray) -> list[int]:
        """The integers of one pass over one group, in the order of `kinds`."""
        order = sorted(range(len(kinds)), key=lambda i: kinds[i])
        symbols = [self.coder.symbol(counts[kinds[i]].tolist()) for i in order]
        negative = [bool(self.bits(1)) if symbol else False for symbol in symbols]
        values = [0] * len(kinds)
        for i, symbol, minus in zip(order, symbols, negative, strict=True):
            size = symbol
            if symbol >= 12:
                first, width = BUCKETS[symbol - 12]
                size = first + self.bits(width)
            values[i] = -size if minus else size
        return values


def shapes(level: Level, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    height, width = size
    components = level.basis.shape[1]
    found = [(components - level.smooth, 1, height, width)]
    if level.smooth:
        unit = 2**level.depth
        height, width = -(-height // unit) * unit, -(-width // unit) * unit
        found += [(level.smooth, 3, height >> r, width >> r) for r in range(1, level.depth + 1)]
        found += [(level.smooth, 1, height >> level.depth, width >> level.depth)]
    return found


def at(x: np.ndarray, row: int, column: int) -> int:
    inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
    return int(x[row, column]) if inside else 0


def around(x: np.ndarray, row: int, column: int, places: list[tuple[int, int]] = AROUND) -> int:
    return sum(at(x, row + down, column + right) for down, right in places)


def capped(x: np.ndarray) -> np.ndarray:
    return np.minimum(np.abs(x), 255)


def decode(
    tables: Tables, name: str, data: bytes, size: tuple[int, int], quality: int, above: Bands | None = None
) -> tuple[Bands, np.ndarray]:
    """The symbols of a level, or tile of one, of `size` rows and columns. above: the bands of its parent.

    Further components are one band more; their directions are the second result.
    """
    level = next(level for level in tables.levels if level.name == name)
    bands = [np.zeros(shape, np.int64) for shape in shapes(level, size)]
    stream = Stream(data, sum(len(band) for band in bands), len(level.scale))
    for index in range(len(bands) - 1, -1, -1):
        begin = sum(len(x) for x in bands[:index])
        present = [k for k in range(len(bands[index])) if stream.flags[begin + k]]
        known = around_band(level, bands, index, above)
        decode_band(tables, bands[index], present, stream, known, level.weights[quality - 1, index])
    if len(stream.directions):
        more = np.zeros((len(stream.directions), 1, *size), np.int64)
        weights = np.broadcast_to(np.array(FURTHER)[:, None, None], (3, 1, len(more), 9))
        known = Around(None, [(capped(bands[0]).sum((0, 1)), 1)])
        decode_band(tables, more, list(range(len(more))), stream, known, weights)
        bands.append(more)
    return bands, stream.directions


class Around(NamedTuple):
    """What one band is decoded from besides itself, each map with how many times smaller it is."""

    own: np.ndarray | None  # the next coarser band of the same components, capped
    totals: list[tuple[np.ndarray, int]]  # next coarser first, where there is no such band


def around_band(level: Level, bands: Bands, index: int, above: Bands | None) -> Around:
    if level.smooth and 0 < index < len(bands) - 2:
        return Around(capped(bands[index + 1]), [])
    if index:
        return Around(None, [])
    if level.smooth:
        return Around(None, [(capped(bands[1]).sum((0, 1)), 2), (capped(bands[2]).sum((0, 1)), 4)])
    return Around(None, [(capped(x).sum((0, 1)), 2 ** (r + 1)) for r, x in enumerate((above or [])[:2])])


def features_at(known: Around, before: np.ndarray, plane: np.ndarray, place: tuple[int, ...]) -> list[int]:
    """The nine features of component k, orientation o, row y, column x; plane: its own, decoded so far."""
    k, o, y, x = place
    coarser = [0, 0, 0]
    if known.own is not None:
        own, total, here = known.own[k, o], known.own.sum((0, 1)), (y // 2, x // 2)
        coarser = [at(own, *here), around(own, *here), at(total, *here) + around(total, *here)]
    elif known.totals:
        (near, a), (far, b) = known.totals[0], known.totals[-1]
        here, there = (y // a, x // a), (y // b, x // b)
        coarser = [at(near, *here), around(near, *here), at(far, *there) + around(far, *there)]
    earlier = [before[o, y, x], around(before[o], y, x), before[:, y, x].sum() - before[o, y, x]]
    sides, corners = [(-1, 0), (1, 0), (0, -1), (0, 1)], [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    return [*coarser, *earlier, around(plane, y, x, sides), around(plane, y, x, corners), 1]


def decode_band(
    tables: Tables, band: np.ndarray, present: list[int], stream: Stream, known: Around, weights: np.ndarray
) -> None:
    """weights: pass, orientation, component, feature."""
    before = np.zeros(band.shape[1:], np.int64)
    start, width = 0, 1
    while start < len(band):
        stop = min(len(band), start + width)
        group = [k for k in present if start <= k < stop]
        for number in range(3):
            places, kinds = list(places_of(group, band.shape, number)), []
            planes = {k: capped(band[k]) for k in group}
            for k, o, y, x in places:
                features = features_at(known, before, planes[k][o], (k, o, y, x))
                size = sum(int(w) * int(f) for w, f in zip(weights[number, o, k], features, strict=True))
                kinds.append(int(tables.classes[min(size // 8, 4095)]))
            for place, value in zip(places, stream.integers(kinds, tables.counts), strict=True):
                band[place] = value
        for k in group:
            before += capped(band[k])
        start, width = stop, max(1, stop)


def places_of(group: list[int], shape: tuple[int, ...], number: int) -> Iterator[tuple[int, int, int, int]]:
    """k, o, y, x of pass `number`, in order."""
    for first_row, first_column in PASSES[number]:
        rows, columns = range(first_row, shape[2], 2), range(first_column, shape[3], 2)
        yield from product(group, range(shape[1]), rows, columns)


def synthesise(
    tables: Tables, name: str, symbols: tuple[Bands, np.ndarray], quality: int, parent: np.ndarray | None = None
) -> np.ndarray:
    """A map C h w in float64. parent: the map of the level that it is coded on top of."""
    number, level = next((i, level) for i, level in enumerate(tables.levels) if level.name == name)
    step, bands, directions = float(tables.steps[quality - 1, number]), list(symbols[0]), symbols[1]
    more = bands.pop() if len(directions) else np.zeros((0, 1, 1, 1))
    height, width = bands[0].shape[-2:]
    if level.smooth:
        means = bands[-1].copy()
        means[..., 0] = means[..., 0].cumsum(-1)
        bands[-1] = means.cumsum(-1)
    values = [restored(x, level.offsets[quality - 1, r].astype(float), step) for r, x in enumerate(bands)]
    components = [values[0][:, 0]]
    if level.smooth:
        plane = values[-1][:, 0]
        for right, down, both in (x.transpose(1, 0, 2, 3) for x in reversed(values[1:-1])):
            low, high = merged(plane, down, -2), merged(right, both, -2)
            plane = merged(low, high, -1)
        components = [plane[:, :height, :width], *components]
    y = np.concatenate(components)
    x = level.mean.astype(float)[:, None, None] + np.einsum("ck,khw->chw", level.basis.astype(float), y)
    x = x + np.einsum("nc,nhw->chw", directions, more[:, 0] * step)
    x *= level.scale.astype(float)[:, None, None]
    return x if parent is None else x + doubled(parent)[:, :height, :width]


def restored(band: np.ndarray, offsets: np.ndarray, step: float) -> np.ndarray:
    size = np.abs(band)
    below = offsets[: len(band), np.newaxis, np.newaxis, np.newaxis]  # K 1 1 1 3
    slot = np.clip(size - 1, 0, 2)[..., None]
    below = np.take_along_axis(np.broadcast_to(below, (*band.shape, 3)), slot, -1)[..., 0]
    return np.sign(band) * np.maximum(size - below, 0) * step


def merged(low: np.ndarray, high: np.ndarray, axis: int) -> np.ndarray:
    low, high = np.moveaxis(low, axis, -1) / SCALE, np.moveaxis(high, axis, -1) * SCALE
    after = np.minimum(np.arange(low.shape[-1]) + 1, low.shape[-1] - 1)
    before = np.maximum(np.arange(low.shape[-1]) - 1, 0)
    low = low - LIFT[3] * (high + high[..., before])
    high = high - LIFT[2] * (low + low[..., after])
    low = low - LIFT[1] * (high + high[..., before])
    high = high - LIFT[0] * (low + low[..., after])
    return np.moveaxis(np.stack([low, high], -1).reshape(*low.shape[:-1], -1), -1, axis)


def doubled(x: np.ndarray) -> np.ndarray:
    for axis in (-2, -1):
        x = np.moveaxis(x, axis, -1)
        before = x[..., np.maximum(np.arange(x.shape[-1]) - 1, 0)]
        after = x[..., np.minimum(np.arange(x.shape[-1]) + 1, x.shape[-1] - 1)]
        x = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], -1).reshape(*x.shape[:-1], -1)
        x = np.moveaxis(x, -1, axis)
    return x
