"""One writer at a time: an flock on `writer.lock`.

The system frees it when the writer's process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from chiasm.errors import StoreError


class WriterLock:
    """Held from construction to `release`. Raises StoreError naming the process that holds it already."""

    def __init__(self, root: Path) -> None:
        path = root / "writer.lock"
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{root}: cannot be written ({error.strerror}); open it with mode 'r'"
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise StoreError(
                f"{root}: process {holder} is writing to this store; wait for its end, or open with mode 'r'"
            ) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._handle is not None:
            os.close(
                self._handle
            )  # closing frees the lock; the file stays, so that no two writers lock two files
            self._handle = None
