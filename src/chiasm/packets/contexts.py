"""How large is a symbol likely to be, given what is already decoded? Integer arithmetic only.

Bands are coded coarse to fine, and inside a band the components in small groups. The magnitude of a symbol is
predicted as an integer-weighted sum of magnitudes already known around it:

    0  the same component one band coarser, at the same place         3  components before it: here
    1  its eight neighbours there                                     4  their eight neighbours
    2  all components one band coarser, 3 x 3                         5  components before it: other orientations, here
    6  one

For the finest level of a pyramid, which has no coarser band of its own, the bands of its parent level stand in.
The prediction, in 1/1024, picks one of the integer distributions by a look-up.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray
FEATURES = 7
UNIT = 1024
_CAP = 255  # magnitudes count as at most this much, which keeps every sum inside 32 bits
_SHIFT = 3
LOOKUP = 4096


def groups(components: int) -> Iterator[tuple[int, int]]:
    """Component groups that are coded together: 1, 1, 2, 4, 8, ... of them."""
    start, width = 0, 1
    while start < components:
        stop = min(components, start + width)
        yield start, stop
        start, width = stop, max(1, start)


def neighbours(x: Array) -> Array:
    """Sum of the eight neighbours in the last two axes, zero outside; int32."""
    rows = np.zeros_like(x)
    rows[..., 1:, :] += x[..., :-1, :]
    rows[..., :-1, :] += x[..., 1:, :]
    column = rows + x
    total = rows
    total[..., 1:] += column[..., :-1]
    total[..., :-1] += column[..., 1:]
    return total


def enlarged(x: Array, factor: int, size: tuple[int, int]) -> Array:
    """Each element repeated factor x factor times, cropped to `size`."""
    grown: Array = x.repeat(factor, axis=-2)[..., : size[0], :].repeat(factor, axis=-1)[..., : size[1]]
    return grown


def magnitude(band: Array) -> Array:
    return np.minimum(np.abs(band), _CAP).astype(np.int32)


class Surroundings:
    """The known magnitudes around one band: built once per band, asked once per group of components.

    coarser: K n h w integers of the next coarser band of this level or None; above: the maps 1 h w of total magnitude
    that stand in for feature 2 (and, for a level without a wavelet, features 0 and 1).
    """

    def __init__(self, shape: tuple[int, int, int], coarser: Array | None, above: tuple[Array, Array] | None) -> None:
        self.orientations, self.size = shape[0], (shape[1], shape[2])
        self.own: tuple[Array, Array] | None = None
        zero = np.zeros((1, 1, *self.size), np.int32)
        self.all = zero
        self.stand_in = (zero, zero)
        if coarser is not None:
            known = magnitude(coarser)
            self.own = (known, neighbours(known))
            every = known.sum(axis=(0, 1), dtype=np.int32)[None, None]
            self.all = enlarged(every + neighbours(every), 2, self.size)
        elif above is not None:
            near, far = above
            self.all = enlarged(near + neighbours(near), 4, self.size)[None]
            self.stand_in = (enlarged(near, 4, self.size)[None], enlarged(far + neighbours(far), 8, self.size)[None])
        self.before = np.zeros((self.orientations, *self.size), np.int32)

    def features(self, start: int, stop: int) -> list[Array]:
        """Features 0 to 5 for components start to stop: arrays that broadcast to (stop - start) n h w."""
        if self.own is not None:
            here, around = (enlarged(part[start:stop], 2, self.size) for part in self.own)
        else:
            here, around = self.stand_in
        before = self.before[None]
        others = before.sum(axis=1, keepdims=True, dtype=np.int32) - before
        return [here, around, self.all, before, neighbours(before), others]

    def learn(self, symbols: Array) -> None:
        """Add the symbols g n h w of a group that is now known."""
        self.before += magnitude(symbols).sum(axis=0, dtype=np.int32)


def predicted(features: list[Array], weights: Array) -> Array:
    """Predicted magnitudes in 1/1024, int32 g n h w. weights: int32 n x g x 7."""
    by = weights.transpose(1, 0, 2)[..., None, None]  # g n 7 1 1
    total = by[:, :, 6] * np.ones((1, 1, *features[3].shape[-2:]), np.int32)
    for index, feature in enumerate(features):
        if feature.any():
            total = total + by[:, :, index] * feature
    result: Array = total
    return result


def classes(prediction: Array, lookup: Array) -> Array:
    """uint8 class of each prediction, by `lookup` of 4096 entries at 1/128."""
    found: Array = lookup[np.clip(prediction >> _SHIFT, 0, LOOKUP - 1)]
    return found
