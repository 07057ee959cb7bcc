"""What a store keeps through kills and storage faults.

    python benchmarks/store_faults.py [--kills 200] [--faults 50] [--json OUT]

kills: a child puts batches of records (30 to 100 KB each) as fast as it can, compacts now and then, and
reports each batch through a pipe *after* `put` returned. It is killed (SIGKILL) at a random moment, `--kills`
times on the same store, which the next child continues. Counted after each kill: reported rows that are gone,
keys stored twice, stores that do not open, warnings. Every stream is compared byte by byte at the end and
after each 25th kill.

faults: `--faults` times of each kind, on a fresh copy of a store of 6 commits, one file of the last commit
(data, manifest, transaction or journal, chosen at random) is truncated, zeroed or removed. Then the store is
opened, compared, written to again, and compared again. The rows of the first 5 commits must all be there.

no space left: a file system of a random size is filled until `put` fails (tmpfs as root; otherwise a limit on
the size of a file).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import workbench
from chiasm.contracts import Coded, Level, Record, Space, Stored, View
from chiasm.errors import StoreError
from chiasm.store import LanceStore, StoreWarning, open_store
from chiasm.store.local import commits, journal

SPACE = Space("ns-1", (Level("context", 64, 4), Level("detail", 64, 2)), 4)
SHAPES = {"context": (64, 128, 192), "detail": (64, 256, 384)}
BATCH = 8
FEATURES = "ns-rgb@bench"


def key_of(number: int) -> str:
    return hashlib.sha256(f"{number}".encode()).hexdigest()


def record_of(number: int, streams: dict[str, bytes]) -> Record:
    """The record of picture `number` with these streams."""
    levels = {
        name: Stored(FEATURES, Coded("ladder", "", 3, SHAPES[name], View((512, 768)), data, 512))
        for name, data in streams.items()
    }
    key = key_of(number)
    return Record(key, key, (512, 768), 400_000, {SPACE.name: levels}, uris=(f"/photos/{number}.jpg",))


def record(number: int) -> Record:
    """The same bytes in every process, 30 to 100 KB in all."""
    noise = random.Random(number)
    total = noise.randint(30_000, 100_000)
    return record_of(number, {"context": noise.randbytes(total // 8), "detail": noise.randbytes(total - total // 8)})


def batch(first: int, size: int = BATCH) -> list[Record]:
    return [record(number) for number in range(first, first + size)]


def child(path: str, first: int) -> None:
    """Write until killed. Each report is one line, written only when `put` has returned."""
    print("ready", flush=True)
    commits.GRACE = 0.0  # so that kills meet the removal of merged files too
    with open_store(path, "w") as store:
        store.declare(SPACE)
        for turn in range(1_000_000):
            store.put(batch(first + turn * BATCH))
            print(first + (turn + 1) * BATCH - 1, flush=True)
            if turn % 64 == 63:
                store.compact(rows_per_fragment=256)


def check(found: Record) -> str | None:
    """None when a stored record has the very bytes that were put."""
    number = NUMBERS.get(found.key, -1)
    return None if number >= 0 and record(number).spaces == found.spaces else "bytes differ"


NUMBERS: dict[str, int] = {}


def compare(store: LanceStore, count: int) -> tuple[int, int]:
    """Records among the first `count` that are missing or have other bytes; keys stored twice."""
    NUMBERS.update({key_of(number): number for number in range(count + 10_000)} if len(NUMBERS) < count else {})
    report = store.verify(check)
    keys = set(store.keys()) - set(report.bad)
    return sum(key_of(number) not in keys for number in range(count)), len(report.duplicates)


def kill_once(path: Path, first: int, delay: float) -> int:
    """Start a child, kill it `delay` seconds after it is ready; give the last number it reported, or -1."""
    return max((int(line) for line in workbench.killed(delay, path, first) if line.isdigit()), default=-1)


def run_kills(folder: Path, kills: int, seed: int) -> dict[str, object]:
    moments = random.Random(seed)
    path = folder / "kills.lance"
    totals: Counter[str] = Counter()
    reported = -1
    for turn in range(kills):
        # the early milliseconds are opening, recovering, or (the first time) making the store
        delay = moments.choice((moments.uniform(0, 0.06), moments.uniform(0, 1.0)))
        reported = max(reported, kill_once(path, reported + 1, delay))
        totals["kills"] += 1
        if not (path / "store.json").is_file() and reported < 0:
            totals["killed before the store was made"] += 1
            continue
        try:
            with warnings.catch_warnings(record=True) as said, open_store(path) as store:
                warnings.simplefilter("always")
                keys = store.keys()
                totals["warnings"] += len(said)
                totals["duplicates"] += len(keys) - len(set(keys))
                totals["lost"] += sum(key_of(number) not in store for number in range(reported + 1))
                totals["unreported but kept"] += len(keys) - (reported + 1)
                if turn % 25 == 24:
                    totals["lost"] += compare(store, reported + 1)[0]
                reported = max(reported, len(keys) - 1)
        except StoreError as error:
            print(f"unopenable: {error}")
            totals["unopenable"] += 1
    with open_store(path, "w") as store:
        store.declare(SPACE)
        store.put(batch(reported + 1))
        missing, doubled = compare(store, reported + 1 + BATCH)
        orphans = len(store.verify(check).orphans)
    names = ("kills", "lost", "duplicates", "unopenable", "warnings", "unreported but kept")
    return {
        **{name: totals[name] for name in (*names, "killed before the store was made")},
        "rows at the end": reported + 1 + BATCH,
        "rows wrong at the end": missing,
        "duplicates at the end": doubled,
        "orphan files at the end": orphans,
    }


def truncate(file: Path, chance: random.Random) -> None:
    os.truncate(file, chance.randrange(file.stat().st_size))


def zero(file: Path, chance: random.Random) -> None:
    """Zero the whole file, or everything from some 4 KiB block on: what a delayed allocation leaves."""
    data = bytearray(file.read_bytes())
    start = chance.choice((0, chance.randrange(len(data)) // 4096 * 4096))
    data[start:] = bytes(len(data) - start)
    file.write_bytes(data)


def remove(file: Path, chance: random.Random) -> None:
    file.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate,
    "zeroed": zero,
    "removed": remove,
}


def last_commit_files(path: Path) -> list[Path]:
    number = journal.numbers(path)[0]
    commit = journal.read_commit(path, number)
    assert commit
    transactions = [max((path / name / "_transactions").iterdir(), key=read_version) for name in list(commit.rows)[:2]]
    return [journal.commit_path(path, number), *(path / mark.path for mark in commit.marks), *transactions]


def read_version(transaction: Path) -> int:
    return int(transaction.name.split("-")[0])


def run_faults(folder: Path, faults: int, seed: int) -> dict[str, object]:
    origin = folder / "origin.lance"
    with open_store(origin, "w") as store:
        store.declare(SPACE)
        for first in range(0, 6 * BATCH, BATCH):
            store.put(batch(first))
    chance = random.Random(seed)
    results: dict[str, object] = {}
    for name, damage in DAMAGES.items():
        totals: Counter[str] = Counter()
        for _ in range(faults):
            path = folder / "fault.lance"
            shutil.copytree(origin, path)
            hit = chance.choice(last_commit_files(path))
            damage(hit, chance)
            totals[f"hit {hit.suffix[1:]}"] += 1
            totals.update(after_fault(path))
            shutil.rmtree(path)
        names = ("faults", "committed rows lost", "duplicates", "unopenable", "last commit recovered whole")
        counts = {key: totals[key] for key in (*names, "fell back loudly", "fell back silently")}
        results[name] = {**counts, **{key: totals[key] for key in totals if key.startswith("hit ")}}
    return results


def after_fault(path: Path) -> Counter[str]:
    """Open the damaged store, count, put everything again, and count again."""
    totals = Counter({"faults": 1})
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with open_store(path, "w") as store:
                missing, doubled = compare(store, 5 * BATCH)
                whole = len(store) == 6 * BATCH
                totals["last commit recovered whole"] += whole
                loud = any(issubclass(one.category, StoreWarning) for one in said)
                totals["fell back loudly"] += loud and not whole
                totals["fell back silently"] += not loud and not whole
                store.put(batch(0, 7 * BATCH))
            said.clear()
            with open_store(path) as store:
                later, twice = compare(store, 7 * BATCH)
                assert not said
        totals.update({"committed rows lost": missing + later, "duplicates": doubled + twice})
    except StoreError as error:
        print(f"unopenable: {error}")
        totals["unopenable"] += 1
    return totals


def run_full(folder: Path, faults: int, seed: int) -> dict[str, object]:
    chance = random.Random(seed)
    totals: Counter[str] = Counter()
    disk = folder / "disk"
    disk.mkdir()
    for _ in range(faults):
        size = chance.randint(3_000, 12_000)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        try:
            totals["real small disk" if mounted else "file size limit"] += 1
            totals.update(fill_disk(disk / "full.lance", mounted, size, chance))
        finally:
            if mounted:
                subprocess.run(["umount", "-l", str(disk)], check=True)
            else:
                shutil.rmtree(disk / "full.lance")
    names = ("faults", "said so", "committed rows lost", "duplicates", "unopenable", "later put failed")
    return {**{name: totals[name] for name in names}, "real small disks": totals["real small disk"]}


def fill_disk(path: Path, mounted: bool, size: int, chance: random.Random) -> Counter[str]:
    totals = Counter({"faults": 1})
    stored = 0
    store = open_store(path, "w")
    store.declare(SPACE)
    # half of the time the store may not ask the disk first, so that Lance itself runs out in mid-write
    import chiasm.store.lance_store as module

    asked = module.require_space
    if chance.random() < 0.5:
        module.require_space = lambda root, needed, doing: None
    try:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (chance.randint(10_000, 400_000), resource.RLIM_INFINITY))
        while stored < 400:
            store.put(batch(stored, 1 + stored % BATCH))
            stored = len(store)
    except StoreError as error:
        totals["said so"] += "bytes and" in str(error) and "free" in str(error)
    finally:
        module.require_space = asked
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if mounted:
        subprocess.run(["mount", "-o", f"remount,size={2 * size + 4000}k", str(path.parent)], check=True)
    try:
        store.put(batch(stored, BATCH))
    except StoreError as error:
        print(f"later put failed: {error}")
        totals["later put failed"] += 1
    store.close()
    with open_store(path) as again:
        totals["committed rows lost"], totals["duplicates"] = compare(again, stored + BATCH)
    return totals


def main() -> None:
    parser = workbench.parser(__doc__, child=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    start = time.monotonic()
    with workbench.workplace(options.folder) as folder:
        results: dict[str, object] = {"machine": workbench.machine()}
        results["kills"] = run_kills(folder, options.kills, options.seed)
        print(json.dumps(results, indent=2), flush=True)
        results["faults"] = run_faults(folder, options.faults, options.seed)
        results["no space left"] = run_full(folder, options.faults, options.seed)
    results["seconds"] = round(time.monotonic() - start, 1)
    print(json.dumps(results, indent=2))
    workbench.write(results, options.json)


if __name__ == "__main__":
    main()
