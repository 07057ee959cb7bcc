"""One Lance dataset on a local disk: open a version, add, delete and compact rows, each with its files
fsynced.

What pylance 14 leaves on disk, and what is done about it:
    data/*.lance                       written as .tmp, renamed, never synced: synced here before its manifest
    _transactions/<read>-<uuid>.txn    the same
    _versions/<2^64-1-v>.manifest      linked in place; a truncated one is an error, but an all-zero one opens
                                       silently as an empty dataset of version 0: here a version is opened by
                                       its number, and the number is checked
    _versions/latest_version_hint.json  only a hint; torn or missing it is harmless
Clean-up is never automatic: datasets are made without that option.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import lance
import pyarrow as pa
from lance.fragment import write_fragments

from chiasm.errors import StoreError
from chiasm.store.files import listing, sync_all, sync_file, sync_folder

NEWEST = 2**64 - 1  # Lance names manifests by this number minus the version, so that the newest sorts first
SUFFIX = ".manifest"


def create(folder: Path, schema: pa.Schema) -> lance.LanceDataset:
    """A new empty dataset, durable with the folder's own name in its parent."""
    made = lance.write_dataset(schema.empty_table(), folder, schema=schema, auto_cleanup_options=None)
    sync_all(list(listing(folder).values()))
    for part in (folder, folder.parent):
        sync_folder(part)
    return made


def open_version(folder: Path, version: int) -> lance.LanceDataset:
    """The dataset as of one version. Raises StoreError when that manifest is gone or not itself."""
    dataset = lance.dataset(folder, version=version)
    if dataset.version != version:
        raise StoreError(
            f"{folder}: version {version} opened as version {dataset.version}, so its manifest is damaged"
        )
    return dataset


def versions(folder: Path) -> list[int]:
    """The versions that have a manifest, sound or not, newest first."""
    stems = (path.name.removesuffix(SUFFIX) for path in (folder / "_versions").glob(f"*{SUFFIX}"))
    return sorted((NEWEST - int(stem) for stem in stems if stem.isdigit()), reverse=True)


def manifest_path(folder: Path, version: int) -> Path:
    return folder / "_versions" / f"{NEWEST - version:020d}{SUFFIX}"


def append(dataset: lance.LanceDataset, folder: Path, rows: pa.Table) -> lance.LanceDataset:
    """Add rows as one fragment: its data is on the disk before any manifest names it."""
    fragments = write_fragments(rows, dataset, schema=dataset.schema)
    for fragment in fragments:
        for file in fragment.files:
            sync_file(folder / "data" / file.path)
    for part in (folder / "data", folder):  # the first data file also makes the folder data/
        sync_folder(part)
    operation = lance.LanceOperation.Append(fragments)
    return lance.LanceDataset.commit(dataset, operation, read_version=dataset.version, max_retries=0)


def drop_fragments(dataset: lance.LanceDataset, ids: list[int]) -> lance.LanceDataset:
    """Take whole fragments out of the dataset without reading them; their files stay."""
    operation = lance.LanceOperation.Delete([], ids, "unreadable")
    return lance.LanceDataset.commit(dataset, operation, read_version=dataset.version, max_retries=0)


def delete_rows(dataset: lance.LanceDataset, row_ids: list[int]) -> lance.LanceDataset:
    """Take single rows out by their row id."""
    changed = open_version(
        Path(dataset.uri), dataset.version
    )  # `delete` changes its object: work on another one
    changed.delete(f"_rowid IN ({', '.join(map(str, row_ids))})")
    return changed


def compacted(dataset: lance.LanceDataset, rows_per_fragment: int) -> lance.LanceDataset:
    """The same rows in few large fragments. Gives the same object back when there is nothing to gain."""
    changed = open_version(Path(dataset.uri), dataset.version)
    changed.optimize.compact_files(target_rows_per_fragment=rows_per_fragment, batch_size=64, num_threads=1)
    return changed if changed.version != dataset.version else dataset


def clean(dataset: lance.LanceDataset) -> int:
    """Remove every file that this version does not use. Returns the bytes freed."""
    stats = dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
    return int(stats.bytes_removed)


def used_files(dataset: lance.LanceDataset) -> set[str]:
    """Names, relative to the dataset, of the data and deletion files that this version reads."""
    used: set[str] = set()
    for fragment in dataset.get_fragments():
        used.update(f"data/{file.path}" for file in fragment.metadata.files)
        if fragment.metadata.deletion_file is not None:
            used.add(fragment.metadata.deletion_file.path(fragment.fragment_id))
    return used


def prune_versions(folder: Path, oldest: int) -> None:
    """Forget the manifests and transactions before version `oldest`. Their data files stay: later versions
    use them.
    """
    gone = [manifest_path(folder, version) for version in versions(folder) if version < oldest]
    for path in (folder / "_transactions").glob("*.txn"):
        read_version = path.name.split("-")[0]
        if read_version.isdigit() and int(read_version) + 1 < oldest:
            gone.append(path)
    for path in gone:
        path.unlink(missing_ok=True)
