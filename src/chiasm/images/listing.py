"""Files and folders, as a user gives them, to the list of pictures to decode."""

from __future__ import annotations

import os
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
        for picture in sorted(_search(path)) if os.path.isdir(path) else [path]:  # noqa: PTH112, Path.is_dir raises
            found.setdefault(_real(picture), picture)
    return list(found.values())


def _search(folder: Path) -> Iterator[Path]:
    """Files with a known suffix under the folder. A stack, not recursion: folders may be nested by the
    thousand.
    """
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
            elif _is_picture(here / entry.name):
                yield here / entry.name


def _is_picture(path: Path) -> bool:
    suffix = os.path.splitext(path.name)[1].lower()  # noqa: PTH122, ".jpg" alone has no suffix
    return suffix in SUFFIXES or headerless.is_described(path)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a null byte, or a name that no system takes
        return os.fspath(path)
