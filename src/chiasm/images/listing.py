"""Files and folders, as a user gives them, to the list of pictures to decode, and a count of what is no picture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from chiasm.images.raw import headerless

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".avif", ".avifs"}
    | {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".rwl", ".pef", ".srw"}
    | {".x3f", ".mrw", ".erf", ".mef", ".3fr", ".fff", ".iiq"}
)


def find(paths: Iterable[Path | str] | Path | str) -> list[Path]:
    """The pictures among files and folders, in the order given; each folder is searched through and sorted.

    A path that is not a folder is kept whatever it is, also when it is missing: its failure must be recorded,
    not hidden. In folders the suffix decides (SUFFIXES, any case; .raw where its description lies beside it).
    What several paths or links lead to is listed once, under the first of them. Folders that cannot be read are passed
    over; loops of links end.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    found: dict[str, Path] = {}
    for path in map(Path, given):
        for picture in in_folder(path, Counter()) if is_folder(path) else [path]:
            found.setdefault(real_path(picture), picture)
    return list(found.values())


def is_folder(path: Path) -> bool:
    """Whether this is a folder; False for names that no system takes."""
    return os.path.isdir(path)  # noqa: PTH112, Path.is_dir raises


def in_folder(folder: Path, skipped: Counter[str]) -> list[Path]:
    """The pictures under the folder, sorted. What is passed over is added to `skipped`, by suffix in lower case.

    "" counts files without a suffix. The description of headerless counts belongs to its picture and is not counted.
    """
    found = []
    for path in _files(folder):
        suffix = _suffix(path)
        if suffix in SUFFIXES or headerless.is_described(path):
            found.append(path)
        elif suffix != headerless.DESCRIPTION or not headerless.describes(path):
            skipped[suffix] += 1
    return sorted(found)


def _files(folder: Path) -> Iterator[Path]:
    """Everything under the folder that is no folder. A stack, not recursion: folders may be nested by the thousand."""
    waiting, seen = [folder], set[tuple[int, int]]()
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            with os.scandir(here) as listing:
                entries = list(listing)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in sorted(entries, key=_name, reverse=True):  # the first folder is popped first
            if _is_folder(entry):
                waiting.append(here / entry.name)
            else:
                yield here / entry.name


def _suffix(path: Path) -> str:
    return os.path.splitext(path.name)[1].lower()  # noqa: PTH122, ".jpg" alone has no suffix


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def real_path(path: Path) -> str:
    """The path with every link followed: one text for one file, whatever it is called."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a null byte, or a name that no system takes
        return os.fspath(path)
