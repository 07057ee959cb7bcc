"""Decoding in processes of their own, so that no picture can stop a job.

    paths ──► line of jobs ──► workers (worker.py) ──► outcomes, in the order of the paths

A worker decodes one picture at a time and gets the next when it has answered. While the caller works on a
picture, each worker decodes one ahead. Workers are fresh interpreters rather than multiprocessing's: those
import the user's script again (torch included, and endlessly when it lacks a __main__ guard) and leave named
memory behind when killed.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from chiasm.errors import ChiasmError, ConfigError, ImageError
from chiasm.images.decoder import decode as decode_file
from chiasm.images.isolation.jobs import Item, Job, Line, ready
from chiasm.images.isolation.worker import (
    Decode,
    attempt,
    attempt_bytes,
    nameless_file,
    outcome_of,
    receive,
    send,
    write,
)
from chiasm.images.limits import DEFAULT, Limits
from chiasm.images.raw.mosaic import Shot
from chiasm.images.sources import Source

_START = str(Path(__file__).resolve().with_name("start.py"))
# One thread each. glibc keeps the memory of a picture for the next one: that halves the time of a small JPEG.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
_START_SECONDS = 120.0
_GRACE_SECONDS = 5.0
_LISTEN_SECONDS = 60.0


def trusted_path(decode: str) -> list[str]:
    """`sys.path` for a worker that runs `decode`, "module:function": code beside the pictures must not run.

    The current folder is left out, unless chiasm itself is imported from there, as in a checkout that one stands in. A
    decoder of the user's own may live there: then it comes last, where no name in it hides another module.
    """
    here, own = Path.cwd().resolve(), Path(__file__).resolve().parents[3]
    safe = [entry for entry in sys.path if entry and (Path(entry).resolve() != here or here == own)]
    return safe if decode.startswith("chiasm.") else [*safe, str(here)]


def _spawn(given: str, channel: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", _START, given],  # isolated: neither the current folder nor PYTHONPATH is imported
        stdin=subprocess.PIPE,  # never written: its closing tells the worker that we are gone
        pass_fds=[channel],
        env={**os.environ, **_ENVIRONMENT},
        process_group=0,  # Ctrl-C in a terminal is for us; we end the workers
    )


def _hand_over(wire: socket.socket, source: Source) -> None:
    """Ask for a picture: by its path, or with its bytes. Raises OSError when the process is gone."""
    if source.data is None:
        send(wire, {"path": os.fspath(source.path or ""), "page": source.page})
        return
    data = nameless_file()
    try:
        write(data, source.data)
        send(wire, {"uri": source.uri, "page": source.page}, data)
    finally:
        os.close(data)


class _Worker:
    """One process, seen from the pool."""

    def __init__(self, decode: str, limits: Limits, share: int) -> None:
        self.limits = limits
        self.wire, theirs = socket.socketpair()
        with theirs:
            given = {
                "parent": os.getpid(),
                "from_main_thread": threading.current_thread() is threading.main_thread(),
                "sys_path": trusted_path(decode),
                "channel": theirs.fileno(),
                "decode": decode,
                "limits": asdict(limits),
                "share": share,
            }
            try:
                self.process = _spawn(json.dumps(given), theirs.fileno())
            except BaseException:
                self.wire.close()
                raise
        self.wire.settimeout(_GRACE_SECONDS)
        self.ready = False
        self.job: Job | None = None
        self.deadline = time.monotonic() + _START_SECONDS

    def give(self, job: Job) -> None:
        """Note the job, and send it if the process has started. Raises OSError when the process is gone."""
        self.job = job
        if self.ready:
            self._expect_answer()
            _hand_over(self.wire, job.source)

    def confirm(self) -> None:
        """The process has started. Its job is sent only now: each side speaks in turn."""
        self.ready = True
        assert self.job is not None
        with suppress(OSError):  # it has ended meanwhile: the pool learns of it when it listens
            self.give(self.job)

    def pause(self, asked: int) -> None:
        """Its job is large, and waits for its turn."""
        assert self.job is not None
        self.job.asked, self.job.waits = asked, True
        self.deadline = math.inf

    def resume(self) -> None:
        """The turn of its large job has come."""
        assert self.job is not None
        self.job.waits = False
        self._expect_answer()
        with suppress(OSError):  # it has ended meanwhile: the pool learns of it when it listens
            send(self.wire, {"go": True})

    def _expect_answer(self) -> None:
        """The process ends itself when a picture takes too long; this later time is for when it cannot."""
        assert self.job is not None
        self.deadline = time.monotonic() + self.limits.seconds_for(self.job.file_bytes) + _GRACE_SECONDS

    def end(self, patience: float = 0.0) -> int | None:
        """Kill unless it ends by itself; wait, so that no zombie stays. Returns the exit status, if known."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        self.wire.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # stuck in the kernel, on a network drive that is gone
            return None


