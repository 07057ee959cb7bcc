"""How many threads compute, and how they wait: workers and torch together keep no more than the cores busy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from chiasm.errors import ConfigError

A = TypeVar("A")
R = TypeVar("R")

MOST = 256  # more threads than any machine gains by
PICTURES = 4  # pictures at a time, at most: each is held decoded
SHARE = 1 << 18  # pixels that one thread takes at once, about: small pictures are encoded together


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


class Threads:
    """Threads that each compute with their share of the cores: pictures scale better than convolutions of one do.

    alone: whether one thread is to have all of the device, as on a GPU, which computes in batches.
    """

    def __init__(self, alone: bool = False) -> None:
        import torch

        self._before = torch.get_num_threads()
        self.count = 1 if alone else min(PICTURES, self._before)
        self._alone = alone
        share = max(1, self._before // self.count)
        self._pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(share,))

    @property
    def ahead(self) -> int:
        """Tasks that may be under way before the first is waited for."""
        return 2 * self.count

    def __enter__(self) -> Threads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[[A], R], given: A) -> Future[R]:
        return self._pool.submit(function, given)

    def shares(self, work: Sequence[A], pixels: Callable[[A], int]) -> Iterator[list[A]]:
        """Parts of some work for single threads, by pixels."""
        part: list[A] = []
        for each in work:
            if part and not self._alone and sum(map(pixels, [*part, each])) > SHARE:
                yield part
                part = []
            part.append(each)
        if part:
            yield part
