"""The store's own commits: one small file each in `commits/`, and the newest sound one says what the store holds.

    data files ──fsync──► Lance manifests ──fsync──► commits/000000000012.json   (the moment of commit)

Lance has no fsync and no commit over several datasets; the journal gives both. A commit names the version of each
dataset, its row count, the spaces and their tables, a mark (size, CRC-32) of every file that it added, and the files
that nothing reads any more. Whatever is on disk beyond the newest commit was never acknowledged, so a kill between any
two steps leaves the commit before it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chiasm.contracts import Level, Space
from chiasm.errors import StoreError
from chiasm.store.local.files import Mark, plain_parts, read_whole, sync_folder, write_durably
from chiasm.store.names import check_space

KEPT = 8  # commits that can be fallen back to
LIMIT = 64 << 20  # bytes of one commit's file
PICTURES, SOURCES, ERRORS = FIXED = ("pictures", "sources", "errors")
TABLE = re.compile(r"pictures|sources|errors|levels/[a-z0-9_]{1,120}")


@dataclass(frozen=True)
class Retired:
    """A file or folder, by its path below the store, that no commit from `commit` on reads.

    time: seconds since 1970 when it became so; readers of that time may still read it for a while.
    """

    path: str
    commit: int
    time: float


@dataclass(frozen=True)
class Commit:
    """versions, rows: of each table, its Lance version and row count. spaces: what was declared. levels: table -> the
    space and level that it holds. marks: files that this commit added. retired: files that wait for their removal.
    """

    number: int
    versions: Mapping[str, int]
    rows: Mapping[str, int]
    spaces: Mapping[str, Space] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    retired: tuple[Retired, ...] = ()

    def table_of(self, space: str, level: str) -> str | None:
        """The table of one level, or None when nothing of it is stored."""
        return next((name for name, of in self.levels.items() if of == (space, level)), None)


def commit_path(root: Path, number: int) -> Path:
    return root / "commits" / f"{number:012d}.json"


def numbers(root: Path) -> list[int]:
    """The commits on disk, newest first."""
    return sorted((int(path.stem) for path in (root / "commits").glob("*.json") if path.stem.isdecimal()), reverse=True)


def write_commit(root: Path, commit: Commit) -> None:
    """Make a commit durable. After this returns, its rows are in the store whatever happens."""
    body = json.dumps(asdict(commit), sort_keys=True)
    line = json.dumps({"crc": zlib.crc32(body.encode()), "commit": body})
    write_durably(commit_path(root, commit.number), line.encode())


def read_commit(root: Path, number: int) -> Commit | None:
    """The commit, or None when its file is torn. Raises FileNotFoundError when a writer has pruned it meanwhile."""
    try:
        line = json.loads(read_whole(commit_path(root, number), LIMIT))
        if zlib.crc32(line["commit"].encode()) != line["crc"]:
            return None
        return parse(root, json.loads(line["commit"]))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, StoreError, OSError):
        return None


def parse(root: Path, body: Any) -> Commit:
    """JSON to a commit; raises ValueError, KeyError, TypeError or StoreError for one that no store writes."""
    versions, rows = ({str(k): whole(v) for k, v in body[name].items()} for name in ("versions", "rows"))
    spaces = {
        name: Space(name, tuple(Level(one["name"], one["channels"], one["stride"]) for one in of["levels"]), of["grid"])
        for name, of in body["spaces"].items()
    }
    for space in spaces.values():
        check_space(space)
    levels = {name: (str(space), str(level)) for name, (space, level) in body["levels"].items()}
    marks = tuple(Mark(str(one["path"]), whole(one["size"]), whole(one["crc"])) for one in body["marks"])
    retired = tuple(Retired(str(one["path"]), whole(one["commit"]), float(one["time"])) for one in body["retired"])
    if not all(TABLE.fullmatch(name) for name in versions) or versions.keys() != rows.keys():
        raise ValueError("the tables' names are not those of a store")
    if {*FIXED, *levels} != versions.keys() or any(
        level not in spaces[space].names for space, level in levels.values()
    ):
        raise ValueError("the tables are not those of the levels")
    for path in (*(one.path for one in marks), *(one.path for one in retired)):
        plain_parts(root, path)  # links are looked for when the file is used
    return Commit(whole(body["number"]), versions, rows, spaces, levels, marks, retired)


def whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a whole number is wanted, got {value!r}")
    return value


def prune_commits(root: Path) -> Commit | None:
    """Forget all but the newest KEPT commits; give the oldest kept one, or None when nothing was forgotten."""
    listed = numbers(root)
    if len(listed) <= KEPT:
        return None
    for number in listed[KEPT:]:
        commit_path(root, number).unlink()
    sync_folder(root / "commits")
    return read_commit(root, listed[KEPT - 1])
