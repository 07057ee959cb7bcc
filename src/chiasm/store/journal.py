"""The store's own commits: one small file each in `commits/`, and the newest sound one says what the store
holds.

    data files ──fsync──► Lance manifests ──fsync──► commits/000000000012.json   (the moment of commit)

Lance has no fsync and no commit over several datasets; the journal gives both. A commit names the version of
each dataset, its row count, and a mark (size, CRC32) of every file that it added. Whatever is on disk beyond
the newest commit was never acknowledged, so a kill between any two steps leaves the commit before it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from chiasm.store.files import Mark, sync_folder, write_durably

KEPT = 8  # commits that can be fallen back to


@dataclass(frozen=True)
class Commit:
    """versions and rows: per dataset, its Lance version and row count. marks: the files that this commit
    added.
    """

    number: int
    versions: Mapping[str, int]
    rows: Mapping[str, int]
    marks: tuple[Mark, ...]


def commit_path(root: Path, number: int) -> Path:
    return root / "commits" / f"{number:012d}.json"


def numbers(root: Path) -> list[int]:
    """The commits on disk, newest first."""
    return sorted(
        (int(path.stem) for path in (root / "commits").glob("*.json") if path.stem.isdigit()), reverse=True
    )


def write_commit(root: Path, commit: Commit) -> None:
    """Make a commit durable. After this returns, its rows are in the store whatever happens."""
    body = json.dumps(asdict(commit), sort_keys=True)
    line = json.dumps({"crc": zlib.crc32(body.encode()), "commit": body})
    write_durably(commit_path(root, commit.number), line.encode())


def read_commit(root: Path, number: int) -> Commit | None:
    """The commit, or None when its file is torn.

    Raises FileNotFoundError when a writer has pruned it meanwhile.
    """
    try:
        line = json.loads(commit_path(root, number).read_bytes())
        if zlib.crc32(line["commit"].encode()) != line["crc"]:
            return None
        body = json.loads(line["commit"])
        marks = tuple(Mark(**entry) for entry in body["marks"])
        return Commit(body["number"], body["versions"], body["rows"], marks)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def prune_commits(root: Path) -> Commit | None:
    """Forget all but the newest KEPT commits; give the oldest kept one, or None when nothing was
    forgotten.
    """
    listed = numbers(root)
    if len(listed) <= KEPT:
        return None
    for number in listed[KEPT:]:
        commit_path(root, number).unlink()
    sync_folder(root / "commits")
    return read_commit(root, listed[KEPT - 1])
