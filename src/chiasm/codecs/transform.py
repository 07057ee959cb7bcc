"""The codec `transform`: a level of one picture or tile to a stream and back.

A stream is: which components of which bands are not all zero (a bit each), then the groups of those
components, bands coarse to fine. A level is coded after its parent, whose magnitudes tell what to expect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs import contexts, entropy, further
from chiasm.codecs.bands import Bands, Symbols, band_shapes, centred, components, rounded, split, synthesise
from chiasm.codecs.checks import no_parent
from chiasm.codecs.contexts import PASSES, Surroundings
from chiasm.codecs.tables import QUALITIES, LevelTables, Tables
from chiasm.contracts import Parent, Size
from chiasm.errors import PacketError, nearest

Array = np.ndarray
NAME = "transform"
PRICE = 0.1  # squared quantiser steps that a bit is worth to the encoder


@dataclass(frozen=True)
class Worth:
    """Sizes of coefficients (B) K n h w by band, and for each class the one that a magnitude of one must reach."""

    sizes: list[Array]
    thresholds: Array

    def of(self, index: int) -> Worth:
        """That of one picture of a batch."""
        return Worth([band[index] for band in self.sizes], self.thresholds)


@dataclass(eq=False)
class TransformCodec:
    """Closed-form transform, integer contexts, range coding; see `docs/format.md` for the bytes.

    A level with a parent is coded as what it adds to it. The symbols of a level, what a `Parent` carries, are its
    bands. device: where the linear transforms run, and where decoded maps are.
    """

    fitted: Tables
    device: torch.device = torch.device("cpu")
    name: str = field(default=NAME, init=False)
    tables: str = field(init=False)
    qualities: int = field(default=QUALITIES, init=False)

    def __post_init__(self) -> None:
        self.tables = self.fitted.name

    def __reduce__(self) -> tuple[type[TransformCodec], tuple[Tables, torch.device]]:
        return TransformCodec, (self.fitted, self.device)  # range coder's distributions are made anew

    @property
    def space(self) -> str:
        return self.fitted.space

    @cached_property
    def distributions(self) -> list[object]:
        return entropy.models(self.fitted.counts)

    def parent(self, level: str) -> str:
        """The level that `level` is coded on top of, or "". Raises PacketError for a level without tables."""
        return self._facts(level).parent

    def encode(self, level: str, values: Tensor, quality: int, parent: Parent | None = None) -> tuple[bytes, Symbols]:
        """values: 1 C h w of one picture or tile, on any device. quality: 1 (smallest) to 8. Gives stream and symbols.

        parent: of a level that has one: values 1 C' ceil(h/2) ceil(w/2), the original or the decoded map, and the
        symbols that the decoder will have. Raises PacketError for a quality out of range, an unknown level, another
        shape, a missing parent, or values that are not finite.
        """
        above = None if parent is None else Parent(parent.values, [parent.symbols])
        (coded,) = self.encode_batch(level, values, quality, above)
        return coded

    def encode_batch(
        self, level: str, values: Tensor, quality: int, parent: Parent | None = None
    ) -> list[tuple[bytes, Symbols]]:
        """The same of a batch B C h w, to the same bytes. parent: values of the batch, symbols of each in a list.

        The transform runs once for all, on the device of the values; integers alone come to the CPU.
        """
        facts = self._facts(level)
        self._fits(facts, tuple(values.shape[1:]), parent)
        x = centred(values, facts, None if parent is None else parent.values)
        y = components(x, facts)
        sizes = self.in_steps(level, split(y, facts), quality)
        held = rounded(sizes, facts)
        worth = self.worth(level, sizes)
        integers = [band.cpu().numpy() for band in held]
        beside = further.found(x, y, facts, self.fitted.step(level, quality))
        parents = [None] * len(values) if parent is None else cast(list[object], parent.symbols)
        coded = []
        for index, (more, known) in enumerate(zip(beside, parents, strict=True)):
            symbols, above = Symbols([band[index] for band in integers], more), self._above(facts, values.shape, known)
            coded.append((self.write(level, symbols, quality, above, worth.of(index)), symbols))
        return coded

    def decode(
        self, level: str, data: bytes, shape: tuple[int, ...], quality: int, parent: Parent | None = None
    ) -> Parent:
        """The inverse: float32 values 1 C h w on `device`, and the symbols. parent: the decoded one.

        Raises PacketError for a stream that ends early or holds what no encoder writes, and as `encode` does.
        """
        facts = self._facts(level)
        self._fits(facts, shape, parent)
        above = self._above(facts, shape, None if parent is None else parent.symbols)
        symbols = self.read(level, data, (shape[1], shape[2]), quality, above)
        return Parent(self.restore(level, symbols, quality, parent), symbols)

    def restore(self, level: str, symbols: Symbols, quality: int, parent: Parent | None = None) -> Tensor:
        """Symbols of a level to its values, float32 1 C h w on `device`. Raises PacketError as `decode` does."""
        facts, step = self._facts(level), self.fitted.step(level, checked(quality))
        above = None if parent is None else parent.values
        return synthesise(symbols, facts, quality, step, above, self.device)

    def write(
        self, level: str, symbols: Symbols, quality: int, above: Bands | None = None, worth: Worth | None = None
    ) -> bytes:
        """Integers to a stream: no floating point. above: the bands of the parent.

        worth: of every coefficient. Then lonely ones are dropped where they cost more than they are worth, in `symbols`
        too.
        """
        facts, bands = self._facts(level), list(symbols.bands)
        _check_parent(facts, above)
        writer, present = entropy.Writer(self.distributions), not_zero(bands)
        more = symbols.further
        if more is not None:
            bands.append(more.integers)
        group: list[tuple[list[Array], list[Array]]] = []
        for step in walk(facts, bands, above, facts.weights[checked(quality) - 1], present):
            kinds = [contexts.classes(prediction, self.fitted.classes) for prediction in step.predictions]
            if worth is not None and step.band < len(worth.sizes):
                self._thin(step, kinds, bands[step.band], worth)
            values = [bands[step.band][place] for place in step.places]
            step.learn(values)
            group.append((values, kinds))
            if len(group) == len(PASSES):
                _write(writer, group)
                group = []
        return np.packbits(not_zero(symbols.bands)).tobytes() + further.header(more) + writer.bytes()

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

    def in_steps(self, level: str, bands: list[Tensor], quality: int) -> list[Tensor]:
        """Real-valued bands in units of the quantiser's step. Raises PacketError for a quality out of range."""
        step = self.fitted.step(level, checked(quality))
        return [band / step for band in bands]

    def worth(self, level: str, sizes: list[Tensor]) -> Worth:
        """What decides whether a magnitude of one is kept, of each band but the means, B K n h w.

        On the CPU sizes and thresholds themselves; from another device integers that compare alike: how many of the
        different thresholds a size, or a threshold, reaches.
        """
        means = 1 if self._facts(level).smooth else 0  # they are coded as differences, and kept as they are
        kept = [size.abs() for size in sizes[: len(sizes) - means]]
        if sizes[0].device.type == "cpu":
            return Worth([size.numpy() for size in kept], self.thresholds)
        different = np.unique(self.thresholds)
        bounds = torch.from_numpy(different).to(sizes[0].device)
        ranks = [torch.bucketize(size, bounds, right=True).to(torch.int16).cpu().numpy() for size in kept]
        return Worth(ranks, np.searchsorted(different, self.thresholds, side="right").astype(np.int16))

    def _thin(self, step: Step, kinds: list[Array], band: Array, worth: Worth) -> None:
        """Set ones to zero, in place, whose size does not reach the threshold of their class."""
        for place, kind in zip(step.places, kinds, strict=True):
            values = band[place]
            drop = (np.abs(values) == 1) & (worth.sizes[step.band][place] < worth.thresholds[kind])
            band[place] = np.where(drop, 0, values)

    def read(self, level: str, data: bytes, size: Size, quality: int, above: Bands | None = None) -> Symbols:
        """A stream to integers: no floating point, so the same everywhere. size: rows and columns of the map."""
        facts = self._facts(level)
        _check_parent(facts, above)
        weights = facts.weights[checked(quality) - 1]
        bands = [np.zeros(shape, np.int32) for shape in band_shapes(facts, size)]
        present, rest = _flags(level, data, sum(len(band) for band in bands))
        more, rest = further.announced(rest, facts.mean.size, size)
        every = bands if more is None else [*bands, more.integers]
        reader = entropy.Reader(rest, self.distributions)
        for step in walk(facts, every, above, weights, present):
            kinds = [contexts.classes(prediction, self.fitted.classes) for prediction in step.predictions]
            found = reader.read(_joined(kinds))
            values, at = [], 0
            for where, kind in zip(step.rectangles, kinds, strict=True):
                values.append(found[at : at + kind.size].reshape(kind.shape))
                every[step.band][(step.components, slice(None), *where)] = values[-1]
                at += kind.size
            step.learn(values)
        reader.finish()
        return Symbols(bands, more)

    def _facts(self, level: str) -> LevelTables:
        for facts in self.fitted.levels:
            if facts.name == level:
                return facts
        known = [facts.name for facts in self.fitted.levels]
        raise PacketError(f"space {self.space!r} has no level {level!r}; {nearest(level, known)}")

    def _above(self, facts: LevelTables, shape: tuple[int, ...], symbols: object) -> Bands | None:
        """The bands of a parent's symbols. Raises PacketError for those of another codec, or of other tables."""
        if symbols is None or not facts.parent:
            return None
        half = (-(-shape[-2] // 2), -(-shape[-1] // 2))
        wanted = band_shapes(self._facts(facts.parent), half)
        if not isinstance(symbols, Symbols) or [band.shape for band in symbols.bands] != wanted:
            raise PacketError(
                f"level {facts.name!r} is coded on top of {facts.parent!r} as {NAME}@{self.tables} codes that, and it "
                "was coded otherwise; encode both"
            )
        return symbols.bands

    def _fits(self, facts: LevelTables, shape: tuple[int, ...], parent: Parent | None) -> None:
        """Raise PacketError unless a map of this shape can be coded on top of this parent."""
        if len(shape) != 3 or shape[0] != facts.mean.size or min(shape) < 1:
            raise PacketError(
                f"level {facts.name!r} of the tables {self.tables} is a map of {facts.mean.size} channels, got one of "
                f"shape {tuple(shape)}; choose the codec `plain-fp16`, or tables of that space"
            )
        _check_parent(facts, parent)
        if parent is None:
            return
        wanted = (-(-shape[1] // 2), -(-shape[2] // 2))
        if tuple(parent.values.shape[-2:]) != wanted:
            raise PacketError(
                f"level {facts.name!r} of {shape[1]} x {shape[2]} is coded on top of {wanted[0]} x {wanted[1]} of "
                f"{facts.parent!r}, got {parent.values.shape[-2]} x {parent.values.shape[-1]}; "
                "give that of this picture"
            )


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


def walk(level: LevelTables, bands: Bands, above: Bands | None, weights: Array, present: Array) -> Iterator[Step]:
    """The one order in which symbols are coded. above: the bands of the parent. Reads from `bands` only what earlier
    steps have filled in. One band more than the tables have: that of further components.
    """
    starts = np.cumsum([0, *(len(band) for band in bands[: level.bands])])
    for band in range(level.bands - 1, -1, -1):
        here = np.flatnonzero(present[starts[band] : starts[band + 1]])
        if here.size:
            surroundings = _surroundings(level, bands[: level.bands], above, band)
            yield from _steps(band, bands[band].shape, here, surroundings, weights[band])
    for integers in bands[level.bands :]:
        count, *shape = integers.shape
        surroundings = Surroundings((shape[0], shape[1], shape[2]), None, [(contexts.total(bands[0]), 1)])
        same = np.broadcast_to(further.WEIGHTS[:, None, None], (len(PASSES), 1, count, contexts.FEATURES))
        yield from _steps(level.bands, integers.shape, np.arange(count), surroundings, same)


def _steps(
    band: int, shape: tuple[int, ...], here: Array, surroundings: Surroundings, weights: Array
) -> Iterator[Step]:
    """The steps of one band K n h w. here: its components that are coded; weights: passes x orientations x K x 9."""
    orientations, height, width = shape[1:]
    for start, stop in contexts.groups(shape[0]):
        components = here[(here >= start) & (here < stop)]
        if not components.size:
            continue
        surroundings.begin(components)
        for index, rectangles in enumerate(PASSES):
            chosen = weights[index, :orientations][:, components]
            places = [(len(range(*r.indices(height))), len(range(*c.indices(width)))) for r, c in rectangles]
            features = surroundings.features(index)
            predictions = [
                contexts.predicted(each, chosen, (len(components), orientations, *size))
                for each, size in zip(features, places, strict=True)
            ]
            yield Step(band, components, index, surroundings, features, predictions)
        surroundings.end()


def _surroundings(level: LevelTables, bands: Bands, above: Bands | None, band: int) -> Surroundings:
    shape = (bands[band].shape[1], bands[band].shape[2], bands[band].shape[3])
    if level.smooth and 0 < band < len(bands) - 2:
        return Surroundings(shape, bands[band + 1], [])
    if band:  # means, and the band above them, whose coarser band is the means: their size tells nothing
        return Surroundings(shape, None, [])
    if level.smooth:
        return Surroundings(shape, None, [(contexts.total(bands[1]), 2), (contexts.total(bands[2]), 4)])
    if above is not None:
        totals = [(contexts.total(x), 2 ** (r + 1)) for r, x in enumerate(above[:2])]
        return Surroundings(shape, None, totals)
    return Surroundings(shape, None, [])


def _flags(level: str, data: bytes, count: int) -> tuple[Array, bytes]:
    """The flags of a stream, and what follows them."""
    length = -(-count // 8)
    if len(data) < length:
        raise PacketError(f"the stream of {level!r} has {len(data)} bytes, fewer than its {length} flag bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, length)).astype(bool)
    if bits[count:].any():
        raise PacketError(f"the stream of {level!r} has flags of no component; fetch it again")
    return bits[:count], data[length:]


def not_zero(bands: Bands) -> Array:
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


def _check_parent(level: LevelTables, parent: object) -> None:
    """Raise PacketError unless there is a parent where the level has one, and none where it has none."""
    if level.parent and parent is None:
        raise PacketError(f"level {level.name!r} is coded on top of {level.parent!r}, which is missing; give both")
    if not level.parent:
        no_parent(NAME, level.name, parent)


def checked(quality: int) -> int:
    """quality itself, or a PacketError naming the range."""
    if not 1 <= quality <= QUALITIES:
        raise PacketError(f"quality {quality} is not between 1 (smallest) and {QUALITIES} (finest)")
    return quality
