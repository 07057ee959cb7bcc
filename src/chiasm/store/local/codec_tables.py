"""The codecs' tables, by hash: `tables/<hash>.bin`. Written once, checked at each reading."""

from __future__ import annotations

import hashlib
from pathlib import Path

from chiasm.errors import StoreError, nearest
from chiasm.store.local.files import guarded, read_whole, require_space, sync_folder, write_durably
from chiasm.store.names import HASH

LIMIT = 64 << 20  # bytes of one codec's tables


def check_table(name: str, data: bytes) -> None:
    """Raise StoreError unless `name` is the SHA-256 of `data` in hex, or its first 16 or more digits."""
    wanted = hashlib.sha256(data).hexdigest()
    if len(data) > LIMIT:
        raise StoreError(f"the tables {name!r} hold {len(data):,} bytes; a store takes at most {LIMIT:,}")
    if not HASH.fullmatch(name) or not wanted.startswith(name):
        raise StoreError(
            f"the tables {name!r} hold {len(data)} bytes of SHA-256 {wanted[:16]}...; store them under that"
        )


class Tables:
    """The tables folder of one store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "tables"

    def __contains__(self, name: str) -> bool:
        return bool(HASH.fullmatch(name)) and (self._folder / f"{name}.bin").is_file()

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.bin"))

    def put(self, name: str, data: bytes) -> None:
        """Store tables durably; nothing happens when they are there. A damaged copy is replaced."""
        check_table(name, data)
        path = self._folder / f"{name}.bin"
        with guarded(f"storing the tables {name[:16]}", self._root, len(data)):
            if path.is_file() and read_whole(path, LIMIT) == data:
                return
            require_space(self._root, len(data), f"storing the tables {name[:16]}")
            if not self._folder.is_dir():
                self._folder.mkdir()
                sync_folder(self._root)
            write_durably(path, data)

    def get(self, name: str) -> bytes:
        """The tables' bytes. Raises StoreError when they are not there or are not what their name says."""
        if name not in self:
            raise StoreError(f"{self._root}: there are no tables {name!r}; {nearest(name, self.names())}")
        with guarded(f"reading the tables {name[:16]}", self._root):
            data = read_whole(self._folder / f"{name}.bin", LIMIT)
        check_table(name, data)
        return data
