"""One writer at a time: an flock on `writer.lock`.

The system frees it when the writer's process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from chiasm.errors import StoreError
from chiasm.store.local.files import open_plain

PAUSE = 0.05  # seconds between two looks at a lock that another writer holds


class WriterLock:
    """Held from construction to `release`.

    wait: seconds to wait for another writer. Raises StoreError naming the process that still holds it then.
    """

    def __init__(self, root: Path, wait: float = 0.0) -> None:
        try:
            self._handle: int | None = open_plain(root / "writer.lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StoreError(f"{root}: cannot be written ({error.strerror}); open it with mode 'r'") from error
        deadline = time.monotonic() + wait
        while not self._locked(self._handle):
            if time.monotonic() >= deadline:
                holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
                os.close(self._handle)
                raise StoreError(
                    f"{root}: process {holder if holder.isdigit() else 'unknown'} is writing to this store; "
                    "wait for its end (--wait SECONDS), or open with mode 'r'"
                )
            time.sleep(PAUSE)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    @staticmethod
    def _locked(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Free the lock. Its file stays, so that no two writers lock two files."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
