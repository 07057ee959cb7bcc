"""Applying changes to tables as one durable commit, or not at all; and removing what nothing reads any more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import lance
import pyarrow as pa

from chiasm.errors import StoreError
from chiasm.store.local import datasets, journal
from chiasm.store.local.datasets import Changed
from chiasm.store.local.files import guarded, inside, listing, mark, sync_all, sync_folder
from chiasm.store.local.journal import Commit, Retired
from chiasm.store.local.tables import Snapshot

GRACE = 3600.0  # seconds that a file which is no longer needed stays for readers that opened the store before

Change = Callable[[lance.LanceDataset], Changed]


def apply(
    now: Snapshot,
    changes: Mapping[str, Change],
    doing: str,
    needed: int = 0,
    frame: Commit | None = None,
    new: Mapping[str, pa.Schema] | None = None,
) -> Snapshot:
    """Apply changes in order, table by table, and commit them as one; on any error nothing of them stays.

    frame: the commit to start from, where spaces or the list of tables change too; tables that it lacks go. new:
    schemas of tables that are made first. Raises StoreError, with the disk's free bytes where it is full.
    """
    frame = frame or now.commit
    number = now.commit.number + 1
    with guarded(doing, now.root, needed):
        try:
            done = {}
            for name, change in changes.items():
                old = (
                    datasets.create(now.root / name, new[name])
                    if new and name in new
                    else Changed(now.table(name).dataset)
                )
                done[name] = old.then(change(old.dataset))
            commit = sealed(now, frame, done)
            journal.write_commit(now.root, commit)
        except BaseException:
            undo(now, list(changes), number)
            raise
    later = now.after(commit, {name: changed.dataset for name, changed in done.items()})
    prune(now.root, commit)
    return later


def sealed(now: Snapshot, frame: Commit, done: Mapping[str, Changed]) -> Commit:
    """Sync every file and folder that is new; give the commit that names them."""
    root, marks, retired = now.root, [], []
    for name, changed in done.items():
        folder = root / name
        files = [folder / file for file in changed.added] + [datasets.manifest_path(folder, changed.dataset.version)]
        sync_all(files)
        for part in {path.parent.parent for path in files if path.parent.parent != folder} | {folder}:
            sync_folder(part)
        marks += [mark(root, path) for path in files]
        retired += [f"{name}/{file}" for file in changed.retired]
    number, moment = now.commit.number + 1, time.time()
    gone = [name for name in now.commit.versions if name not in frame.versions]
    kept = tuple(one for one in now.commit.retired if not is_old(one) or (root / one.path).exists())
    return replace(
        frame,
        number=number,
        versions={**frame.versions, **{name: changed.dataset.version for name, changed in done.items()}},
        rows={**frame.rows, **{name: changed.dataset.count_rows() for name, changed in done.items()}},
        marks=tuple(marks),
        retired=kept + tuple(Retired(path, number, moment) for path in (*retired, *gone)),
    )


def undo(now: Snapshot, names: list[str], number: int) -> None:
    """Remove the files of a commit that failed: nobody was told of them, and the disk may be full."""
    with suppress(OSError, StoreError):
        journal.commit_path(now.root, number).unlink(missing_ok=True)
        for name in names:
            folder = now.root / name
            if name not in now.commit.versions:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for version in datasets.versions(folder):  # manifests first, so that none names a file that is gone
                if version > now.commit.versions[name]:
                    datasets.manifest_path(folder, version).unlink()
            for path in strays(now.root, name):
                path.unlink()


def strays(root: Path, name: str) -> list[Path]:
    """Data, deletion and index files of a table that no kept commit reads, and that do not wait for removal."""
    used: set[str] = set()
    waiting: set[str] = set()
    for number in journal.numbers(root):
        with suppress(StoreError, FileNotFoundError), guarded("opening", root):
            commit = journal.read_commit(root, number)
            if commit is None:
                continue
            waiting |= {one.path for one in commit.retired}
            if name in commit.versions:
                used |= datasets.used_files(datasets.open_version(root / name, commit.versions[name]))
    return [
        path
        for relative, path in sorted(listing(root / name).items())
        if relative.startswith(("data/", "_deletions/", "_indices/"))
        and relative not in used
        and not waits(f"{name}/{relative}", waiting)
    ]


def waits(path: str, waiting: set[str]) -> bool:
    """Whether a file, or a folder that it lies in, is among those that wait for their removal."""
    return path in waiting or path.rpartition("/")[0] in waiting


def prune(root: Path, commit: Commit) -> None:
    """Forget old commits and versions, and remove the files that no reader can want any more."""
    with suppress(OSError, StoreError):  # the commit stands; old files that stay cost only disk
        oldest = journal.prune_commits(root)
        if oldest:
            for name, version in oldest.versions.items():
                if name in commit.versions:
                    datasets.prune_versions(root / name, version)
        first = oldest.number if oldest else min(journal.numbers(root), default=0)
        for one in commit.retired:
            if one.commit <= first and is_old(one):
                remove(root, one.path)


def is_old(one: Retired) -> bool:
    return time.time() - one.time >= GRACE


def remove(root: Path, relative: str) -> None:
    """Remove a file or a folder of the store."""
    path = inside(root, relative)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def forget_all_but(now: Snapshot) -> int:
    """Remove at once all that the newest commit does not read: older commits, versions and files. Bytes freed."""
    freed = 0
    for number in journal.numbers(now.root):
        if number != now.commit.number:
            journal.commit_path(now.root, number).unlink()
    for one in now.commit.retired:
        path = inside(now.root, one.path)
        parts = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        freed += sum(file.stat().st_size for file in parts if file.exists())
        remove(now.root, one.path)
    for name, version in now.commit.versions.items():
        datasets.prune_versions(now.root / name, version)
        for path in strays(now.root, name):
            freed += path.stat().st_size
            path.unlink()
    return freed