class DecoderPool:
    """Decodes pictures in worker processes, in order, whatever happens to the workers.

        with DecoderPool(workers=2) as pool:
            for path, outcome in pool.decode_all(find(folder)):   # Picture or ImageError

    A picture that crashes its worker, takes longer than `limits.seconds` or more memory than
    `limits.memory_bytes` becomes an ImageError (crashed, timeout, too-large), the worker is replaced, and the
    others go on. Workers start with the first picture (about 0.2 s), import neither torch nor the user's
    script, and end with the pool or with this process, however it ends. workers=0 decodes in this process:
    for debugging, never for hostile files.

    ahead_bytes bounds the finished pictures that wait for the caller, and the decoding of all workers
    together; a picture that needs more than a worker's share of it (8 bytes for each pixel) waits for its
    turn, and a huge one is decoded alone. decode may be any function at the top level of an importable
    module. One decode_all runs at a time; relative paths start from where this process was when its workers
    started.
    """

    def __init__(
        self,
        workers: int = 2,
        limits: Limits = DEFAULT,
        decode: Decode = decode_file,
        ahead_bytes: int = 2**28,
    ) -> None:
        if workers < 0 or ahead_bytes <= 0:
            raise ConfigError(f"expected workers >= 0 and ahead_bytes > 0, got {workers} and {ahead_bytes}")
        self.workers = workers
        self.limits = limits
        self._decode = decode
        self._name = _importable_name(decode) if workers else ""
        self._ahead_bytes = ahead_bytes
        self._crew: list[_Worker] = []
        self._busy_with: Line | None = None
        # Runs on close, when the pool is forgotten, and when the interpreter exits.
        self._ending = weakref.finalize(self, _end_all, self._crew, os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Pictures that were yielded stay valid; the pool cannot be used again."""
        self._ending()

    def decode_all(self, paths: Iterable[Item]) -> Iterator[tuple[Item, Shot | ImageError]]:
        """Each path or `Source` with its Picture, Mosaic or ImageError, in the order given; taken as needed.

        Bytes in memory are decoded in workers too; URLs are fetched here, by threads, some ahead; arrays need no
        decoding. Raises ConfigError when the pool is closed or in another decode_all, ChiasmError when a worker cannot
        be started, MissingExtraError when a URL needs a package that is not installed.
        """
        if not self._ending.alive:
            raise ConfigError("this DecoderPool is closed; make a new one")
        if self._busy_with is not None:
            raise ConfigError(
                "this DecoderPool is in another decode_all; finish that one or make a second pool"
            )
        if self.workers == 0:
            for item, source in ready(paths, self.limits):
                yield item, _here(self._decode, source, self.limits)
            return
        line = self._busy_with = Line(ready(paths, self.limits), self._ahead_bytes)
        try:
            while self._hand_out(line):
                if line.jobs[0].outcome is None:
                    self._listen()
                else:
                    given, outcome = line.pop()
                    yield cast(Item, given), outcome  # the line gives back what came in
        finally:
            self._busy_with = None
            for worker in [worker for worker in self._crew if worker.job]:  # the caller stopped early
                self._dismiss(worker)

    def _hand_out(self, line: Line) -> bool:
        """Give idle workers jobs while there is room. Returns whether any job is in the line."""
        for worker in self._crew:
            if worker.job and worker.job.waits and line.may_begin(worker.job):
                worker.resume()
        while len(self._crew) < self.workers or any(worker.job is None for worker in self._crew):
            job = line.advance()
            if job is None:
                break
            if job.outcome is None:
                self._assign(job)
        return bool(line.jobs)

    def _assign(self, job: Job) -> None:
        for worker in [worker for worker in self._crew if worker.job is None]:
            with suppress(OSError):
                worker.give(job)
                return
            self._dismiss(worker)  # it was killed while idle, by no fault of a picture
        worker = _Worker(self._name, self.limits, self._ahead_bytes // self.workers)
        self._crew.append(worker)
        worker.give(job)

    def _listen(self) -> None:
        """Wait until a worker answers, ends or is overdue, and note what became of its job."""
        busy = [worker for worker in self._crew if worker.job]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.wire, selectors.EVENT_READ, worker)
            heard = {key.data for key, _ in selector.select(max(0.0, min(patience, _LISTEN_SECONDS)))}
        for worker in busy:
            if worker in heard:
                self._hear(worker)
            elif worker.deadline < time.monotonic():
                self._bury(worker, overdue=True)

    def _hear(self, worker: _Worker) -> None:
        received = receive(worker.wire)
        if received is None:
            self._bury(worker, overdue=False)
        elif "ready" in received[0]:
            worker.confirm()
        elif "asks" in received[0]:
            worker.pause(received[0]["asks"])
        else:
            assert worker.job is not None
            worker.job.outcome = outcome_of(*received, worker.job.source.uri)
            worker.job = None

    def _bury(self, worker: _Worker, *, overdue: bool) -> None:
        """The worker has ended or must: its job gets the blame."""
        job = worker.job
        # One that hung up is on its way out: its own exit status says why.
        status = self._dismiss(worker, 0.0 if overdue else 1.0)
        if not worker.ready:
            raise ChiasmError(
                f"a decoding process did not start (exit status {status}); what it printed is above, and "
                f"`{sys.executable} -c 'import {self._name.partition(':')[0]}'` may show more"
            )
        assert job is not None
        if overdue or status == -signal.SIGALRM:
            job.outcome = ImageError(
                f"{job.source.uri}: stopped after {self.limits.seconds_for(job.file_bytes):.1f} s of "
                "decoding; raise Limits.seconds if the file is good",
                "timeout",
            )
        else:
            job.outcome = ImageError(
                f"{job.source.uri}: the decoding process ended with {_words_for(status)}; "
                "the file is damaged or hostile, or memory ran out",
                "crashed",
            )

    def _dismiss(self, worker: _Worker, patience: float = 0.0) -> int | None:
        self._crew.remove(worker)
        return worker.end(patience)


def _here(decode: Decode, source: Source | ImageError, limits: Limits) -> Shot | ImageError:
    """What decoding in this process gives."""
    if isinstance(source, ImageError):
        return source
    if source.picture is not None:
        return source.picture
    if source.data is None:
        outcome = attempt(decode, source.path or Path(), limits, source.page)
        return outcome if isinstance(outcome, ImageError) else replace(outcome, uri=source.uri)
    data = nameless_file()
    try:
        write(data, source.data)
        return attempt_bytes(decode, data, limits, source.page, source.uri)
    finally:
        os.close(data)


def _end_all(crew: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the pool's process: the workers are not its own
        return
    while crew:
        crew.pop().end()


def _words_for(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _importable_name(decode: Decode) -> str:
    module, name = getattr(decode, "__module__", "__main__"), getattr(decode, "__qualname__", "<lambda>")
    if module == "__main__" or "." in name or "<" in name:
        raise ConfigError(
            "decode: expected a function at the top level of an importable module, "
            f"got {name!r} of {module!r}; workers import it by name"
        )
    return f"{module}:{name}"
