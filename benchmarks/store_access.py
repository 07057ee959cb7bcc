"""How fast a store of 10,000 images answers.

    python benchmarks/store_access.py [--images 10000] [--store FOLDER] [--json OUT]

Streams are random bytes of realistic sizes: context about 8 KB, detail about 55 KB (lognormal), stored in
commits of 64. Timed, in medians, before and after `compact`: opening, one level of one
image, one batched read of 100 images, and a scan of one level. cold: the store's files are dropped from the
page cache before each measure (posix_fadvise; Lance's own caches stay, except where the store is opened
anew). warm: they are in it.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import workbench
from chiasm.contracts import Record
from chiasm.store import LanceStore, open_store
from store_faults import SPACE, key_of, record_of


def record(number: int) -> Record:
    noise = random.Random(number)
    context, detail = (int(noise.lognormvariate(math.log(size), 0.4)) for size in (8_000, 55_000))
    return record_of(number, {"context": noise.randbytes(context), "detail": noise.randbytes(detail)})


def fill(path: Path, images: int) -> dict[str, float]:
    """Store the images; the time is that of `put` alone, fsyncs included."""
    spent, size = [], 0
    with open_store(path, "w") as store:
        store.declare(SPACE)
        for first in range(0, images, 64):
            records = [record(number) for number in range(first, min(first + 64, images))]
            size += sum(len(level.coded.data) for one in records for level in one.spaces[SPACE.name].values())
            start = time.perf_counter()
            store.put(records)
            spent.append(time.perf_counter() - start)
    return {
        "put of 64, ms": 1e3 * statistics.median(spent),
        "first tenth, ms": 1e3 * statistics.median(spent[: max(1, len(spent) // 10)]),
        "last tenth, ms": 1e3 * statistics.median(spent[-max(1, len(spent) // 10) :]),
        "put, images per s": images / sum(spent),
        "stream megabytes": size / 1e6,
    }


def drop_cache(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def median_ms(call: Callable[[], object], times: int, before: Callable[[], object] | None = None) -> float:
    if before is None:
        call()
    spent = []
    for _ in range(times):
        if before:
            before()
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return 1e3 * statistics.median(spent)


def opened(path: Path) -> int:
    with open_store(path) as store:
        return len(store)


def scanned(store: LanceStore, level: str) -> int:
    return sum(len(found.spaces[SPACE.name][level].coded.data) for found in store.scan({SPACE.name: [level]}))


def measure(path: Path, images: int) -> dict[str, dict[str, float]]:
    chance = random.Random(0)
    results: dict[str, dict[str, float]] = {}
    for state, before in (("cold", lambda: drop_cache(path)), ("warm", None)):
        few, many = (30, 200) if before is None else (7, 50)
        timed = {"open, ms": median_ms(lambda: opened(path), few, before)}
        with open_store(path) as store:
            store.get(key_of(0))  # reads the index: the open time is counted above
            for level in SPACE.names:
                one = lambda level=level: store.get(key_of(chance.randrange(images)), {SPACE.name: [level]})  # noqa: E731
                hundred = lambda level=level: store.get_many(  # noqa: E731
                    [key_of(chance.randrange(images)) for _ in range(100)], {SPACE.name: [level]}
                )
                timed[f"one {level}, ms"] = median_ms(one, many, before)
                timed[f"batch of 100 {level}, ms"] = median_ms(hundred, few, before)
                size = scanned(store, level)
                spent = median_ms(lambda level=level: scanned(store, level), 3, before)
                timed[f"scan {level}, images per s"] = 1e3 * images / spent
                timed[f"scan {level}, MB per s"] = size / 1e3 / spent
        results[state] = {name: round(value, 3) for name, value in timed.items()}
    return results


def main() -> None:
    parser = workbench.parser(__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    with workbench.workplace(options.folder) as folder:
        path = folder / "photos.lance"
        results: dict[str, object] = {
            "images": options.images,
            "machine": workbench.machine(),
            "fill": {name: round(value, 2) for name, value in fill(path, options.images).items()},
            "as committed": measure(path, options.images),
        }
        start = time.perf_counter()
        with open_store(path, "w") as store:
            store.compact()
        results["compact, s"] = round(time.perf_counter() - start, 2)
        results["compacted"] = measure(path, options.images)
    print(json.dumps(results, indent=2))
    workbench.write(results, options.json)


if __name__ == "__main__":
    main()
