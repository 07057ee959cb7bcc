"""What a store of a million pictures costs: to fill, to open, to look up in.

    python benchmarks/store_rows.py [--rows 1000000] [--stream 200] [--json OUT]

put: rows with one small stream each, at the default cadence (COMMIT_ROWS a call, each with uri, size and mtime); the
mean time of a row in the first and the last tenth, in wall time and in this process's processor time (all threads; on
a loaded machine the steadier of the two), and the files at the end. Then, each in a process of its own: the time to
open and ask one record, its memory, and the times of look-ups by key, uri, end of a path and prefix, of the facts of
4,096 known files, and of 4,096 unknown ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import workbench
from chiasm.contracts import Coded, Level, Record, Space, Stored, View
from chiasm.store import COMMIT_ROWS, LanceStore, open_store

SPACE = Space("ns-1", (Level("context", 64, 4),), 4)
VIEW = View((48, 64))
NOISE = random.Random(0).randbytes(1 << 20)


def key_of(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def uri_of(number: int) -> str:
    return f"/photos/{number // 1000:05}/IMG_{number:08}.jpg"


def record(number: int, stream: int) -> Record:
    start = number % 1_000_000
    coded = Coded("ladder", "", 3, (64, 12, 16), VIEW, NOISE[start : start + stream])
    key = key_of(number)
    levels = {SPACE.name: {"context": Stored("ns-rgb@bench", coded)}}
    return Record(key, key, (48, 64), 123_456, levels, uris=(uri_of(number),))


def fill(path: Path, rows: int, stream: int) -> dict[str, object]:
    walls, cpus = [], []
    with open_store(path, "w") as store:
        store.declare(SPACE)
        for first in range(0, rows, COMMIT_ROWS):
            numbers = range(first, min(rows, first + COMMIT_ROWS))
            records = [record(number, stream) for number in numbers]
            stats = {uri_of(number): (123_456, number) for number in numbers}
            wall, cpu = time.perf_counter(), time.process_time()
            store.put(records, stats=stats)
            walls.append((time.perf_counter() - wall) / len(records))
            cpus.append((time.process_time() - cpu) / len(records))
            if len(walls) % 32 == 0:
                print(f"{numbers[-1] + 1:>9} rows, {1e6 * statistics.mean(walls[-32:]):.0f} us a row", flush=True)
    tenth = max(1, len(walls) // 10)
    return {
        **tenths("wall", walls, tenth),
        **tenths("processor", cpus, tenth),
        "seconds in put": round(sum(walls) * COMMIT_ROWS, 1),
        "longest put, s": round(max(walls) * COMMIT_ROWS, 2),
        "files": sum(len(files) for _, _, files in os.walk(path)),
        "megabytes": round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6),
        "peak memory, MB": peak(),
    }


def tenths(name: str, times: list[float], tenth: int) -> dict[str, float]:
    first, last = statistics.mean(times[:tenth]), statistics.mean(times[-tenth:])
    return {
        f"{name}: first tenth, us a row": round(1e6 * first, 1),
        f"{name}: last tenth, us a row": round(1e6 * last, 1),
        f"{name}: last over first": round(last / first, 2),
    }


def peak() -> int:
    """Megabytes that this process has held at most (getrusage would count what its parent held)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1000


def look(path: str, rows: int) -> None:
    """The child: open, look up, and say what it took."""
    chance = random.Random(1)
    before = peak()
    start = time.perf_counter()
    store = open_store(path)
    opened = time.perf_counter()
    store.get(key_of(0))
    first = time.perf_counter()

    def one() -> int:
        return chance.randrange(rows)

    calls: dict[str, Callable[[], object]] = {
        "by key": lambda: store.get(key_of(one())),
        "by key, facts alone": lambda: store.get(key_of(one()), {}),
        "by uri": lambda: store.get(uri_of(one())),
        "by end of a path": lambda: store.get(uri_of(one()).rsplit("/", 1)[-1]),
        "by prefix": lambda: store.get(key_of(one())[:16]),
        "is it there": lambda: key_of(one()) in store,
        "is it there (no)": lambda: key_of(one() + rows) in store,
        "4,096 known files in a row": lambda: known(store, chance.randrange(max(1, rows - 4096)), 4096),
        "4,096 unknown files": lambda: known(store, rows + one(), 4096),
        "64 records": lambda: store.get_many([key_of(one()) for _ in range(64)]),
    }
    times: dict[str, object] = {f"{name}, ms": timed(call) for name, call in calls.items()}
    used = peak()
    start_listing = time.perf_counter()
    count = len(store.keys())
    found = {
        "rows": count,
        "list all keys, s": round(time.perf_counter() - start_listing, 2),
        "peak memory before listing, MB": used,
        "open, s": round(opened - start, 3),
        "open and first record, s": round(first - start, 3),
        **times,
        "peak memory, MB": peak(),
        "of which before opening, MB": before,
    }
    print(json.dumps(found), flush=True)


def known(store: LanceStore, first: int, count: int) -> int:
    return len(store.known({uri_of(number): (123_456, number) for number in range(first, first + count)}))


def timed(call: Callable[[], object], times: int = 30) -> dict[str, float]:
    """Milliseconds: median and least of many calls, after a first that does not count."""
    call()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        spent.append(1e3 * (time.perf_counter() - start))
    return {"median": round(statistics.median(spent), 2), "least": round(min(spent), 2)}


def main() -> None:
    parser = workbench.parser(__doc__, child=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--stream", type=int, default=200, help="bytes of each stream")
    parser.add_argument("--store", type=Path, help="look up in this store, which this script filled, and fill none")
    options = parser.parse_args()
    if options.child:
        look(options.child[0], int(options.child[1]))
        return
    results: dict[str, object] = {"machine": workbench.machine(), "rows": options.rows}
    with workbench.workplace(options.folder) as folder:
        path = options.store or folder / "photos.lance"
        if not options.store:
            results["put"] = fill(path, options.rows, options.stream)
        command = [sys.executable, __file__, "--child", str(path), str(options.rows)]
        child = subprocess.run(command, check=True, capture_output=True, text=True)
        results["look up"] = json.loads(child.stdout)
    print(json.dumps(results, indent=2))
    workbench.write(results, options.json)


if __name__ == "__main__":
    main()
