"""How large is a symbol likely to be, given what is already decoded? Integer arithmetic only.

Bands are coded coarse to fine, inside a band the components in small groups, and inside a group the places in
three passes: even rows and columns, odd rows and columns, then the rest, whose four adjacent places are then
all known. The magnitude of a symbol is predicted as an integer-weighted sum of magnitudes around it:

    0  its component one band coarser, here            3  components before it, here
    1  the eight neighbours there                      4  components before it, their eight neighbours
    2  all components one band coarser, 3 x 3          5  components before it, other orientations, here
    6  its own component, four adjacent places         7  its own component, four diagonal places     8  one

A band without a coarser one of its own components looks at totals instead: 0 and 1 at the next coarser band
of its level or parent level, 2 at the one after. The prediction, in 1/1024, picks an integer distribution by
a look-up.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Slices = tuple[slice, slice]
FEATURES = 9
UNIT = 1024
LOOKUP = 4096
_CAP = 255  # magnitudes count as at most this much
_SHIFT = 3
_NOTHING = np.zeros((1, 1, 1, 1), np.int32)
_EVEN, _ODD = slice(0, None, 2), slice(1, None, 2)

PASSES: tuple[tuple[Slices, ...], ...] = (((_EVEN, _EVEN),), ((_ODD, _ODD),), ((_EVEN, _ODD), (_ODD, _EVEN)))


def groups(components: int) -> Iterator[tuple[int, int]]:
    """Component groups that are coded together: 1, 1, 2, 4, 8, ... of them."""
    start, width = 0, 1
    while start < components:
        stop = min(components, start + width)
        yield start, stop
        start, width = stop, max(1, stop)


def adjacent(x: Array) -> Array:
    """Sum of the four adjacent places in the last two axes, zero outside."""
    total = np.zeros_like(x)
    total[..., 1:, :] += x[..., :-1, :]
    total[..., :-1, :] += x[..., 1:, :]
    total[..., 1:] += x[..., :-1]
    total[..., :-1] += x[..., 1:]
    return total


def diagonal(x: Array) -> Array:
    """Sum of the four diagonal places in the last two axes, zero outside."""
    rows = np.zeros_like(x)
    rows[..., 1:, :] += x[..., :-1, :]
    rows[..., :-1, :] += x[..., 1:, :]
    total: Array = np.zeros_like(x)
    total[..., 1:] += rows[..., :-1]
    total[..., :-1] += rows[..., 1:]
    return total


def neighbours(x: Array) -> Array:
    total: Array = adjacent(x) + diagonal(x)
    return total


def enlarged(x: Array, factor: int, size: tuple[int, int]) -> Array:
    """Each element repeated factor x factor times, cropped to `size`."""
    grown: Array = x.repeat(factor, axis=-2)[..., : size[0], :].repeat(factor, axis=-1)[..., : size[1]]
    return grown


def magnitude(band: Array) -> Array:
    size: Array = np.minimum(np.abs(band), _CAP).astype(np.int32)
    return size


def total(band: Array) -> Array:
    """1 1 h w: magnitudes summed over components and orientations."""
    summed: Array = magnitude(band).sum(axis=(0, 1), dtype=np.int32)[None, None]
    return summed


class Surroundings:
    """The known magnitudes around one band: built once per band, asked before each pass, told after it.

    shape: n h w of the band. own: the next coarser band of the same components, K n h/2 w/2, or None. totals:
    what stands in for it, next coarser first: pairs of a 1 1 h' w' total and the factor to this band's size.
    """

    def __init__(self, shape: tuple[int, int, int], own: Array | None, totals: list[tuple[Array, int]]) -> None:
        self.size = (shape[1], shape[2])
        self.coarser: tuple[Array, Array] = (_NOTHING, _NOTHING)
        self.wide = _NOTHING
        if own is not None:
            known = magnitude(own)
            self.coarser = self._up(known, 2), self._up(neighbours(known), 2)
            every = total(own)
            self.wide = self._up(every + neighbours(every), 2)
        elif totals:
            (near, factor), (far, further) = totals[0], totals[-1]
            self.coarser = self._up(near, factor), self._up(neighbours(near), factor)
            self.wide = self._up(far + neighbours(far), further)
        self.before = np.zeros(shape, np.int32)
        self.current: Array = _NOTHING
        self.shared: list[Array] = []

    def _up(self, x: Array, factor: int) -> Array:
        return enlarged(x, factor, self.size)

    def begin(self, components: Array) -> None:
        """Turn to a group: the indices of the components that will be coded together."""
        here, around = (x[components] if x.shape[0] > 1 else x for x in self.coarser)
        before = self.before[None]
        others = before.sum(axis=1, keepdims=True, dtype=np.int32) - before
        self.shared = [here, around, self.wide, before, neighbours(before), others]
        self.current = np.zeros((len(components), *self.before.shape), np.int32)

    def features(self, index: int) -> list[list[Array]]:
        """For each rectangle of pass `index`, features 0 to 7: arrays that broadcast to g n h' w'."""
        own = [adjacent(self.current), diagonal(self.current)] if index else []
        return [
            [x if x is _NOTHING else x[..., rows, columns] for x in (*self.shared, *own)]
            for rows, columns in PASSES[index]
        ]

    def learn(self, rectangle: Slices, values: Array) -> None:
        """The symbols g n h' w' of one rectangle of the current pass are now known."""
        self.current[..., rectangle[0], rectangle[1]] = magnitude(values)

    def end(self) -> None:
        """The group is complete."""
        self.before = self.before + self.current.sum(axis=0, dtype=np.int32)


def predicted(features: list[Array], weights: Array, shape: tuple[int, ...]) -> Array:
    """Predicted magnitudes in 1/1024, of shape g n h w. weights: int32 n x g x 9, none negative.

    int32, or int64 where 32 bits could overflow: the sum is that of unbounded integers.
    """
    heaviest = [int(weight) for weight in weights.max(axis=(0, 1))]
    largest = [int(feature.max(initial=0)) for feature in features]
    bound = heaviest[-1] + sum(weight * size for weight, size in zip(heaviest, largest, strict=False))
    kind = np.int32 if bound < 1 << 31 else np.int64
    by = weights.transpose(1, 0, 2)[..., None, None].astype(kind, copy=False)  # g n 9 1 1
    result = np.empty(shape, kind)
    result[:] = by[:, :, FEATURES - 1]
    for index, feature in enumerate(features):
        if heaviest[index] and largest[index]:
            result += by[:, :, index] * feature
    return result


def classes(prediction: Array, lookup: Array) -> Array:
    """uint8 class of each prediction, by `lookup` of 4096 entries at 1/128."""
    found: Array = lookup[np.clip(prediction >> _SHIFT, 0, LOOKUP - 1)]
    return found
