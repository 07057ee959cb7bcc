"""Files that survive a hard stop: every byte and every name is fsynced before anything relies on it.

A name lives in its folder, not in its file, so a new file is durable only when the file *and* the folder are
synced.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chiasm.errors import StoreError

WHOLE = (
    32 << 20
)  # bytes; larger files are fingerprinted by this many bytes at each end, so that opening stays quick


@dataclass(frozen=True)
class Mark:
    """What a committed file must look like: its path below the store, its size in bytes, the CRC32 of its
    bytes.
    """

    path: str
    size: int
    crc: int


def sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Make `path` hold `data`: after a stop at any moment it holds all of it or does not exist (or is as
    before).
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_all(paths: list[Path]) -> None:
    """Sync files first, then each folder that names them."""
    for path in paths:
        sync_file(path)
    for folder in sorted({path.parent for path in paths}):
        sync_folder(folder)


def mark(root: Path, path: Path) -> Mark:
    """The mark of one file. Beyond 64 MiB only the two ends are in the CRC."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= 2 * WHOLE:
            crc = zlib.crc32(file.read())
        else:
            crc = zlib.crc32(file.read(WHOLE))
            file.seek(size - WHOLE)
            crc = zlib.crc32(file.read(WHOLE), crc)
    return Mark(path.relative_to(root).as_posix(), size, crc)


def flaw(root: Path, wanted: Mark) -> str | None:
    """Why the file is not as marked, or None when it is."""
    path = root / wanted.path
    if not path.is_file():
        return f"{wanted.path} is missing"
    size = path.stat().st_size
    if size != wanted.size:
        return f"{wanted.path} holds {size} bytes where {wanted.size} were committed"
    if mark(root, path) != wanted:
        return f"{wanted.path} does not have the bytes that were committed"
    return None


def quarantine_folder(root: Path, label: str) -> Path:
    """A new folder below quarantine/ for what is moved aside under this label."""
    number = 0
    while (folder := root / "quarantine" / f"{label}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def set_aside(root: Path, paths: list[Path], label: str) -> Path | None:
    """Move files to a new folder below quarantine/, keeping their relative names.

    None when there are no files.
    """
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    folder = quarantine_folder(root, label)
    for path in there:
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for parent in sorted({path.parent for path in there}):
        sync_folder(parent)
    return folder


FULL = ("no space left", "os error 28", "file too large", "os error 27", "quota exceeded", "os error 122")


@contextmanager
def guarded(doing: str, root: Path, needed: int = 0) -> Iterator[None]:
    """Turn whatever Lance, Arrow or the system raises into one StoreError that says what was being done and
    where.

    needed: bytes about to be written, for the message when the disk is full.
    """
    try:
        yield
    except StoreError:
        raise
    except BaseException as error:
        # A Rust panic arrives as a BaseException that is no Exception; Ctrl-C and exits must pass untouched.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        text = str(error)
        if any(sign in text.lower() for sign in FULL):
            raise no_space(root, needed, doing) from error
        # Lance appends the line of its own source
        reason = re.sub(r", /\S+\.rs:\d+:\d+", "", text) or type(error).__name__
        raise StoreError(f"{root}: {doing} failed: {reason}; `verify` tells which rows are sound") from error


def no_space(root: Path, needed: int, doing: str) -> StoreError:
    free = shutil.disk_usage(root).free
    return StoreError(
        f"{root}: {doing} needs {needed:,} bytes and {free:,} are free (or the file may not grow); "
        "free some space and run again: all that was committed is kept"
    )


def require_space(root: Path, needed: int, doing: str) -> None:
    """Raise before anything is written when the disk plainly cannot take `needed` bytes."""
    if shutil.disk_usage(root).free < needed:
        raise no_space(root, needed, doing)


def listing(folder: Path) -> Mapping[str, Path]:
    """Every committed-looking file below a Lance dataset: relative name to path, without its temporaries and
    hint.
    """
    found = {}
    for part in ("data", "_deletions", "_transactions", "_versions"):
        if (folder / part).is_dir():
            for name in os.listdir(folder / part):  # noqa: PTH208 - a name list is ten times cheaper than Paths
                if not name.startswith(".tmp") and "#" not in name and name != "latest_version_hint.json":
                    found[f"{part}/{name}"] = folder / part / name
    return found
