"""What the scripts here share: options, a place to work, children that are killed, the machine, the report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

from PIL import features

LIBRARIES = ("torch", "numpy", "pillow", "constriction", "pylance")


def parser(description: str | None, folder: bool = True, child: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that scripts share. child: this one starts itself again, with two arguments."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write the numbers here")
    if folder:
        made.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    if child:
        made.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return made


@contextmanager
def workplace(parent: Path | None) -> Iterator[Path]:
    """A folder, in `parent` or where temporary ones are, that is gone afterwards."""
    prefix = f"{Path(sys.argv[0]).stem}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def start(*arguments: object) -> subprocess.Popen[str]:
    """The running script once more, as `--child` with these arguments, when it has said that it is ready."""
    command = [sys.executable, sys.argv[0], "--child", *map(str, arguments)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout
    assert running.stdout.readline() == "ready\n"
    return running


def killed(delay: float, *arguments: object) -> list[str]:
    """What a child printed until it was killed, `delay` seconds after it was ready, or had ended."""
    with start(*arguments) as running:
        select.select([], [], [], delay)
        running.send_signal(signal.SIGKILL)
        assert running.stdout
        assert running.stderr
        lines = running.stdout.read().splitlines()
        running.wait()
        if running.returncode not in (-signal.SIGKILL, 0):
            raise SystemExit(f"the child ended by itself: {running.stderr.read()[-2000:]}")
    return lines


def machine(threads: int | None = None) -> dict[str, object]:
    """What the numbers hold for. threads: None for as many as the libraries take."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        **{name: version(name) for name in LIBRARIES},
        **{name: features.version(name) for name in ("libjpeg_turbo", "webp", "avif")},
        "load_average": [round(load, 2) for load in os.getloadavg()],  # above some 0.3: not an idle machine
    }


def write(results: Mapping[str, object], path: Path | None) -> None:
    """Put the numbers where `--json` says, if it does."""
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")


def milliseconds(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each call, taken in turns; the first three of each do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 3):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: round(median(each[3:]), 2) for name, each in times.items()}
