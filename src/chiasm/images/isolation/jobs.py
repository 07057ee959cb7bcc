"""The pictures of one `DecoderPool.decode_all`: their order, and the room they may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from chiasm.errors import ImageError
from chiasm.images import remote
from chiasm.images.isolation.worker import file_bytes
from chiasm.images.limits import Limits
from chiasm.images.picture import uri_of
from chiasm.images.raw.mosaic import Shot
from chiasm.images.sources import Source

_MOST = 256

Item = TypeVar("Item", bound=Path | Source)


@dataclass(eq=False)
class Job:
    """One picture. given: as the caller named it. asked: bytes that decoding takes, when more than a worker's share."""

    given: Path | Source
    source: Source
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


def ready(items: Iterable[Item], limits: Limits) -> Iterator[tuple[Item, Source | ImageError]]:
    """Each path or source as it was given, and as a source that a worker can take: URLs are fetched."""
    given: deque[Item] = deque()

    def sources() -> Iterator[Source]:
        for item in items:
            given.append(item)
            # a path as it stands: whoever wants absolute names makes sources of paths himself
            yield item if isinstance(item, Source) else Source(uri_of(item), path=Path(item))

    for source in remote.fetched(sources(), limits):
        yield given.popleft(), source


class Line:
    """The jobs in the order of the sources, and how many there may be at once."""

    def __init__(self, sources: Iterable[tuple[Path | Source, Source | ImageError]], ahead_bytes: int) -> None:
        self._sources = iter(sources)
        self._ahead_bytes = ahead_bytes
        self.jobs: deque[Job] = deque()

    def advance(self) -> Job | None:
        """The next job, now in the line; None when there is no path left or no room yet."""
        if len(self.jobs) >= _MOST or self._held() >= self._ahead_bytes:
            return None
        coming = next(self._sources, None)
        if coming is None:
            return None
        item, source = coming
        if isinstance(source, ImageError):
            self.jobs.append(Job(item, Source(""), 0, source))
        else:
            size = len(source.data) if source.data is not None else file_bytes(source.path or Path())
            self.jobs.append(Job(item, source, size, source.picture))
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

    def pop(self) -> tuple[Path | Source, Shot | ImageError]:
        """The first job's path or source and its outcome; nothing here holds the picture any more."""
        job = self.jobs.popleft()
        assert job.outcome is not None
        return job.given, job.outcome

    def _held(self) -> int:
        return sum(job.held for job in self.jobs)
