"""One Lance dataset on a local disk: open a version, add and delete rows, rewrite fragments, extend the indices.

What pylance 14 leaves on disk, and what is done about it:
    data/*.lance                       written as .tmp, renamed, never synced: synced here before its manifest
    _deletions/*, _indices/*/*         the same: synced by the commit that names them
    _transactions/<read>-<uuid>.txn    not needed for reading
    _versions/<2^64-1-v>.manifest      linked in place; a truncated one is an error, but an all-zero one opens
                                       silently as an empty dataset of version 0: here a version is opened by
                                       its number, and the number is checked
    _versions/latest_version_hint.json  only a hint; torn or missing it is harmless
Clean-up is never automatic: datasets are made without that option. Every change gives the files that it added and
those that it no longer reads, so that no folder has to be listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments
from lance.lance import _Session as Session

from chiasm.errors import StoreError
from chiasm.store.local.files import listing, require_real, sync_all, sync_file, sync_folder

NEWEST = 2**64 - 1  # Lance names manifests by this number minus the version, so that the newest sorts first
SUFFIX = ".manifest"
FILE = re.compile(r"[A-Za-z0-9_-]+\.[a-z]+")  # a data file's name; never a path
INDEX_CACHE = (
    160 << 20
)  # bytes; the tables of a store share it. Below the size of an index, look-ups of many keys thrash
READER_CACHE = 64 << 20  # a reader asks for few keys at once
METADATA_CACHE = 32 << 20
PARTS = ("data", "_versions", "_deletions", "_indices", "_transactions")
MAX_FILE = 1 << 40  # bytes; one change is one fragment, however large


@dataclass(frozen=True)
class Changed:
    """A dataset after a change. added, retired: the names, below its folder, of the files that the change wrote, and
    of those that it reads no more.
    """

    dataset: lance.LanceDataset
    added: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()

    def then(self, later: Changed) -> Changed:
        """This change and a later one of the same dataset as one; what the later one dropped again is not added."""
        added = tuple(name for name in self.added if name not in later.retired)
        return Changed(later.dataset, added + later.added, self.retired + later.retired)


def create(folder: Path, schema: pa.Schema) -> Changed:
    """A new empty dataset, durable with the folder's own name in its parent."""
    made = lance.write_dataset(schema.empty_table(), folder, schema=schema, auto_cleanup_options=None)
    sync_all(listing(folder).values())
    for part in (folder, folder.parent):
        sync_folder(part)
    return Changed(made)


def session(writing: bool = False) -> Session:
    """A cache for the tables of one store, bounded."""
    size = INDEX_CACHE if writing else READER_CACHE
    return Session(index_cache_size_bytes=size, metadata_cache_size_bytes=METADATA_CACHE)


def open_version(folder: Path, version: int, shared: Session | None = None) -> lance.LanceDataset:
    """The dataset as of one version. Raises StoreError when that manifest is gone or not itself, or when something in
    the folder leads out of it.
    """
    for part in (folder, *(folder / part for part in PARTS)):
        require_real(part, folder=True)
    require_real(manifest_path(folder, version), folder=False)
    dataset = lance.dataset(folder, version=version, session=shared or session())
    if dataset.version != version:
        raise StoreError(f"{folder}: version {version} opened as version {dataset.version}, so its manifest is damaged")
    require_own_files(folder, dataset)
    return dataset


def another(dataset: lance.LanceDataset) -> lance.LanceDataset:
    """A second object of the same version, with the same caches: some of Lance's methods change their object."""
    return lance.dataset(dataset.uri, version=dataset.version, session=dataset.session())


def require_own_files(folder: Path, dataset: lance.LanceDataset) -> None:
    """Raise StoreError when a manifest names a file that is not a plain one of this dataset's own folder."""
    for fragment in dataset.get_fragments():
        data = fragment.metadata
        deletions = data.deletion_file
        bases = [getattr(file, "base_id", None) for file in data.files] + [getattr(deletions, "base_id", None)]
        if any(bases) or not all(FILE.fullmatch(file.path) for file in data.files):
            raise StoreError(f"{folder}: its manifest names a file outside the folder; the store was tampered with")
        for name in fragment_files(data):
            require_real(folder / name, folder=False)
    indices = folder / "_indices"
    if indices.is_dir():
        for entry in os.scandir(indices):
            require_real(Path(entry.path), folder=True)
            for file in os.scandir(entry.path):
                require_real(Path(file.path), folder=False)


def fragment_files(data: FragmentMetadata) -> list[str]:
    names = [f"data/{file.path}" for file in data.files]
    if data.deletion_file is not None:
        names.append(str(data.deletion_file.path(data.id)))
    return names


def versions(folder: Path) -> list[int]:
    """The versions that have a manifest, sound or not, newest first."""
    stems = (path.name.removesuffix(SUFFIX) for path in (folder / "_versions").glob(f"*{SUFFIX}"))
    return sorted((NEWEST - int(stem) for stem in stems if stem.isdecimal()), reverse=True)


