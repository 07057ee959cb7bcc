"""The store on disk: records in Lance, one table a level, one durable commit per `put`.

put ──► levels/* ──► sources ──► errors ──► pictures ──► commits/<n>.json
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pyarrow as pa

from chiasm.contracts import Failure, Record, Space, Stat
from chiasm.errors import StoreError
from chiasm.store import labels, reading, reports
from chiasm.store.ledger import Ledger
from chiasm.store.local import commits, growth, recovery
from chiasm.store.local.codec_tables import Tables
from chiasm.store.local.commits import Change
from chiasm.store.local.files import guarded, require_space
from chiasm.store.local.journal import numbers
from chiasm.store.local.lock import WriterLock
from chiasm.store.local.opening import Mode, check_free, check_store, make_store
from chiasm.store.local.tables import Snapshot, StoreWarning
from chiasm.store.local.verification import Check, verify
from chiasm.store.merging import MergeReport, merge
from chiasm.store.names import KEY
from chiasm.store.reading import Wanted
from chiasm.store.removal import removal, without_level
from chiasm.store.reports import StoreStats, VerifyReport
from chiasm.store.rows import INDEXED, user_columns
from chiasm.store.spaces import declared
from chiasm.store.writing import Additions, check_records, plan

COMMIT_SECONDS = 10.0
COMMIT_BYTES = 64 << 20
COMMIT_ROWS = 4096
"""When a flow should call `put`: as soon as what it has gathered is this old, this large, or this many pictures. A kill
costs what was gathered since the last `put` returned: at most that much work, which the next run does again. Nothing
that a `put` returned from is ever lost.
"""

MARGIN = 1 << 20  # bytes asked for beyond the streams: manifests, the journal, the small columns
T = TypeVar("T")


def open_store(path: str | os.PathLike[str], mode: Mode = "r", wait: float = 0.0) -> LanceStore:
    """Open a store. "r+" takes the writer's lock; "w" does, too, and makes the store when there is none.

    wait: seconds to wait for another writer's end. A reader sees the store as it was at opening, or at its last
    `refresh`. Warns with StoreWarning when a torn last commit was passed over. Raises StoreError: no store here, one of
    another format, another writer, a link inside the store, no version that opens.
    """
    root = Path(path).absolute()
    if mode not in ("r", "r+", "w"):
        raise StoreError(f"a store is opened with mode 'r', 'r+' or 'w', got {mode!r}")
    if mode == "w":
        with guarded("making the folder", root.parent):
            root.mkdir(parents=True, exist_ok=True)
    if mode == "w" and not os.path.lexists(root / "store.json"):
        check_free(root)
    elif mode != "r":
        check_store(root)
    lock = None if mode == "r" else WriterLock(root, wait)
    try:
        if lock and not os.path.lexists(root / "store.json"):
            make_store(root)
        return LanceStore(root, opened(root, lock is not None), lock)
    except BaseException:
        if lock:
            lock.release()
        raise


def opened(root: Path, writing: bool) -> Snapshot:
    """The newest sound commit of a store. Warns when a newer one is torn."""
    check_store(root)
    with guarded("opening", root):
        commit, warning = recovery.recover(root, writing)
    if warning:
        warnings.warn(warning, StoreWarning, stacklevel=3)
    return Snapshot(root, commit, writing)


class LanceStore:
    """One open store, made by `open_store`; a context manager. Reading is thread-safe, writing is for one thread.

    A reader can be pickled, and used after a fork: it opens the store again there, at its newest commit.
    """

    def __init__(self, root: Path, now: Snapshot, lock: WriterLock | None) -> None:
        self.path = root
        self._now = now
        self._lock = lock
        self._tables = Tables(root)
        self._process = os.getpid()
        self._failed_tidying = 0  # puts to pass over before small files are merged again

    def __enter__(self) -> LanceStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        if self._lock:
            raise StoreError(f"{self.path}: a store open for writing cannot be pickled; open it with mode 'r'")
        return {"path": self.path}

    def __setstate__(self, state: Mapping[str, Path]) -> None:
        self.__init__(state["path"], opened(state["path"], False), None)  # type: ignore[misc]

    def close(self) -> None:
        """Free the writer's lock. Everything put is on the disk already."""
        if self._lock:
            self._lock.release()
            self._lock = None

    # --- writing ---

    def declare(self, space: Space) -> None:
        """Make a space known, before its levels are put; further levels of a known space are added to it.

        Raises StoreError when the store knows the space with another grid, or a level with other channels or stride.
        """
        spaces = declared(self._here().commit.spaces, space)
        if spaces != self._now.commit.spaces:
            self._require_writer("declare")
            self._now = commits.apply(self._now, {}, "declaring", frame=replace(self._now.commit, spaces=spaces))

    def put(
        self,
        records: Sequence[Record],
        failures: Sequence[Failure] = (),
        uris: Mapping[str, str] | None = None,
        stats: Mapping[str, Stat] | None = None,
        replace: bool = False,
    ) -> None:
        """Store a batch in one durable commit: when this returns, all of it is safe; when it raises, none is.

        A record of a stored key adds its levels and uris; a level that is there is kept, or with `replace` gives way in
        the same commit. What says nothing new writes nothing. uris: further uri -> stored key; a uri that meant another
        picture means this one now. stats: uri -> (size in bytes, mtime in ns). Raises StoreError: a space or level that
        was not declared, tables not put, an unknown key in `uris`, no space left.
        """
        self._require_writer("put")
        added = Additions(records, failures, uris or {}, stats or {}, replace)
        check_records(records, self._now.commit.spaces, self._tables)
        planned = plan(added, self._now)
        if not planned.changes:
            return
        needed, doing = MARGIN + planned.size, f"storing {planned.images} images"
        require_space(self.path, needed, doing)
        self._now = commits.apply(self._now, planned.changes, doing, needed, planned.frame, planned.new)
        self._tidy(list(planned.changes))

    def _tidy(self, names: Sequence[str]) -> None:
        """Merge small files of these tables and extend their indices where that is due: a commit of its own.

        A failure (a full disk) is not one of the put before it: that is stored, and merging is tried again later.
        """
        if self._failed_tidying:
            self._failed_tidying -= 1
            return
        try:
            due = {name: tidying(name) for name in names if growth.untidy(self._now.table(name).dataset)}
            if due:
                self._now = commits.apply(self._now, due, "merging small files")
        except StoreError:
            self._failed_tidying = growth.FAN

    def put_table(self, name: str, data: bytes) -> None:
        """Store a codec's tables under their SHA-256 in hex (or its first 16 or more digits)."""
        self._require_writer("put_table")
        self._tables.put(name, data)

    def remove(self, keys: Sequence[str]) -> int:
        """Take pictures out: their facts, levels and uris, in one commit. Gives how many there were.

        Their bytes leave the disk with the next `compact`. Raises StoreError for a key that is not stored.
        """
        self._require_writer("remove")
        full = self._resolved(keys)
        self._now = commits.apply(self._now, removal(self._now, full), f"removing {len(full)} images")
        return len(full)

    def remove_level(self, space: str, level: str, dry_run: bool = False) -> int:
        """Take one level of all pictures out, and out of its space. Gives the rows that it had (or has, `dry_run`).

        Raises StoreError for an unknown level, or one that another is coded on top of.
        """
        frame, rows = without_level(self._here(), space, level)
        if dry_run:
            return rows
        self._require_writer("remove_level")
        self._now = commits.apply(self._now, {}, f"removing {space} {level}", frame=frame)
        return rows

    def label(self, columns: Mapping[str, pa.DataType], rows: Mapping[str, Mapping[str, object]]) -> int:
        """Add columns of the user's own to the pictures, or change their values: one commit. Gives the rows changed.

        columns: name -> type of Arrow. rows: key -> column -> value, None to clear it. Raises StoreError: a name that
        is no identifier or is one of ours, a column of another type, a value that does not fit, an unknown key.
        """
        self._require_writer("label")
        change = labels.labelling(self._now, columns, rows)
        self._now = commits.apply(self._now, {"pictures": change}, f"labelling {len(rows)} images")
        self._tidy(["pictures"])
        return len(rows)

    def merge(self, other: LanceStore) -> MergeReport:
        """Add what another store has and this one lacks: pictures, levels, uris, failures, labels, tables."""
        self._require_writer("merge")
        return merge(self, other)

    def compact(self, rows_per_fragment: int = 131_072) -> int:
        """Rewrite small files as few large ones, drop removed rows, and remove old files. Returns the bytes freed.

        Needs free space for a copy of what is rewritten. A reader that is open meanwhile refreshes itself at its next
        look-up; a scan that is under way ends with a StoreError.
        """
        self._require_writer("compact")
        before = dict(self._now.commit.rows)
        changes = {name: compacting(name, rows_per_fragment) for name in before}
        later = commits.apply(self._now, changes, "compacting")
        self._now = later
        if later.commit.rows != before:
            raise StoreError(f"{self.path}: compacting changed the rows; nothing was removed; run verify")
        with guarded("removing old files", self.path):
            return commits.forget_all_but(self._now)

    def verify(self, check: Check = lambda record: None, repair: bool = False) -> VerifyReport:
        """Read every row. `check` gives a reason for a bad record, or None: does it decode, for example.

        repair: take bad rows out in one durable commit, note their sources as failures with reason "damaged" so that
        the next encode redoes them, and keep the bad bytes and orphaned files in quarantine/.
        """
        if repair:
            self._require_writer("verify with repair")
        report, self._now = verify(self._here(), self._tables, check, repair)
        return report

    def _require_writer(self, verb: str) -> None:
        if self._lock is None or self._process != os.getpid():
            raise StoreError(
                f"{self.path}: {verb} needs a store opened with mode 'w'; this one is closed or for reading"
            )

    # --- reading ---

    def _here(self) -> Snapshot:
        """The tables, opened anew in a process that was forked."""
        if self._process != os.getpid():
            self._now, self._process = Snapshot(self.path, self._now.commit), os.getpid()
        return self._now

    def _reading(self, read: Callable[[Snapshot], T]) -> T:
        """Read; once more at the newest commit when a writer has removed the files of the commit that was open."""
        now = self._here()
        try:
            return read(now)
        except StoreError:
            if self._lock or not self.refresh():
                raise
            return read(self._now)

    def refresh(self) -> bool:
        """Let a reader see what was committed since it was opened. Gives whether there was anything new."""
        newest = max(numbers(self.path), default=0)
        if self._lock or newest == self._here().commit.number:
            return False
        later = opened(self.path, writing=False)
        changed = later.commit.number != self._now.commit.number
        if changed:
            self._now = later
        return changed

    def __len__(self) -> int:
        return self._here().commit.rows["pictures"]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._reading(lambda now: Ledger(now).here([key])))

    def spaces(self) -> Mapping[str, Space]:
        """Every space that was declared, by name."""
        return dict(self._here().commit.spaces)

    def columns(self) -> Mapping[str, pa.DataType]:
        """The user's own columns and their types."""
        schema = self._here().table("pictures").dataset.schema
        return {name: schema.field(name).type for name in user_columns(schema)}

    def keys(self, where: str = "") -> list[str]:
        """The keys of all pictures (that a filter keeps), in the order of storing.

        where: SQL over the columns of `pictures`, the user's among them. Raises StoreError when it does not parse.
        """
        now = self._here()
        table = now.table("pictures")
        wanted = labels.checked_where(table, where)
        return [key for batch in reading.filtered_keys(table, wanted) for key in batch["key"].to_pylist()]

    def get(self, key: str, levels: Wanted = None) -> Record:
        """One record with these levels (None: all; {}: the facts alone), reading no other level's bytes.

        key: a key, a prefix of at least 6 digits that only one key has, a uri, or the end of a path. A level that is
        not stored for this image is not in the record. Raises StoreError naming the nearest key or level.
        """
        return self.get_many([key], levels)[0]

    def get_many(self, keys: Sequence[str], levels: Wanted = None) -> list[Record]:
        """Records in the order of `keys`, in one batched read: many times faster than one by one."""
        return self._reading(lambda now: self._get_many(now, keys, levels))

    def _get_many(self, now: Snapshot, keys: Sequence[str], levels: Wanted) -> list[Record]:
        wanted = reading.wanted_levels(now, levels)
        plain = [key for key in dict.fromkeys(keys) if KEY.fullmatch(key)]
        found = reading.records(now, plain, wanted) if plain else {}
        others = {key: Ledger(now).resolve(key) for key in dict.fromkeys(keys) if key not in found}
        more = [key for key in others.values() if key not in found]
        found |= reading.records(now, list(dict.fromkeys(more)), wanted) if more else {}
        return [found[others.get(key, key)] for key in keys]

    def _resolved(self, keys: Sequence[str]) -> list[str]:
        ledger = Ledger(self._here())
        here = ledger.here([key for key in keys if KEY.fullmatch(key)])
        return list(dict.fromkeys(key if key in here else ledger.resolve(key) for key in keys))

    def scan(self, levels: Wanted = None, where: str = "") -> Iterator[Record]:
        """Every record (that a filter keeps), in the order of storing, with these levels, a few at a time.

        A damaged row is left out with a StoreWarning. where: as in `keys`.
        """
        now = self._here()
        wanted = labels.checked_where(now.table("pictures"), where)
        yield from reading.scanned(now, reading.wanted_levels(now, levels), wanted)

    def table(self, name: str) -> bytes:
        """A codec's tables by hash. Raises StoreError when they are not there or damaged."""
        return self._tables.get(name)

    def made(self, keys: Sequence[str], space: str) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        """key -> level -> (encoder id, codec id), of the levels that are stored in `space`."""
        return self._reading(lambda now: reading.made(now, keys, space))

    def known(self, stats: Mapping[str, Stat]) -> dict[str, str]:
        """uri -> key, of these uris those that were stored from a file of this very size and mtime."""
        return self._reading(lambda now: Ledger(now).known(stats))

    def failed(self, stats: Mapping[str, Stat]) -> set[str]:
        """Of these uris, those whose last attempt failed with a file of this very size and mtime."""
        return self._reading(lambda now: Ledger(now).failed(stats))

    def failures(self) -> list[Failure]:
        """The failures that no later success has undone, by uri: what a retry tries."""
        return self._reading(lambda now: Ledger(now).failures())

    def stats(self) -> StoreStats:
        """Counts and sizes, from the small columns only."""
        return self._reading(reports.stats)


def tidying(name: str) -> Change:
    return lambda old: growth.tidy(old, INDEXED.get(name, ("key",)))


def compacting(name: str, rows: int) -> Change:
    return lambda old: growth.compacted(old, INDEXED.get(name, ("key",)), rows)
