"""Reading a whole store and saying what is not as it was committed.

First every table alone, row by row, against its checksums; then every picture with its levels, by the caller's check.
Whatever is raised over a row becomes the reason of that row, and the next one follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import lance
import numpy as np
import pyarrow as pa

from chiasm.contracts import Level, Record
from chiasm.errors import StoreError
from chiasm.store import reading
from chiasm.store.ledger import Ledger
from chiasm.store.levels import READ, data_column, data_of, stored_of
from chiasm.store.local import commits
from chiasm.store.local.codec_tables import Tables
from chiasm.store.local.files import guarded, set_aside
from chiasm.store.local.repair import Findings, repair_store
from chiasm.store.local.tables import Snapshot, Table
from chiasm.store.names import KEY
from chiasm.store.reports import VerifyReport, level_stats
from chiasm.store.rows import (
    SOURCE_COLUMNS,
    Row,
    picture_columns,
    picture_of,
    sources_of,
    user_columns,
)

Check = Callable[[Record], str | None]
Judge = Callable[[Row], str | None]
AT_ONCE = 64  # rows of streams in memory
KEYS_AT_ONCE = 2048
REMAIN = 1 << 40  # bytes of a damaged data file that is kept


class Examination:
    """One pass over one table."""

    def __init__(self, now: Snapshot, table: Table, columns: Sequence[str], judge: Judge) -> None:
        self._root, self._table, self._columns, self._judge = now.root, table, list(columns), judge
        self._found = Findings()

    def run(self) -> Findings:
        """Read every row of every fragment; a fragment that breaks while reading is read again row by row."""
        for fragment in self._table.dataset.get_fragments():
            part = Findings()
            try:
                with guarded("verifying", self._root):
                    for batch in self._scan(fragment, self._columns).to_batches():
                        for row in plain_rows(batch):
                            self._look(part, row, None)
            except StoreError:
                part = self._row_by_row(fragment)
            for name in ("duplicates", "unreadable", "row_ids", "remains"):
                getattr(self._found, name).extend(getattr(part, name))
            self._found.bad.update(part.bad)
        self._doubled()
        return self._found

    def _scan(self, fragment: lance.LanceFragment, columns: list[str]) -> lance.LanceScanner:
        return self._table.dataset.scanner(
            columns=columns, fragments=[fragment], with_row_id=True, batch_size=AT_ONCE, scan_in_order=True
        )

    def _look(self, part: Findings, row: dict[str, object], reason: str | None) -> None:
        try:
            if not isinstance(row["key"], str) or not KEY.fullmatch(row["key"]):
                reason = f"the key reads {str(row['key'])[:70]!r}, which is none"
            reason = reason or self._judge(row)
        except Exception as error:  # whatever one row makes of itself, the next is looked at too
            reason = str(error) or type(error).__name__
        if reason:
            part.add(row, reason)

    def _row_by_row(self, fragment: lance.LanceFragment) -> Findings:
        try:
            with guarded("verifying", self._root):
                keys = self._scan(fragment, ["key"]).to_table().to_pylist()
        except StoreError:
            return Findings(unreadable=[fragment])
        part = Findings()
        for offset, entry in enumerate(keys):
            row, reason = self._salvage(fragment, offset)
            self._look(part, {**row, **entry}, reason)
        return part

    def _salvage(self, fragment: lance.LanceFragment, offset: int) -> tuple[dict[str, object], str | None]:
        """Whatever columns of one row can be read, and why the others cannot."""
        row: dict[str, object] = {}
        reason = None
        for column in self._columns:
            try:
                with guarded(f"reading {column}", self._root):
                    scanner = self._table.dataset.scanner(
                        columns=[column], fragments=[fragment], offset=offset, limit=1
                    )
                    (row[column],) = (one[column] for batch in scanner.to_batches() for one in plain_rows(batch))
            except (StoreError, ValueError) as error:
                row[column] = None
                reason = f"unreadable: {error}"
        return row, reason

    def _doubled(self) -> None:
        """Rows of a key that an earlier row has. 16 bytes of memory a row, for the time of the pass."""
        bad = set(self._found.row_ids)
        starts, ids = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        broken = {fragment.fragment_id for fragment in self._found.unreadable}
        for fragment in self._table.dataset.get_fragments():
            if fragment.fragment_id in broken:
                continue
            for batch in self._scan(fragment, ["key"]).to_batches():
                rows = [
                    (int(k[:16], 16), i)
                    for k, i in zip(batch["key"].to_pylist(), batch["_rowid"].to_pylist(), strict=True)
                    if i not in bad
                ]
                starts.append(np.array([row[0] for row in rows], np.uint64))
                ids.append(np.array([row[1] for row in rows], np.uint64))
        start, row_id = np.concatenate(starts), np.concatenate(ids)
        _, first = np.unique(start, return_index=True)
        later = np.delete(row_id, first)
        if later.size:
            rows = self._table.take(later.tolist(), ["key"])["key"].to_pylist()
            self._found.duplicates += rows
            self._found.row_ids += later.tolist()
            self._found.remains += [{"key": key} for key in rows]


def plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, object]]:
    """The rows of a batch; bytes for streams and vectors alike."""
    columns = {name: batch[name] for name in batch.schema.names}
    lists = {name: data_of(one) if name in ("stream", "vector") else one.to_pylist() for name, one in columns.items()}
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))


def examine(now: Snapshot) -> dict[str, Findings]:
    """table -> what is wrong in it, for pictures and every level."""
    pictures = now.table("pictures")
    own = user_columns(pictures.dataset.schema)

    def judge_picture(row: Row) -> None:
        picture_of(row, own)

    found = {"pictures": Examination(now, pictures, picture_columns(pictures.dataset.schema), judge_picture).run()}
    for name, (space, level) in now.commit.levels.items():
        table, about = now.table(name), now.commit.spaces[space].level(level)
        column = data_column(table.dataset.schema)

        found[name] = Examination(now, table, (*READ, column), level_judge(about, column)).run()
    return found


def level_judge(level: Level, column: str) -> Judge:
    def judge(row: Row) -> None:
        data = row[column]
        stored_of(row, data if isinstance(data, bytes) else b"", level)

    return judge


def checked(now: Snapshot, found: Mapping[str, Findings], check: Check) -> tuple[int, dict[str, str]]:
    """How many pictures are sound with all their levels, and key -> reason for those that the check refuses."""
    bad = {key for part in found.values() for key in part.bad}
    pictures = now.table("pictures")
    broken = {fragment.fragment_id for fragment in found["pictures"].unreadable}
    sound, refused = 0, {}
    wanted = [one for one in reading.wanted_levels(now, None) if not found[one.table.name].unreadable]
    for fragment in pictures.dataset.get_fragments():
        if fragment.fragment_id in broken:
            continue
        for batch in fragment.scanner(columns=["key"], batch_size=AT_ONCE).to_batches():
            keys = [key for key in batch["key"].to_pylist() if key not in bad]
            for key, record in record_by_record(now, keys, wanted):
                reason = record if isinstance(record, str) else reason_of(record, check)
                if reason:
                    refused[key] = reason
                else:
                    sound += 1
    return sound, refused


def record_by_record(
    now: Snapshot, keys: Sequence[str], wanted: Sequence[reading.LevelTable]
) -> Iterator[tuple[str, Record | str]]:
    """key -> record, or why it cannot be read."""
    try:
        yield from reading.records(now, keys, wanted).items()
        return
    except StoreError:
        pass
    for key in keys:
        try:
            yield from reading.records(now, [key], wanted).items()
        except StoreError as error:
            yield key, str(error)


def reason_of(record: Record, check: Check) -> str | None:
    try:
        return check(record)
    except Exception as error:  # a check that raises is a reason; the next record follows
        return str(error) or type(error).__name__


def verify(now: Snapshot, tables: Tables, check: Check, repair: bool) -> tuple[VerifyReport, Snapshot]:
    """Examine a store, and repair it when asked. Gives the report, and the tables after it."""
    found = examine(now)
    sound, refused = checked(now, found, check)
    bad = {key: why for name, part in found.items() for key, why in part.bad.items()} | refused
    lost = lost_sources(now, found)
    report = VerifyReport(
        rows=sound,
        bad=bad,
        duplicates=tuple(key for part in found.values() for key in part.duplicates),
        lost=lost,
        unreadable={name: len(part.unreadable) for name, part in found.items() if part.unreadable},
        tables=table_flaws(now, tables),
        repaired=repair,
    )
    if repair and not (report.sound and not any(part.row_ids for part in found.values())):
        now = repair_store(now, found, report, refused)
    stray = [path for name in now.commit.versions for path in commits.strays(now.root, name)]
    if repair:
        set_aside(now.root, stray, "orphans")
    orphans = tuple(path.relative_to(now.root).as_posix() for path in stray)
    return VerifyReport(**{**vars(report), "orphans": orphans}), now


def lost_sources(now: Snapshot, found: Mapping[str, Findings]) -> dict[str, str]:
    """uri -> key of the sources whose picture is not stored and that are not among the failures."""
    ledger, lost = Ledger(now), {}
    table = now.table("sources")
    table.check_damage()
    if found["pictures"].unreadable:
        now.table("pictures").check_damage()
    for batch in table.batches(SOURCE_COLUMNS, rows=KEYS_AT_ONCE):
        sources = list(sources_of(batch))
        here = ledger.here([one.key for one in sources])
        gone = {one.uri: one.key for one in sources if one.key not in here}
        standing = ledger.faults(list(gone)) if gone else {}
        lost.update({uri: key for uri, key in gone.items() if uri not in standing})
    return lost


def table_flaws(now: Snapshot, tables: Tables) -> dict[str, str]:
    """hash -> reason, for codec tables that are damaged, or needed and not there."""
    needed: Counter[str] = Counter()
    for name in now.commit.levels:
        level_stats(now.table(name), needed)
    flaws = {}
    for name in sorted({*tables.names(), *needed}):
        try:
            tables.get(name)
        except StoreError as error:
            flaws[name] = str(error)
    return flaws
