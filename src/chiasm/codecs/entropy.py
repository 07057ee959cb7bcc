"""Magnitudes to bytes and back under integer distributions, by constriction's range coder.

A magnitude m becomes a symbol (m itself below 12, then buckets of doubling width) and raw bits (its place in
the bucket, and the sign). Symbols of one group are sorted by class, so that each class is one call with one
distribution.
"""

from __future__ import annotations

import constriction
import numpy as np

from chiasm.errors import PacketError

Array = np.ndarray
DIRECT = 12
BUCKETS = (
    (12, 2),
    (16, 3),
    (24, 4),
    (40, 5),
    (72, 6),
    (136, 7),
    (264, 8),
    (520, 16),
)  # first magnitude, raw bits
SYMBOLS = DIRECT + len(BUCKETS)
TOTAL = 1 << 16
LARGEST = BUCKETS[-1][0] + (1 << BUCKETS[-1][1]) - 1  # 66,055

_FIRST = np.array([*range(DIRECT), *(first for first, _ in BUCKETS)], np.int32)
_BITS = np.array([0] * DIRECT + [bits for _, bits in BUCKETS], np.int32)


def models(counts: Array) -> list[object]:
    """One constriction model a row. counts / 2^16 is exact in float64, and what constriction makes of exact
    input is fixed by its version; golden packets watch over it."""
    return [constriction.stream.model.Categorical(row.astype(np.float64) / TOTAL, perfect=False) for row in counts]


def symbol_of(size: Array) -> Array:
    """int32 symbols of magnitudes 0 to LARGEST."""
    found: Array = np.searchsorted(_FIRST, size, side="right").astype(np.int32) - 1
    return found


class Writer:
    """Collects groups of integers; `bytes` is the stream: word count, range-coder words, raw bits."""

    def __init__(self, distributions: list[object]) -> None:
        self.distributions = distributions
        self.coder = constriction.stream.queue.RangeEncoder()
        self.raw: list[Array] = []

    def write(self, values: Array, kind: Array) -> None:
        """values: int32, any shape; kind: uint8 classes of the same shape."""
        flat, order = values.ravel(), np.argsort(kind.ravel(), kind="stable")
        ordered = flat[order]
        size = np.abs(ordered)
        largest = int(size.max(initial=0))
        if largest > LARGEST:
            raise PacketError(
                f"a coefficient of {largest} steps cannot be coded, {LARGEST} can; choose a lower quality"
            )
        large = largest >= DIRECT
        symbols = symbol_of(size) if large else size
        start = 0
        for index, count in enumerate(np.bincount(kind.ravel()).tolist()):
            if count:
                self.coder.encode(symbols[start : start + count], self.distributions[index])
                start += count
        self.raw.append((ordered[size > 0] < 0).astype(np.uint8))
        if large:
            self._extra(size, symbols)

    def _extra(self, size: Array, symbols: Array) -> None:
        for value, symbol in zip(size[symbols >= DIRECT], symbols[symbols >= DIRECT], strict=True):
            width, rest = int(_BITS[symbol]), int(value - _FIRST[symbol])
            self.raw.append(np.array([rest >> bit & 1 for bit in range(width - 1, -1, -1)], np.uint8))

    def bytes(self) -> bytes:
        words = self.coder.get_compressed().astype("<u4")
        raw = np.packbits(np.concatenate(self.raw)) if self.raw else np.zeros(0, np.uint8)
        data: bytes = len(words).to_bytes(4, "little") + words.tobytes() + raw.tobytes()
        return data


class Reader:
    """The inverse of `Writer`. Raises PacketError when the stream ends early."""

    def __init__(self, data: bytes, distributions: list[object]) -> None:
        count = int.from_bytes(data[:4], "little")
        if len(data) < 4 + 4 * count:
            raise PacketError(
                f"a stream of {len(data)} bytes announces {4 + 4 * count}; it was cut short, fetch it again"
            )
        self.distributions = distributions
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4", count, 4).astype(np.uint32))
        self.raw = np.unpackbits(np.frombuffer(data, np.uint8, offset=4 + 4 * count))
        self.at = 0

    def read(self, kind: Array) -> Array:
        """int32 values of the shape of `kind`."""
        order = np.argsort(kind.ravel(), kind="stable")
        ordered = np.empty(kind.size, np.int32)
        start = 0
        for index, count in enumerate(np.bincount(kind.ravel()).tolist()):
            if count:
                ordered[start : start + count] = self._decode(index, count)
                start += count
        signed = np.flatnonzero(ordered)
        negative = self._take(signed.size)
        if bool((ordered >= DIRECT).any()):
            self._extra(ordered)
        ordered[signed[negative == 1]] *= -1
        values = np.empty_like(ordered)
        values[order] = ordered
        return values.reshape(kind.shape)

    def finish(self) -> None:
        """Raise PacketError unless the stream ends with what was read from it."""
        rest = self.raw[self.at :]
        if len(rest) >= 8 or rest.any() or not self.coder.maybe_exhausted():
            raise PacketError("a stream holds more than its symbols; it was extended or damaged, fetch it again")

    def _decode(self, index: int, count: int) -> Array:
        try:
            decoded: Array = self.coder.decode(self.distributions[index], count)
        except (AssertionError, ValueError) as error:  # what constriction raises for words no encoder writes
            raise PacketError(f"a stream holds words that no encoder writes ({error}); fetch it again") from error
        return decoded

    def _extra(self, ordered: Array) -> None:
        for index in np.flatnonzero(ordered >= DIRECT):
            symbol = int(ordered[index])
            rest = 0
            for bit in self._take(int(_BITS[symbol])):
                rest = rest << 1 | int(bit)
            ordered[index] = int(_FIRST[symbol]) + rest

    def _take(self, count: int) -> Array:
        taken: Array = self.raw[self.at : self.at + count]
        if len(taken) < count:
            raise PacketError(f"a stream ends {count - len(taken)} bits early; it was cut short, fetch it again")
        self.at += count
        return taken
