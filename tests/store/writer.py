"""Makes synthetic records; as a script, the child process that the kill tests kill.

    python writer.py STORE START BATCHES SIZE

Puts batches of records one after the other and prints the last number of each batch *after* `put` returned.
"""

from __future__ import annotations

import hashlib
import random
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace

from chiasm.contracts import Capture, Coded, Level, Record, Sensor, Space, Stored, View
from chiasm.store import open_store

SPACE = Space("ns-1", (Level("context", 64, 4), Level("detail", 64, 2)), 4)
LEVELS = SPACE.names
SHAPES = {"context": (64, 12, 16), "detail": (64, 24, 32)}
TOKENS = Space("timm:vit_tiny@1a2b", (Level("tokens", 192, 16), Level("summary", 8, 0)), 16)


def key_of(number: int) -> str:
    return hashlib.sha256(f"{number}".encode()).hexdigest()


SENSOR = Sensor(
    (2.0, 1.0, 1.5),
    ((1.5, -0.4, -0.1), (-0.2, 1.4, -0.2), (0.0, -0.5, 1.5)),
    shot=1e-3,
    read=1e-5,
    camera="Made Up 5",
    iso=400.0,
    pattern="GBRG",
    black=(64.0, 65.0, 65.0, 64.5),
    white=4095.0,
)


def record(
    number: int,
    sizes: Sequence[int] = (900, 3000),
    uris: Sequence[str] | None = None,
    encoder: str = "ns-rgb@1",
    space: str = SPACE.name,
) -> Record:
    """The record of picture `number`; its streams are the same each time. sizes: bytes of context, then detail."""
    noise = random.Random(f"{number} {encoder}")
    view = View((48, 64))
    levels = {
        level: Stored(encoder, Coded("ladder", "", 3, SHAPES[level], view, noise.randbytes(size)))
        for level, size in zip(LEVELS, sizes, strict=False)
    }
    places = (f"/photos/{number:05d}.jpg",) if uris is None else tuple(uris)
    digest = hashlib.sha256(f"digest {number}".encode()).hexdigest()
    capture = Capture("2024-05-06T07:08:09", "Made Up 5", 35.0, None if number % 3 else SENSOR)
    facts = {"uris": places, "capture": capture, "part": "page=2" if number % 7 == 3 else ""}
    return Record(key_of(number), digest, (48 + number % 5, 64), 12_345, {space: levels}, **facts)


def tokens(number: int, dtype: str = "<f2") -> Record:
    """The same picture in a second space: a map of tokens and a vector."""
    noise = random.Random(f"{number} tokens")
    view = View((224, 224), (224 / 48, 224 / 64), (0.0, 0.0))
    size = 2 if dtype == "<f2" else 4
    vector = b"".join(struct.pack("<e" if size == 2 else "<f", noise.uniform(-4, 4)) for _ in range(8))
    levels = {
        "tokens": Stored("vit@1", Coded("plain", "", 0, (192, 14, 14), view, noise.randbytes(500))),
        "summary": Stored("vit@1", Coded("plain", "", 0, (8,), view, vector)),
    }
    return replace(record(number), spaces={TOKENS.name: levels})


def main(path: str, start: int, batches: int, size: int) -> None:
    with open_store(path, "w") as store:
        store.declare(SPACE)
        sys.stdout.write("open\n")
        sys.stdout.flush()
        for first in range(start, start + batches * size, size):
            store.put([record(number) for number in range(first, first + size)])
            sys.stdout.write(f"{first + size - 1}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
