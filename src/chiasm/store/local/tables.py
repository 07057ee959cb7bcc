"""Reading the tables of one commit by key."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.compute as pc

from chiasm.errors import StoreError
from chiasm.store.local import datasets
from chiasm.store.local.files import guarded
from chiasm.store.local.growth import tail_of
from chiasm.store.local.journal import Commit
from chiasm.store.names import is_unicode, quoted

AT_ONCE = 4096  # values that an index is asked for at once
Tails = dict[tuple[int, str, str], pa.Table]  # fragment, its deletions, column -> keys and row ids


class StoreWarning(UserWarning):
    """Something in the store was damaged; it was set aside and the store goes on without it."""


class Table:
    """One table as of one commit, read by key.

    Look-ups ask the index for the rows that it covers. The others, the tail, are few: their keys are read once and
    compared in memory.
    """

    def __init__(self, root: Path, name: str, dataset: lance.LanceDataset, tails: Tails | None = None) -> None:
        self.name = name
        self.dataset = dataset
        self.tails: Tails = {} if tails is None else tails
        self._root = root
        self._sound: list[lance.LanceFragment] | None = None  # None: no damage was met yet
        self._tail: list[lance.LanceFragment] | None = None  # None: not looked at yet
        self._indexed = False  # whether an index covers any row

    def find(self, column: str, values: Sequence[str], columns: Sequence[str], row_ids: bool = False) -> pa.Table:
        """The rows whose `column`, one that is indexed, is one of `values`; in no order."""
        if not is_unicode("".join(values)):
            values = [value for value in values if is_unicode(value)]
        if self._sound is None:
            try:
                with guarded(f"reading {self.name}", self._root):
                    return self._find(column, values, columns, row_ids)
            except StoreError:
                self._sound = self._sound_fragments()
                if self._sound is None:
                    raise
        wanted = f"{column} IN ({', '.join(map(quoted, values))})" if values else "false"
        return self.where(wanted, columns, row_ids)

    def _find(self, column: str, values: Sequence[str], columns: Sequence[str], row_ids: bool) -> pa.Table:
        names = [*columns, "_rowid"] if row_ids else list(columns)
        parts = [self._of_tail(column, values, columns).select(names)]
        if self._has_index():
            for start in range(0, len(values), AT_ONCE):
                some = ", ".join(map(quoted, values[start : start + AT_ONCE]))
                found = self.dataset.scanner(
                    columns=list(columns), filter=f"{column} IN ({some})", with_row_id=True, fast_search=True
                )
                parts.append(found.to_table().select(names))
        return pa.concat_tables(parts, promote_options="permissive")

    def _of_tail(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """The rows of the tail, with `_rowid`."""
        parts = [self._tail_keys(fragment, column) for fragment in self._tail_fragments()]
        keys = pa.concat_tables(parts) if parts else self._empty([column])
        one = len(values) == 1  # comparing takes half the time of looking up
        keys = keys.filter(
            pc.equal(keys[column], values[0]) if one else pc.is_in(keys[column], pa.array(values, pa.string()))
        )
        if list(columns) == [column]:
            return keys
        if not keys.num_rows:
            return self._empty(columns)
        rows = self.dataset._take_rows(keys["_rowid"].to_pylist(), columns=list(columns))
        return rows.append_column("_rowid", keys["_rowid"])

    def _empty(self, columns: Sequence[str]) -> pa.Table:
        fields = [self.dataset.schema.field(name) for name in columns]
        return pa.schema([*fields, pa.field("_rowid", pa.uint64())]).empty_table()

    def _tail_fragments(self) -> list[lance.LanceFragment]:
        if self._tail is None:
            self._tail = tail_of(self.dataset)
            self._indexed = len(self._tail) < len(self.dataset.get_fragments())
            alive = {tail_id(fragment) for fragment in self._tail}
            for old in [key for key in list(self.tails) if key[:2] not in alive]:
                self.tails.pop(old, None)
        return self._tail

    def _has_index(self) -> bool:
        self._tail_fragments()
        return self._indexed

    def _tail_keys(self, fragment: lance.LanceFragment, column: str) -> pa.Table:
        """One column of a fragment, and `_rowid`; read once, also for later commits that have the fragment."""
        key = (*tail_id(fragment), column)
        if key not in self.tails:
            scanner = self.dataset.scanner(columns=[column], fragments=[fragment], with_row_id=True)
            self.tails[key] = scanner.to_table()
        return self.tails[key]

    def where(self, wanted: str, columns: Sequence[str], row_ids: bool = False, limit: int | None = None) -> pa.Table:
        """The rows that a filter of our own keeps. A damaged file hides its own rows only, with a warning."""
        if self._sound is None:
            try:
                return self._scan(wanted, columns, row_ids, limit, None)
            except StoreError:
                self._sound = self._sound_fragments()
                if self._sound is None:
                    raise
        if not self._sound:
            return self._empty(columns) if row_ids else self._empty(columns).drop_columns(["_rowid"])
        return self._scan(wanted, columns, row_ids, limit, self._sound)

    def _scan(
        self,
        wanted: str,
        columns: Sequence[str],
        row_ids: bool,
        limit: int | None,
        fragments: list[lance.LanceFragment] | None,
    ) -> pa.Table:
        with guarded(f"reading {self.name}", self._root):
            scanner = self.dataset.scanner(
                columns=list(columns), filter=wanted, with_row_id=row_ids, limit=limit, fragments=fragments
            )
            return scanner.to_table()

    def _sound_fragments(self) -> list[lance.LanceFragment] | None:
        """The fragments whose keys can be read; None when all can, so that the fault is another."""
        sound = []
        fragments = self.dataset.get_fragments()
        for fragment in fragments:
            try:
                with guarded("reading the keys", self._root):
                    fragment.scanner(columns=[self.dataset.schema.names[0]]).to_table()
                sound.append(fragment)
            except StoreError:
                continue
        if len(sound) == len(fragments):
            return None
        warnings.warn(
            f"{self._root}: {len(fragments) - len(sound)} data files of {self.name} cannot be read, and their rows are "
            "left out; run verify with repair, then encode again",
            StoreWarning,
            stacklevel=4,
        )
        return sound

    def take(self, row_ids: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """These columns of rows by their row id, in that order."""
        with guarded(f"reading {self.name}", self._root):
            return self.dataset._take_rows(list(row_ids), columns=list(columns))

    def batches(self, columns: Sequence[str], wanted: str | None = None, rows: int = 512) -> Iterator[pa.RecordBatch]:
        """All rows (that a filter keeps), in the order of storing, a few batches in memory."""
        if self._sound == []:
            return
        with guarded(f"scanning {self.name}", self._root):
            scanner = self.dataset.scanner(
                columns=list(columns),
                filter=wanted,
                batch_size=rows,
                batch_readahead=2,
                fragment_readahead=2,
                scan_in_order=True,
                fragments=self._sound,
            )
            running = iter(scanner.to_batches())
        while True:
            with guarded(f"scanning {self.name}", self._root):
                batch = next(running, None)
            if batch is None:
                return
            yield batch

    def check_damage(self) -> None:
        """Look for data files whose keys cannot be read, so that a scan leaves them out (with a warning)."""
        if self._sound is None:
            self._sound = self._sound_fragments()


def tail_id(fragment: lance.LanceFragment) -> tuple[int, str]:
    """What tells the rows of a fragment from those of any other, and from its own before a deletion."""
    deletions = fragment.metadata.deletion_file
    return fragment.fragment_id, "" if deletions is None else str(deletions.path(fragment.fragment_id))


class Snapshot:
    """The tables of one commit, each opened when it is first read."""

    def __init__(self, root: Path, commit: Commit, writing: bool = False) -> None:
        self.root = root
        self.commit = commit
        self._session = datasets.session(writing)
        self._tables: dict[str, Table] = {}

    def table(self, name: str) -> Table:
        """One table. Raises StoreError when it does not open."""
        if name not in self._tables:
            with guarded(f"opening {name}", self.root):
                dataset = datasets.open_version(self.root / name, self.commit.versions[name], self._session)
            self._tables[name] = Table(self.root, name, dataset)
        return self._tables[name]

    def level(self, space: str, level: str) -> Table | None:
        """The table of one level, or None when nothing of it is stored."""
        name = self.commit.table_of(space, level)
        return self.table(name) if name else None

    def after(self, commit: Commit, changed: dict[str, lance.LanceDataset]) -> Snapshot:
        """The tables after a commit: those that it did not touch stay open."""
        later = Snapshot(self.root, commit)
        later._session = self._session
        later._tables = {name: table for name, table in self._tables.items() if name in commit.versions}
        for name, dataset in changed.items():
            old = self._tables.get(name)
            later._tables[name] = Table(self.root, name, dataset, old.tails if old else None)
        return later