def manifest_path(folder: Path, version: int) -> Path:
    return folder / "_versions" / f"{NEWEST - version:020d}{SUFFIX}"


def write(dataset: lance.LanceDataset, rows: pa.Table | pa.RecordBatchReader) -> list[FragmentMetadata]:
    """Write rows to data files, synced with their folder before any manifest names them."""
    folder = Path(dataset.uri)
    made: list[FragmentMetadata] = write_fragments(
        rows, dataset, schema=dataset.schema, max_rows_per_file=2**31 - 1, max_bytes_per_file=MAX_FILE
    )
    for fragment in made:
        for file in fragment.files:
            sync_file(folder / "data" / file.path)
    for part in (folder / "data", folder):  # the first data file also makes the folder data/
        sync_folder(part)
    return made


def committed(dataset: lance.LanceDataset, operation: lance.LanceOperation.BaseOperation) -> lance.LanceDataset:
    return lance.LanceDataset.commit(dataset, operation, read_version=dataset.version, max_retries=0)


def append(dataset: lance.LanceDataset, rows: pa.Table) -> Changed:
    """Add rows as one fragment."""
    made = write(dataset, rows)
    names = [name for fragment in made for name in fragment_files(fragment)]
    return Changed(committed(dataset, lance.LanceOperation.Append(made)), tuple(names))


def drop_fragments(dataset: lance.LanceDataset, ids: Sequence[int]) -> Changed:
    """Take whole fragments out of the dataset without reading them; their files stay, for a person to look at."""
    return Changed(committed(dataset, lance.LanceOperation.Delete([], list(ids), "unreadable")))


def delete_rows(dataset: lance.LanceDataset, row_ids: Sequence[int]) -> Changed:
    """Take single rows out by their row id."""
    before = used_files(dataset)
    changed = another(dataset)
    changed.delete(f"_rowid IN ({', '.join(map(str, row_ids))})")
    after = used_files(changed)
    return Changed(changed, tuple(sorted(after - before)), tuple(sorted(before - after)))


def rewrite(dataset: lance.LanceDataset, fragments: Sequence[lance.LanceFragment], batch_rows: int) -> Changed:
    """Some fragments, none of them indexed, as one; their rows are copied a batch at a time."""
    scanner = dataset.scanner(fragments=list(fragments), scan_in_order=True, batch_size=batch_rows, batch_readahead=2)
    made = write(dataset, scanner.to_reader())
    group = lance.LanceOperation.RewriteGroup([fragment.metadata for fragment in fragments], made)
    retired = [name for fragment in fragments for name in fragment_files(fragment.metadata)]
    added = [name for fragment in made for name in fragment_files(fragment)]
    return Changed(committed(dataset, lance.LanceOperation.Rewrite([group], [])), tuple(added), tuple(retired))


def index_ids(dataset: lance.LanceDataset) -> set[str]:
    return {str(segment.uuid) for index in dataset.describe_indices() for segment in index.segments}


def indexed_fragments(dataset: lance.LanceDataset) -> set[int]:
    """The fragments that the index of the table's first key column covers."""
    return {
        fragment
        for index in dataset.describe_indices()
        if index.field_names == [dataset.schema.names[0]]
        for segment in index.segments
        for fragment in segment.fragment_ids
    }


def extend_indices(dataset: lance.LanceDataset, columns: Iterable[str], merge: int) -> Changed:
    """Index the rows that no index of these columns covers yet; `merge` older parts become one with them."""
    folder = Path(dataset.uri)
    before = index_ids(dataset)
    changed = another(dataset)
    there = {index.name for index in changed.describe_indices()}
    for column in columns:
        if index_name(column) not in there:
            changed.create_scalar_index(column, "BTREE", name=index_name(column))
    if there:
        changed.optimize.optimize_indices(num_indices_to_merge=merge)
    after = index_ids(changed)
    added = [
        f"_indices/{index}/{path.name}" for index in after - before for path in (folder / "_indices" / index).iterdir()
    ]
    return Changed(changed, tuple(sorted(added)), tuple(f"_indices/{index}" for index in sorted(before - after)))


def index_name(column: str) -> str:
    return f"{column}_btree"


def used_files(dataset: lance.LanceDataset) -> set[str]:
    """Names, relative to the dataset, of the data, deletion and index files that this version reads."""
    used = {name for fragment in dataset.get_fragments() for name in fragment_files(fragment.metadata)}
    folder = Path(dataset.uri) / "_indices"
    for index in index_ids(dataset):
        if (folder / index).is_dir():
            used |= {f"_indices/{index}/{path.name}" for path in (folder / index).iterdir()}
    return used


def prune_versions(folder: Path, oldest: int) -> None:
    """Forget the manifests and transactions before version `oldest`. Their data files stay: later versions use them."""
    gone = [manifest_path(folder, version) for version in versions(folder) if version < oldest]
    for path in (folder / "_transactions").glob("*.txn"):
        read_version = path.name.split("-")[0]
        if read_version.isdecimal() and int(read_version) + 1 < oldest:
            gone.append(path)
    for path in gone:
        path.unlink(missing_ok=True)
