"""What a store keeps when `Pipeline.encode` is killed again and again.

    python benchmarks/kills.py [--kills 200] [--pictures 2000] [--json OUT]

A child encodes a folder of generated pictures (64 x 64, the untrained entry test-space) and reports the keys of
each commit through a pipe *after* `put` returned. It is killed (SIGKILL) at a random moment from the opening of
the store on, and the next child goes on. Counted after each kill: reported rows that are gone, keys stored
twice, stores that do not open. A store that is complete is read in full and followed by a new one; in the end a
last child is left to complete, and every picture must be there and decode.
"""

from __future__ import annotations

import json
import random
import shutil
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import workbench
from chiasm.contracts import Record
from chiasm.errors import StoreError
from chiasm.flow import encode
from chiasm.flow.pipeline import Pipeline
from chiasm.store import LanceStore, open_store

MODEL = "test-space"
ROWS = 16  # of a commit: many commits, so that kills also meet the merging of small files


def make_pictures(folder: Path, count: int) -> None:
    y, x = np.mgrid[0:64, 0:64]
    for number in range(count):
        chance = np.random.default_rng(number)
        waves = [np.sin((x * chance.uniform(-3, 3) + y * chance.uniform(-3, 3)) / 9) for _ in range(3)]
        pixels = 128 + 80 * np.stack(waves, -1) + chance.normal(0, 4, (64, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.png")


def child(folder: str, store: str) -> None:
    """Encode until killed or done; every line is the keys of a commit that is safe."""
    torch.set_num_threads(1)
    encode.COMMIT_ROWS = ROWS
    print("ready", flush=True)
    with Pipeline.load(MODEL, store=store, writable=True, precision="float32") as pipeline:
        put = pipeline.store.put

        def told(records: list[Record], *rest: object, **named: object) -> None:
            put(records, *rest, **named)
            print(json.dumps([record.key for record in records]), flush=True)

        pipeline.store.put = told
        pipeline.encode([folder])
    print("done", flush=True)


def kill_once(folder: Path, store: Path, delay: float) -> tuple[set[str], bool]:
    """Keys that a child reported before it was killed, and whether it had finished by then."""
    lines = workbench.killed(delay, folder, store)
    reports = [line for line in lines if line.endswith("]")]
    return {key for line in reports for key in json.loads(line)}, "done" in lines


def look(store: Path, reported: set[str], totals: Counter[str]) -> None:
    """Open the store and count what is wrong."""
    if not (store / "store.json").is_file() and not reported:
        totals["killed before the store was made"] += 1
        return
    try:
        with warnings.catch_warnings(record=True) as said, open_store(store) as opened:
            warnings.simplefilter("always")
            keys = opened.keys()
    except StoreError as error:
        print(f"unopenable: {error}")
        totals["unopenable"] += 1
        return
    totals["warnings"] += len(said)
    totals["duplicates"] += len(keys) - len(set(keys))
    totals["lost"] += len(reported - set(keys))
    totals["kept though not reported"] += len(set(keys) - reported)


def complete(store: Path, pictures: int, totals: Counter[str]) -> None:
    """Read a finished store in full."""
    with Pipeline.load(MODEL, store=store, precision="float32") as pipeline:
        opened = pipeline.store
        totals["missing at the end"] += pictures - len(set(opened.keys()))
        totals["duplicates"] += len(opened) - len(set(opened.keys()))
        totals["failures at the end"] += len(opened.failures())
        totals["bad rows at the end"] += bad_rows(opened, pipeline)
        totals["stores completed"] += 1


def bad_rows(store: LanceStore, pipeline: Pipeline) -> int:
    report = store.verify(pipeline.check)
    return len(report.bad) + len(report.duplicates) + len(report.lost) + len(report.unreadable)


def run(folder: Path, kills: int, pictures: int, seed: int) -> dict[str, int]:
    source, moments = folder / "pictures", random.Random(seed)
    source.mkdir()
    make_pictures(source, pictures)
    totals: Counter[str] = Counter()
    store, reported = folder / "0.lance", set[str]()
    for turn in range(kills):
        # the early moments are opening, recovering, or (the first time) making the store
        delay = moments.choice((moments.uniform(0, 0.4), moments.uniform(0, 3.0)))
        keys, done = kill_once(source, store, delay)
        reported |= keys
        totals["kills that came too late" if done else "kills"] += 1
        look(store, reported, totals)
        if done:
            complete(store, pictures, totals)
            shutil.rmtree(store)
            store, reported = folder / f"{turn + 1}.lance", set()
    with workbench.start(source, store) as running:
        said, wrong = running.communicate()
        if running.returncode:
            raise SystemExit(f"the last run failed: {wrong[-2000:]}")
    keys = {key for line in said.splitlines() if line.endswith("]") for key in json.loads(line)}
    look(store, reported | keys, totals)
    complete(store, pictures, totals)
    names = ("kills", "lost", "duplicates", "unopenable", "missing at the end", "bad rows at the end")
    return {**{name: totals[name] for name in names}, **totals}


def main() -> None:
    parser = workbench.parser(__doc__, child=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    began = time.monotonic()
    with workbench.workplace(options.folder) as folder:
        counts = run(folder, options.kills, options.pictures, options.seed)
    for name, count in counts.items():
        print(f"{name:<36}{count:>8}")
    results = {"machine": workbench.machine(1), **counts, "seconds": round(time.monotonic() - began, 1)}
    workbench.write(results, options.json)
    if any(counts[name] for name in ("lost", "duplicates", "unopenable", "missing at the end", "bad rows at the end")):
        raise SystemExit("rows were lost, doubled or damaged")


if __name__ == "__main__":
    main()
