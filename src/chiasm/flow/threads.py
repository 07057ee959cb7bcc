"""How many threads compute, and how they wait: workers and torch together keep no more than the cores busy."""

from __future__ import annotations

import os

from chiasm.errors import ConfigError

MOST = 256  # more threads than any machine gains by


def cores() -> int:
    """The cores that this process may use: its affinity, where the system has one, else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def computing(workers: int = 0, threads: int | None = None) -> int:
    """How many threads torch shall use beside `workers` processes or threads that keep a core busy each; at least 1.

    threads: asked for by the user, taken as it is. A worker that mostly waits for the network, as one that decodes
    photographs does, keeps no core busy and is not counted.
    Raises ConfigError for less than 1 thread or more than 256, or for less than 0 workers.
    """
    if threads is not None and not 1 <= threads <= MOST:
        raise ConfigError(f"expected 1 to {MOST} threads, got {threads}; leave it out to use what workers leave")
    if workers < 0:
        raise ConfigError(f"expected 0 workers or more, got {workers}; say how many compute beside torch")
    return threads or max(1, cores() - workers)


def use(workers: int = 0, threads: int | None = None) -> int:
    """Let torch compute with `computing(workers, threads)` threads, which are returned. Raises as it does."""
    import torch

    count = computing(workers, threads)
    torch.set_num_threads(count)
    return count


def wait_quietly() -> None:
    """Let OpenMP's threads sleep while they wait for each other, instead of keeping a core busy.

    A parallel region ends with its last thread. Where another process has that thread's core, spinning threads take
    the time that it needs to end. The library reads this when it is loaded: call this before torch is imported, later
    it changes nothing. What the user has set stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "passive"
