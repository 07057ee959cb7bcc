"""What one put changes: rows to append to, and to take out of, each table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import lance
import pyarrow as pa

from chiasm.contracts import Failure, Record, Space, Stat, Stored
from chiasm.errors import StoreError, nearest
from chiasm.store import levels
from chiasm.store.ledger import Ledger
from chiasm.store.local import datasets
from chiasm.store.local.codec_tables import Tables
from chiasm.store.local.commits import Change
from chiasm.store.local.datasets import Changed
from chiasm.store.local.journal import Commit
from chiasm.store.local.tables import Snapshot
from chiasm.store.rows import UNKNOWN, Fault, Source, fault_table, picture_rows, source_table


@dataclass(frozen=True)
class Additions:
    """The arguments of one put."""

    records: Sequence[Record]
    failures: Sequence[Failure] = ()
    uris: Mapping[str, str] = field(default_factory=dict)
    stats: Mapping[str, Stat] = field(default_factory=dict)
    replace: bool = False


@dataclass(frozen=True)
class Plan:
    """Changes, in the order in which they are made. frame, new: the commit with the tables that they need, and the
    schemas of new ones. images: how many pictures are new or gain a level. size: bytes of their levels.
    """

    changes: Mapping[str, Change]
    frame: Commit
    new: Mapping[str, pa.Schema]
    images: int
    size: int


def check_records(records: Sequence[Record], spaces: Mapping[str, Space], tables: Tables) -> None:
    """Raise StoreError for a level of a space that was not declared, or of tables that are not stored."""
    needed: dict[str, str] = {}
    for record in records:
        for name, stored in record.spaces.items():
            if name not in spaces:
                raise StoreError(
                    f"record {record.key[:12]} is of space {name!r}, which the store does not know; call declare first "
                    f"({nearest(name, spaces)})"
                )
            for level, one in stored.items():
                if level not in spaces[name].names:
                    raise StoreError(
                        f"record {record.key[:12]} has a level {level!r}, which space {name!r} does not have; "
                        f"{nearest(level, spaces[name].names)}"
                    )
                needed[one.coded.tables] = record.key
    for hashed, key in needed.items():
        if hashed and hashed not in tables:
            raise StoreError(
                f"record {key[:12]} needs the tables {hashed[:12]!r}, which the store does not hold; "
                "call put_table first"
            )


def plan(added: Additions, now: Snapshot) -> Plan:
    """What is new. Raises StoreError for a uri of a key that is neither stored nor in this put."""
    ledger = Ledger(now)
    fresh = united(added.records)
    uris = list(dict.fromkeys([*(uri for record in added.records for uri in record.uris), *added.uris]))
    with ThreadPoolExecutor(1) as pool:  # Lance looks the uris up while rows are made here
        places = pool.submit(ledger.sources, uris) if uris else None
        here = ledger.here([*fresh, *added.uris.values()])
        of_levels = LevelChanges(now, now.commit)
        for of, some in by_level(fresh.values()).items():
            of_levels.add(of, some, here, added.replace)
        known = places.result() if places else {}
    changes = of_levels.changes | source_changes(added, known, now, here | fresh.keys())
    new = [record for key, record in fresh.items() if key not in here]
    if new:
        changes["pictures"] = changing((), picture_rows(new, now.table("pictures").dataset.schema))
    images = len(of_levels.touched | {record.key for record in new})
    return Plan(changes, of_levels.frame, of_levels.new, images, of_levels.size)


def united(records: Sequence[Record]) -> dict[str, Record]:
    """key -> record; the levels of records of one key come together, the first of each level stays."""
    fresh: dict[str, Record] = {}
    for record in records:
        known = fresh.get(record.key)
        if known:
            spaces = {
                name: {**record.spaces.get(name, {}), **known.spaces.get(name, {})}
                for name in {*record.spaces, *known.spaces}
            }
            record = replace(known, spaces=spaces)  # noqa: PLW2901
        fresh[record.key] = record
    return fresh


@dataclass
class LevelChanges:
    """Changes of the tables of levels, growing level by level. touched: keys that gain a level."""

    now: Snapshot
    frame: Commit
    changes: dict[str, Change] = field(default_factory=dict)
    new: dict[str, pa.Schema] = field(default_factory=dict)
    size: int = 0
    touched: set[str] = field(default_factory=set)

    def add(self, of: tuple[str, str], rows: Sequence[tuple[str, Stored]], here: set[str], replacing: bool) -> None:
        """Rows of one level. here: the keys that are stored; with `replacing` what they have of the level goes."""
        space, level = self.frame.spaces[of[0]], self.frame.spaces[of[0]].level(of[1])
        table = self.now.level(*of)
        known = [key for key, _ in rows if key in here]
        old: list[int] = []
        if table and known:
            found = table.find("key", known, ["key"], row_ids=True)
            if replacing:
                old = found["_rowid"].to_pylist()
            else:
                there = set(found["key"].to_pylist())
                rows = [one for one in rows if one[0] not in there]
        if not rows:
            return
        if table:
            folder, schema = table.name, table.dataset.schema
        else:
            folder, schema = new_folder(self.now, *of), levels.level_schema(space, level, rows[0][1].coded.data)
            self.new[folder] = schema
            self.frame = replace(self.frame, levels={**self.frame.levels, folder: of})
        self.changes[folder] = changing(old, levels.level_rows(rows, level, schema))
        self.size += sum(len(one.coded.data) for _, one in rows)
        self.touched |= {key for key, _ in rows}


def by_level(records: Iterable[Record]) -> dict[tuple[str, str], list[tuple[str, Stored]]]:
    """(space, level) -> (key, level) of each record that has it."""
    rows: dict[tuple[str, str], list[tuple[str, Stored]]] = {}
    for record in records:
        for space, stored in record.spaces.items():
            for level, one in stored.items():
                rows.setdefault((space, level), []).append((record.key, one))
    return rows


def new_folder(now: Snapshot, space: str, level: str) -> str:
    """A folder for a new table: one that is not there yet, and that does not wait for its removal.

    That of a removed level waits for some time also where `compact` has removed it: a new one of that name would go.
    """
    name = levels.folder_name(space, level)
    waiting = {one.path for one in now.commit.retired}
    number = 1
    while (folder := name if number == 1 else f"{name}_{number}") in waiting or (now.root / folder).exists():
        number += 1
    return folder


def changing(old: Sequence[int], rows: pa.Table | None) -> Change:
    """Take the rows with these row ids out, and add others."""

    def change(dataset: lance.LanceDataset) -> Changed:
        done = Changed(dataset)
        if old:
            done = done.then(datasets.delete_rows(done.dataset, old))
        return done.then(datasets.append(done.dataset, rows)) if rows is not None and rows.num_rows else done

    return change


def source_changes(added: Additions, known: Mapping[str, Source], now: Snapshot, keys: set[str]) -> dict[str, Change]:
    """What is new about uris: a place, a file's size and mtime, other bytes, a failure, a success after a failure.

    known: what the uris mean now. keys: the pictures that are stored or in this put.
    """
    number = now.commit.number + 1
    places = [(uri, record.key) for record in added.records for uri in record.uris]
    for uri, key in added.uris.items():
        if key not in keys:
            raise StoreError(f"{uri!r} cannot be noted for key {key[:12]!r}, which is not stored; put its record first")
        places.append((uri, key))
    sources = {uri: Source(uri, key, added.stats.get(uri, UNKNOWN), number) for uri, key in places}
    faults = {
        one.uri: Fault(one.uri, one.reason, one.message, added.stats.get(one.uri, UNKNOWN), number)
        for one in added.failures
        if one.uri not in sources
    }
    standing = Ledger(now).faults([*sources, *faults]) if sources or faults else {}
    news = [one for one in sources.values() if is_news(one, known.get(one.uri), standing.get(one.uri))]
    worse = [one for one in faults.values() if one.uri not in standing or standing[one.uri][:4] != one[:4]]
    over = [uri for uri in (*(one.uri for one in news), *(one.uri for one in worse)) if uri in standing]
    changes: dict[str, Change] = {}
    if news:
        old = row_ids(now, "sources", [one.uri for one in news if one.uri in known])
        changes["sources"] = changing(old, source_table(news))
    if worse or over:
        changes["errors"] = changing(row_ids(now, "errors", over), fault_table(worse) if worse else None)
    return changes


def is_news(source: Source, known: Source | None, fault: Fault | None) -> bool:
    if known is None or fault is not None or known.key != source.key:
        return True
    return source.stat not in (known.stat, UNKNOWN)


def row_ids(now: Snapshot, table: str, uris: Sequence[str]) -> list[int]:
    ids: list[int] = now.table(table).find("uri", uris, ["uri"], row_ids=True)["_rowid"].to_pylist() if uris else []
    return ids
