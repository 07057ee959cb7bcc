"""Pictures behind URLs, through fsspec: https, s3, gs and whatever else it has a file system for.

Bytes are fetched in this process, by threads, some pictures ahead of the decoders; what they hold is decoded elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from chiasm.errors import ImageError, MissingExtraError
from chiasm.images.limits import Limits
from chiasm.images.sources import Source, whole

_AHEAD = 8  # pictures that are fetched at once


def read(url: str, limits: Limits) -> bytes:
    """The bytes behind a URL.

    Raises MissingExtraError when fsspec or what it needs for this kind of URL is not installed, ImageError when the
    URL leads to nothing, the server fails, or the file has more than `limits.file_bytes`.
    """
    try:
        import fsspec

        with fsspec.open(url, "rb") as file:
            return whole(file, url, limits)
    except ImageError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f'{url}: reading it needs a package that is not here ({error}); pip install "chiasm[remote]"'
        ) from error
    except Exception as error:  # each file system raises errors of its own kind
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ImageError(f"{url}: cannot be fetched ({why}); check the address", "unreadable") from error


def fetched(sources: Iterable[Source], limits: Limits) -> Iterator[Source | ImageError]:
    """Each source with its bytes, in order, or the error for one that cannot be fetched.

    Sources without a URL pass unchanged, and no thread starts before the first that has one.
    """
    waiting: deque[tuple[Source, Future[bytes] | None]] = deque()
    crew: ThreadPoolExecutor | None = None
    try:
        for source in sources:
            if source.url and crew is None:
                crew = ThreadPoolExecutor(_AHEAD, "chiasm-fetch")
            waiting.append((source, crew.submit(read, source.url, limits) if crew and source.url else None))
            while waiting and (len(waiting) >= _AHEAD or waiting[0][1] is None):
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        if crew is not None:
            crew.shutdown(wait=True, cancel_futures=True)


def _finished(source: Source, coming: Future[bytes] | None) -> Source | ImageError:
    if coming is None:
        return source
    try:
        return replace(source, data=coming.result(), url="")
    except ImageError as error:
        return error
