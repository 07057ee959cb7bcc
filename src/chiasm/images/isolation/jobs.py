"""The pictures of one `DecoderPool.decode_all`: their order, and the room they may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chiasm.errors import ImageError
from chiasm.images.isolation.worker import file_bytes
from chiasm.images.raw.mosaic import Shot

_MOST = 256


@dataclass(eq=False)
class Job:
    """One picture. asked: bytes that decoding takes, when that is more than a worker's share, else 0."""

    path: Path
    file_bytes: int
    outcome: Shot | ImageError | None = None
    asked: int = 0
    waits: bool = False  # for its turn: a large one that may not begin yet

    @property
    def held(self) -> int:
        """Bytes that it takes now, a worker's share not counted."""
        if self.outcome is None:
            return 0 if self.waits else self.asked
        return 0 if isinstance(self.outcome, ImageError) else self.outcome.nbytes


class Line:
    """The jobs in the order of the paths, and how many there may be at once."""

    def __init__(self, paths: Iterable[Path], ahead_bytes: int) -> None:
        self._paths = iter(paths)
        self._ahead_bytes = ahead_bytes
        self.jobs: deque[Job] = deque()

    def advance(self) -> Job | None:
        """The next job, now in the line; None when there is no path left or no room yet."""
        if len(self.jobs) >= _MOST or self._held() >= self._ahead_bytes:
            return None
        path = next(self._paths, None)
        if path is None:
            return None
        self.jobs.append(Job(Path(path), file_bytes(Path(path))))
        return self.jobs[-1]

    def may_begin(self, job: Job) -> bool:
        """Whether there is room for a large job.

        Nothing is yielded before the first in the line, so that one waits for other large ones to be decoded,
        but not for room.
        """
        if self._held() + job.asked <= self._ahead_bytes:
            return True
        decoding = any(other.asked and not other.waits and other.outcome is None for other in self.jobs)
        return job is self.jobs[0] and not decoding

    def pop(self) -> tuple[Path, Shot | ImageError]:
        """The first job's path and outcome; nothing here holds the picture any more."""
        job = self.jobs.popleft()
        assert job.outcome is not None
        return job.path, job.outcome

    def _held(self) -> int:
        return sum(job.held for job in self.jobs)
