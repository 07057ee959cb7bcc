"""The store on disk: records in Lance, one commit per `put`, one column per level.

put ──► tables ──► images ──► sources ──► errors ──► commits/<n>.json
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import lance
import pyarrow as pa

from chiasm.contracts import Failure, Record, Stat
from chiasm.errors import StoreError
from chiasm.store import datasets, journal
from chiasm.store.files import guarded, listing, mark, require_space, set_aside, sync_all, sync_folder
from chiasm.store.images import ImageIndex, read_rows, scan_rows
from chiasm.store.journal import Commit
from chiasm.store.ledger import Additions, Batch, Ledger, check_records, plan, resolve
from chiasm.store.lock import WriterLock
from chiasm.store.opening import NAMES, Identity, Mode, check_identity, make_store, read_identity, schemas
from chiasm.store.recovery import StoreWarning, recover
from chiasm.store.reports import StoreStats, VerifyReport
from chiasm.store.rows import (
    Fault,
    bytes_column,
    fault_table,
    faults_of,
    image_table,
    known_levels,
    record_of,
    sensor_of,
    source_table,
    sources_of,
)
from chiasm.store.tables import Tables
from chiasm.store.verification import (
    Check,
    Findings,
    examine,
    fault_list,
    keep_remains,
    orphans,
    table_flaws,
    without,
)

IMAGES, SOURCES, ERRORS = NAMES
MARGIN = 1 << 20  # bytes asked for beyond the streams: manifests, the journal, the small columns
Change = Callable[[lance.LanceDataset], lance.LanceDataset]


def open_store(
    path: str | os.PathLike[str],
    mode: Mode = "r",
    space: str | None = None,
    levels: Sequence[str] | None = None,
) -> LanceStore:
    """Open a store. mode "w" takes the writer's lock, and makes the store when there is none.

    space and levels are needed to make one, and are checked against one that exists. A reader sees the store
    as it was at opening. Warns with StoreWarning when a torn last commit was passed over. Raises StoreError:
    no store here, another space, a missing level, another writer, no version that opens.
    """
    root = Path(path).absolute()
    if mode not in ("r", "w"):
        raise StoreError(f"a store is opened with mode 'r' or 'w', got {mode!r}")
    lock = None
    if mode == "w":
        with guarded("making the folder", root.parent):
            root.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(root)
    try:
        if lock and not (root / "store.json").is_file():
            make_store(root, Identity(space or "", tuple(levels or ())))
        identity = read_identity(root)
        check_identity(root, identity, space, levels)
        with guarded("opening", root):
            commit, warning = recover(root, schemas(identity.levels), lock is not None)
            store = LanceStore(root, identity, commit, lock)
        if warning:
            warnings.warn(warning, StoreWarning, stacklevel=2)
        return store
    except BaseException:
        if lock:
            lock.release()
        raise


class LanceStore:
    """One open store. Made by `open_store`; a context manager.

    Reading is thread-safe, writing is for one thread.
    """

    def __init__(self, root: Path, identity: Identity, commit: Commit, lock: WriterLock | None) -> None:
        self.path = root
        self.space = identity.space
        self.levels = identity.levels
        self._commit = commit
        self._lock = lock
        self._sets = {name: datasets.open_version(root / name, commit.versions[name]) for name in NAMES}
        self._tables = Tables(root)
        self._index: ImageIndex | None = None
        self._ledger: Ledger | None = None

    def __enter__(self) -> LanceStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the writer's lock. Everything put is on the disk already."""
        if self._lock:
            self._lock.release()
            self._lock = None

    # --- writing ---

    def put(
        self,
        records: Sequence[Record],
        failures: Sequence[Failure] = (),
        uris: Mapping[str, str] | None = None,
        stats: Mapping[str, Stat] | None = None,
    ) -> None:
        """Store a batch in one durable commit: when this returns, all of it is safe; when it raises, none is.

        A key that is stored already is skipped and its uris noted; what says nothing new writes nothing.
        uris: further uri -> stored key. stats: uri -> (size in bytes, mtime in ns), which lets `done` skip
        unread files. Raises StoreError: another space or level, tables not put, an unknown key in `uris`, no
        space left.
        """
        self._require_writer("put")
        check_records(records, self.space, self.levels, self._tables.__contains__)
        added = Additions(records, failures, uris or {}, stats or {})
        batch = plan(added, self._images().positions, self._known(), self._commit.number + 1)
        if not batch:
            return
        needed = MARGIN + sum(len(s) for record in batch.records for s in record.packet.streams.values())
        doing = f"storing {len(batch.records)} images"
        require_space(self.path, needed, doing)
        start = self._sets[IMAGES].count_rows()
        index, known = self._images(), self._known()
        self._index = self._ledger = None  # should Ctrl-C come before they are up to date, they are read anew
        self._write(self._appends(batch), doing, needed)
        features = [record.feature_id for record in batch.records]
        index.add(start, [record.key for record in batch.records], features)
        known.add_sources(batch.sources)
        known.add_faults(batch.faults)
        self._index, self._ledger = index, known

    def note_uris(self, uris: Mapping[str, str], stats: Mapping[str, Stat] | None = None) -> None:
        """Note further uris (uri -> key) of images that are stored."""
        self.put((), (), uris, stats)

    def put_table(self, name: str, data: bytes) -> None:
        """Store a codec's tables under their SHA-256 in hex (or its first 16 or more digits)."""
        self._require_writer("put_table")
        self._tables.put(name, data)

    def compact(self, rows_per_fragment: int = 16_384) -> int:
        """Rewrite many small files as few large ones and remove the old. Returns the bytes freed.

        The new files are synced and read back by key before an old one goes. Needs free space for a copy of
        the small files. A reader that is open meanwhile must open again.
        """
        self._require_writer("compact")
        keys = list(self._images().positions)
        changed = {name: lambda old: datasets.compacted(old, rows_per_fragment) for name in NAMES}
        self._write(changed, "compacting", 0)
        self._index = None
        if list(self._images().positions) != keys or self._images().unreadable:
            raise StoreError(f"{self.path}: compacting changed the keys; nothing was removed; run verify")
        with guarded("removing old files", self.path):
            freed = sum(datasets.clean(dataset) for dataset in self._sets.values())
            for number in journal.numbers(self.path)[1:]:
                journal.commit_path(self.path, number).unlink()
        return freed

    def verify(self, check: Check = lambda record: None, repair: bool = False) -> VerifyReport:
        """Read every row. `check` gives a reason for a bad record, or None: does it decode, for example.

        repair: take bad rows out in one durable commit, note their sources as failures with reason "damaged"
        so that the next encode redoes them, and keep the bad bytes and orphaned files in quarantine/.
        """
        if repair:
            self._require_writer("verify with repair")
        found = examine(self.path, self._sets[IMAGES], self.levels, check)
        lost = self._known().lost(self._images().positions)
        flaws = table_flaws(self._tables, self.stats().tables if not found.unreadable else ())
        if repair and (found.row_ids or found.unreadable or lost):
            self._repair(found, fault_list(found, lost, self._known(), self._commit.number + 1))
        stray = [path for name in NAMES for path in orphans(self.path, name, self._kept(name))]
        if repair:
            set_aside(self.path, stray, "orphans")
        return VerifyReport(
            rows=found.rows,
            bad=found.bad,
            duplicates=tuple(found.duplicates),
            lost=lost,
            unreadable=tuple(fragment.fragment_id for fragment in found.unreadable),
            tables=flaws,
            orphans=tuple(path.relative_to(self.path).as_posix() for path in stray),
            repaired=repair,
        )

    def _repair(self, found: Findings, faults: Sequence[Fault]) -> None:
        with guarded("keeping the bad rows", self.path):
            keep_remains(self.path, found)
        changes: dict[str, Change] = {}
        if found.row_ids or found.unreadable:
            changes[IMAGES] = lambda old: without(found, old)
        if faults:
            changes[ERRORS] = self._append(ERRORS, fault_table(faults))
        self._write(changes, "repairing", 0)
        self._known().add_faults(faults)
        self._index = None

    def _kept(self, name: str) -> Iterator[lance.LanceDataset]:
        """The versions of a dataset that the journal can fall back to."""
        for number in journal.numbers(self.path):
            with suppress(StoreError, FileNotFoundError), guarded("opening", self.path):
                commit = journal.read_commit(self.path, number)
                if commit:
                    yield datasets.open_version(self.path / name, commit.versions[name])

    def _appends(self, batch: Batch) -> dict[str, Change]:
        tables = {}
        if batch.records:
            tables[IMAGES] = image_table(batch.records, self.levels)
        if batch.sources:
            tables[SOURCES] = source_table(batch.sources)
        if batch.faults:
            tables[ERRORS] = fault_table(batch.faults)
        return {name: self._append(name, rows) for name, rows in tables.items()}

    def _append(self, name: str, rows: pa.Table) -> Change:
        return lambda old: datasets.append(old, self.path / name, rows)

    def _write(self, changes: Mapping[str, Change], doing: str, needed: int) -> None:
        """Apply the changes in order and commit them as one; on any error nothing of them stays."""
        before = {name: listing(self.path / name) for name in changes}
        old, number = self._sets, self._commit.number + 1
        with guarded(doing, self.path, needed):
            try:
                sets = {**old, **{name: change(old[name]) for name, change in changes.items()}}
                commit = self._sealed(number, sets, before)
                journal.write_commit(self.path, commit)
                self._sets, self._commit = sets, commit
            except BaseException:
                if self._commit.number != number:
                    self._sets = old
                    self._undo(before, number)
                raise
        self._prune()

    def _sealed(
        self, number: int, sets: Mapping[str, lance.LanceDataset], before: Mapping[str, Mapping[str, Path]]
    ) -> Commit:
        """Sync every file and folder that is new since `before`; give the commit that names them."""
        marks = []
        for name, known in before.items():
            folder = self.path / name
            new = {file: path for file, path in listing(folder).items() if file not in known}
            sync_all(list(new.values()))
            sync_folder(folder)
            manifest = datasets.manifest_path(folder, sets[name].version)
            # transactions and the manifests of steps on the way are not needed for reading
            read = [
                path for file, path in new.items() if file.startswith(("data/", "_del")) or path == manifest
            ]
            marks += [mark(self.path, path) for path in read]
        versions = {name: dataset.version for name, dataset in sets.items()}
        rows = {name: dataset.count_rows() for name, dataset in sets.items()}
        return Commit(number, versions, rows, tuple(marks))

    def _undo(self, before: Mapping[str, Mapping[str, Path]], number: int) -> None:
        """Remove the files of a commit that failed: nobody was told of them, and the disk may be full."""
        with suppress(OSError):
            journal.commit_path(self.path, number).unlink(missing_ok=True)
            for name, old in before.items():
                now = listing(self.path / name)
                for file in sorted(
                    now.keys() - old.keys(), key=lambda name: not name.startswith("_versions")
                ):
                    now[file].unlink()  # manifests first, so that none names a file that is gone

    def _prune(self) -> None:
        with suppress(OSError):  # the commit stands; old manifests that stay cost only disk
            oldest = journal.prune_commits(self.path)
            if oldest:
                for name, version in oldest.versions.items():
                    datasets.prune_versions(self.path / name, version)

    def _require_writer(self, verb: str) -> None:
        if self._lock is None:
            raise StoreError(
                f"{self.path}: {verb} needs a store opened with mode 'w'; this one is closed or for reading"
            )

    # --- reading ---

    def _images(self) -> ImageIndex:
        if self._index is None:
            self._index = ImageIndex(self.path, self._sets[IMAGES])
        return self._index

    def _known(self) -> Ledger:
        if self._ledger is None:
            ledger = Ledger()
            with guarded("reading sources and errors", self.path):
                ledger.add_sources(sources_of(self._sets[SOURCES].to_table()))
                ledger.add_faults(faults_of(self._sets[ERRORS].to_table()))
            self._ledger = ledger
        return self._ledger

    def __len__(self) -> int:
        return len(self._images().positions)

    def __contains__(self, key: object) -> bool:
        return key in self._images().positions

    def keys(self) -> list[str]:
        """Every key, in the order of storing."""
        return list(self._images().positions)

    def get(self, key: str, levels: Sequence[str] | None = None) -> Record:
        """One record with these levels (None: all), reading no other level's bytes.

        key: a key, a prefix of at least 6 digits that only one key has, a uri, or the end of a path. A level
        that is not stored for this image is not in the packet's streams. Raises StoreError naming the nearest
        key or level.
        """
        return self.get_many([key], levels)[0]

    def get_many(self, keys: Sequence[str], levels: Sequence[str] | None = None) -> list[Record]:
        """Records in the order of `keys`, in one batched read: many times faster than one by one."""
        wanted = known_levels(levels, self.levels)
        positions = self._images().positions
        full = [resolve(key, positions, self._known()) for key in keys]
        rows = read_rows(self._sets[IMAGES], self.path, {key: positions[key] for key in full}, wanted)
        records = {
            str(row["key"]): record_of(row, wanted, self._known().uris(str(row["key"]))) for row in rows
        }
        return [records[key] for key in full]

    def scan(self, levels: Sequence[str] | None = None, batch_size: int = 64) -> Iterator[Record]:
        """Every record in the order of storing, reading only these levels, a few batches at a time."""
        wanted = known_levels(levels, self.levels)
        known = self._known()
        for row in scan_rows(self._sets[IMAGES], self.path, wanted, batch_size):
            yield record_of(row, wanted, known.uris(str(row["key"])))

    def table(self, name: str) -> bytes:
        """A codec's tables by hash. Raises StoreError when they are not there or damaged."""
        return self._tables.get(name)

    def done(self, stats: Mapping[str, Stat], feature_id: str) -> set[str]:
        """Of these uris, those stored with this feature id from a file of this very size and mtime."""
        return self._known().done(stats, lambda key: self._images().feature(key) == feature_id)

    def failed(self, stats: Mapping[str, Stat]) -> set[str]:
        """Of these uris, those whose last attempt failed with a file of this very size and mtime."""
        return self._known().failed(stats)

    def failures(self) -> list[Failure]:
        """The failures that no later success has undone, by uri: what a retry tries."""
        return self._known().failures()

    def stats(self) -> StoreStats:
        """Counts and sizes, from the small columns only."""
        counted = ("space", "feature_id", "codec_id", "tables")
        names = ["height", "width", "source_bytes", "sensor", *counted, *map(bytes_column, self.levels)]
        with guarded("counting", self.path):
            table = self._sets[IMAGES].to_table(columns=names)
        columns = {name: table[name].to_pylist() for name in names}
        counts = {name: dict(Counter(columns[name])) for name in counted}
        return StoreStats(
            images=table.num_rows,
            sources=self._known().sources(),
            failures=len(self.failures()),
            pixels=sum(h * w for h, w in zip(columns["height"], columns["width"], strict=True)),
            source_bytes=sum(columns["source_bytes"]),
            level_bytes={level: sum(filter(None, columns[bytes_column(level)])) for level in self.levels},
            spaces=counts["space"],
            feature_ids=counts["feature_id"],
            codec_ids=counts["codec_id"],
            tables=counts["tables"],
            sensors=dict(Counter(str(sensor_of(text)) for text in filter(None, columns["sensor"]))),
        )
