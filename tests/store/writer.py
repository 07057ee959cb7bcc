"""Makes synthetic records; as a script, the child process that the kill tests kill.

    python writer.py STORE START BATCHES SIZE

Puts batches of records one after the other and prints the last number of each batch *after* `put` returned.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence

from chiasm.contracts import Packet, Record, Sensor
from chiasm.store import open_store

LEVELS = ("context", "detail")
SPACE = "ns-1"


def key_of(number: int, feature_id: str = "ns-rgb@1") -> str:
    return hashlib.sha256(f"{number} {feature_id}".encode()).hexdigest()


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
    feature_id: str = "ns-rgb@1",
    space: str = SPACE,
) -> Record:
    """The record of picture `number`; its streams are the same each time."""
    noise = random.Random(f"{number} {feature_id}")
    streams = {level: noise.randbytes(size) for level, size in zip(LEVELS, sizes, strict=False)}
    packet = Packet(space, "ladder", 3, "", (48 + number % 5, 64), 512, streams)
    places = (f"/photos/{number:05d}.jpg",) if uris is None else tuple(uris)
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    sensor = None if number % 3 else SENSOR
    return Record(key_of(number, feature_id), digest, feature_id, "ladder@3", packet, 12_345, places, sensor)


def main(path: str, start: int, batches: int, size: int) -> None:
    with open_store(path, "w", SPACE, LEVELS) as store:
        sys.stdout.write("open\n")
        sys.stdout.flush()
        for first in range(start, start + batches * size, size):
            store.put([record(number) for number in range(first, first + size)])
            sys.stdout.write(f"{first + size - 1}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
