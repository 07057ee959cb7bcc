"""Files that survive a hard stop, and that no one else's file can stand in for.

Every byte and every name is fsynced before anything relies on it: a name lives in its folder, not in its file, so a
new file is durable only when the file *and* the folder are synced. No symbolic link is followed inside a store, no
path out of a store's own files leads out of it, and every file that is read whole has a limit.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from chiasm.errors import StoreError

ENDS = 16 << 20  # bytes; of a file above twice this only the two ends are in its mark, so that opening stays quick
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,199}")  # one part of a path inside a store


@dataclass(frozen=True)
class Mark:
    """What a committed file must look like: its path below the store, its size in bytes, the CRC-32 of its bytes."""

    path: str
    size: int
    crc: int


def plain_parts(root: Path, relative: str) -> tuple[str, ...]:
    """The parts of a path below the store. Raises StoreError for one that could lead out of it."""
    parts = PurePosixPath(relative).parts
    if not parts or not all(PART.fullmatch(part) for part in parts):
        raise StoreError(f"{root}: {relative!r} is no path inside a store; the store was tampered with")
    return parts


def inside(root: Path, relative: str) -> Path:
    """root / relative, proved to lie in the store. Raises StoreError for a path that leads out of it or is a link."""
    path = root
    for part in plain_parts(root, relative):
        path /= part
        if path.is_symlink():
            raise StoreError(f"{path}: a symbolic link inside a store is never followed; put the real file there")
    return path


def require_real(path: Path, folder: bool) -> None:
    """Raise StoreError when `path` is there and is not a plain file (or folder) of its own."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "of another kind"
        wanted = "a folder" if folder else "a plain file"
        raise StoreError(f"{path}: {wanted} is wanted inside a store and it is {kind}; put the real one there")


def open_plain(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """A handle of a plain file, following no link and waiting for no pipe. Raises StoreError, FileNotFoundError."""
    require_real(path, folder=False)
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise StoreError(f"{path}: a plain file is wanted inside a store; put the real one there")
    return handle


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes. Raises StoreError, FileNotFoundError."""
    with os.fdopen(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, limit) + 1)  # a file that grows meanwhile is not followed
    if len(data) > limit:
        raise StoreError(f"{path}: holds more than {limit:,} bytes, which no such file of a store does; restore it")
    return data


def sync_file(path: Path) -> None:
    handle = open_plain(path)
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


def sync_all(paths: Iterable[Path]) -> None:
    """Sync files first, then each folder that names them."""
    files = list(paths)
    for path in files:
        sync_file(path)
    for folder in sorted({path.parent for path in files}):
        sync_folder(folder)


def write_durably(path: Path, data: bytes) -> None:
    """Make `path` hold `data`: after a stop at any moment it holds all of it or does not exist (or is as before)."""
    require_real(path, folder=False)
    temporary = path.with_name(f"{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)  # of a killed writer; a link is removed, not followed
        with os.fdopen(open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def mark(root: Path, path: Path) -> Mark:
    """The mark of one file. Of a large one only the two ends are in the CRC."""
    with os.fdopen(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= 2 * ENDS:
            crc = zlib.crc32(file.read(2 * ENDS))
        else:
            crc = zlib.crc32(file.read(ENDS))
            file.seek(size - ENDS)
            crc = zlib.crc32(file.read(ENDS), crc)
    return Mark(path.relative_to(root).as_posix(), size, crc)


def flaw(root: Path, wanted: Mark) -> str | None:
    """Why the file is not as marked, or None when it is."""
    try:
        path = inside(root, wanted.path)
        if not path.is_file():
            return f"{wanted.path} is missing"
        size = path.stat().st_size
        if size != wanted.size:
            return f"{wanted.path} holds {size} bytes where {wanted.size} were committed"
        if mark(root, path) != wanted:
            return f"{wanted.path} does not have the bytes that were committed"
    except (StoreError, OSError) as error:
        return str(error)
    return None


def quarantine_folder(root: Path, label: str) -> Path:
    """A new folder below quarantine/ for what is moved aside under this label."""
    inside(root, "quarantine")
    number = 0
    while (folder := root / "quarantine" / f"{label}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def set_aside(root: Path, paths: Iterable[Path], label: str) -> Path | None:
    """Move files and folders to a new folder below quarantine/, keeping their relative names. None when there is
    nothing to move.
    """
    there = [path for path in paths if os.path.lexists(path)]
    if not there:
        return None
    folder = quarantine_folder(root, label)
    for path in there:
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for parent in sorted({path.parent for path in there}):
        if parent.is_dir():
            sync_folder(parent)
    return folder


FULL = ("no space left", "os error 28", "file too large", "os error 27", "quota exceeded", "os error 122")


@contextmanager
def guarded(doing: str, root: Path, needed: int = 0) -> Iterator[None]:
    """Turn whatever Lance, Arrow or the system raises into one StoreError that says what was being done and where.

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
        reason = re.sub(r",? ?/?\S+\.rs:\d+:\d+", "", text) or type(error).__name__
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
    """Every committed-looking file below a Lance dataset, relative name to path, without its temporaries and hint."""
    found = {}
    for part in ("data", "_deletions", "_transactions", "_versions"):
        if (folder / part).is_dir():
            for name in os.listdir(folder / part):  # noqa: PTH208 - a name list is ten times cheaper than Paths
                if not name.startswith(".tmp") and "#" not in name and name != "latest_version_hint.json":
                    found[f"{part}/{name}"] = folder / part / name
    if (folder / "_indices").is_dir():
        for index in sorted((folder / "_indices").iterdir()):
            if index.is_dir() and not index.is_symlink():
                found |= {f"_indices/{index.name}/{path.name}": path for path in index.iterdir()}
    return found
