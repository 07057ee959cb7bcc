"""Reading the tables of one commit by key."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import lance
import pyarrow as pa

from chiasm.errors import StoreError
from chiasm.store.local import datasets
from chiasm.store.local.files import guarded
from chiasm.store.local.journal import Commit
from chiasm.store.names import quoted

AT_ONCE = 2048  # values in one look-up


class StoreWarning(UserWarning):
    """Something in the store was damaged; it was set aside and the store goes on without it."""


class Table:
    """One table as of one commit. Look-ups use its index; rows that no index covers yet are few, and are scanned."""

    def __init__(self, root: Path, name: str, dataset: lance.LanceDataset) -> None:
        self.name = name
        self.dataset = dataset
        self._root = root
        self._sound: list[lance.LanceFragment] | None = None  # None: no damage was met yet

    def find(self, column: str, values: Sequence[str], columns: Sequence[str], row_ids: bool = False) -> pa.Table:
        """The rows whose `column` is one of `values`, in no order."""
        parts = []
        for start in range(0, max(1, len(values)), AT_ONCE):
            some = values[start : start + AT_ONCE]
            wanted = f"{column} IN ({', '.join(map(quoted, some))})" if some else "false"
            parts.append(self.where(wanted, columns, row_ids))
        return pa.concat_tables(parts)

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
            return pa.schema(
                [self._field(name) for name in columns] + [pa.field("_rowid", pa.uint64())] * row_ids
            ).empty_table()
        return self._scan(wanted, columns, row_ids, limit, self._sound)

    def _field(self, name: str) -> pa.Field:
        return self.dataset.schema.field(name)

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


class Snapshot:
    """The tables of one commit, each opened when it is first read."""

    def __init__(self, root: Path, commit: Commit) -> None:
        self.root = root
        self.commit = commit
        self._session = datasets.session()
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
        later._tables |= {name: Table(self.root, name, dataset) for name, dataset in changed.items()}
        return later
