"""Records out of the tables: facts of `pictures`, places of `sources`, and the levels that were asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from chiasm.contracts import Level, Record, Stored
from chiasm.errors import StoreError, nearest
from chiasm.store.ledger import Ledger
from chiasm.store.levels import MADE, READ, data_column, data_of, made_of, stored_of
from chiasm.store.local.tables import Snapshot, StoreWarning, Table
from chiasm.store.rows import picture_columns, picture_of, user_columns

Wanted = Mapping[str, Sequence[str]] | None  # space -> levels; None: all
AT_ONCE = 512  # pictures that a scan looks up together
BYTES_AT_ONCE = 64 << 20  # and about how many bytes of levels it holds


@dataclass(frozen=True)
class LevelTable:
    """A level that is to be read, and its table."""

    space: str
    level: Level
    table: Table


def wanted_levels(now: Snapshot, wanted: Wanted) -> list[LevelTable]:
    """The tables to read; a level that is declared and not stored has none. Raises StoreError for unknown names."""
    spaces = now.commit.spaces
    if wanted is None:
        wanted = {name: space.names for name, space in spaces.items()}
    found = []
    for name, levels in wanted.items():
        if name not in spaces:
            raise StoreError(f"this store has no space {name!r}; {nearest(name, spaces)}")
        for level in dict.fromkeys(levels):
            if level not in spaces[name].names:
                raise StoreError(
                    f"this store has no level {level!r} of space {name!r}; {nearest(level, spaces[name].names)}"
                )
            table = now.level(name, level)
            if table:
                found.append(LevelTable(name, spaces[name].level(level), table))
    return found


def level_facts(one: LevelTable, keys: Sequence[str]) -> dict[str, dict[str, object]]:
    """key -> its row without the bytes, with `_rowid`."""
    rows = one.table.find("key", keys, READ, row_ids=True).to_pylist()
    return {str(row["key"]): row for row in rows}


def level_data(one: LevelTable, rows: Sequence[Mapping[str, object]]) -> list[bytes]:
    column = data_column(one.table.dataset.schema)
    if not rows:
        return []
    return data_of(one.table.take([int(str(row["_rowid"])) for row in rows], [column])[column])


def records(now: Snapshot, keys: Sequence[str], wanted: Sequence[LevelTable]) -> dict[str, Record]:
    """key -> record, of those that are stored. Raises StoreError for a row that is damaged."""
    table = now.table("pictures")
    columns = picture_columns(table.dataset.schema)
    rows, places, *facts = side_by_side(
        lambda: table.find("key", keys, columns).to_pylist(),
        lambda: Ledger(now).uris(keys),
        *(lambda one=one: level_facts(one, keys) for one in wanted),
    )
    return joined(now, rows, places, dict(zip(wanted, facts, strict=True)), strict=True)


def side_by_side(*questions: Callable[[], Any]) -> list[Any]:
    """Their answers, asked at once: Lance waits for each on threads of its own. What one raises is raised."""
    with ThreadPoolExecutor(len(questions)) as threads:
        return [asked.result() for asked in [threads.submit(each) for each in questions]]


def joined(
    now: Snapshot,
    rows: Sequence[Mapping[str, object]],
    places: Mapping[str, tuple[str, ...]],
    facts: Mapping[LevelTable, Mapping[str, Mapping[str, object]]],
    strict: bool,
) -> dict[str, Record]:
    """Rows of `pictures` and of levels to records. strict: raise for a damaged row, else warn and leave it out."""
    keys = [str(row["key"]) for row in rows]
    own = user_columns(now.table("pictures").dataset.schema)
    spaces: dict[str, dict[str, dict[str, Stored]]] = {key: {} for key in keys}
    for one, found in facts.items():
        some = [found[key] for key in keys if key in found]
        for row, data in zip(some, level_data(one, some), strict=True):
            key = str(row["key"])
            with left_out(strict):
                spaces[key].setdefault(one.space, {})[one.level.name] = stored_of(row, data, one.level)
    made = {}
    for row in rows:
        with left_out(strict):
            picture = picture_of(row, own)
            made[picture.key] = Record(
                picture.key,
                picture.digest,
                picture.size,
                picture.source_bytes,
                spaces[picture.key],
                picture.part,
                places.get(picture.key, ()),
                picture.capture,
                picture.columns,
            )
    return made


class left_out:  # noqa: N801 - reads as a statement
    """Within it, a StoreError becomes a warning unless strict."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if self._strict or not isinstance(error, StoreError):
            return False
        warnings.warn(f"left out: {error}", StoreWarning, stacklevel=4)
        return True


def scanned(now: Snapshot, wanted: Sequence[LevelTable], where: str | None) -> Iterator[Record]:
    """Every record (that a filter keeps), in the order of storing, some 64 MiB of levels at a time."""
    table = now.table("pictures")
    table.check_damage()
    columns = picture_columns(table.dataset.schema)
    for batch in table.batches(columns, where, AT_ONCE):
        rows = batch.to_pylist()
        keys = [str(row["key"]) for row in rows]
        places = Ledger(now).uris(keys)
        facts = {one: level_facts(one, keys) for one in wanted}
        for part in portions(rows, facts):
            yield from joined(now, part, places, facts, strict=False).values()


def portions(
    rows: Sequence[Mapping[str, object]], facts: Mapping[LevelTable, Mapping[str, Mapping[str, object]]]
) -> Iterator[list[Mapping[str, object]]]:
    """The rows in parts of about BYTES_AT_ONCE bytes of levels."""
    part: list[Mapping[str, object]] = []
    held = 0
    for row in rows:
        size = sum(int(str(found[str(row["key"])]["bytes"])) for found in facts.values() if str(row["key"]) in found)
        if part and held + size > BYTES_AT_ONCE:
            yield part
            part, held = [], 0
        part.append(row)
        held += size
    if part:
        yield part


def made(now: Snapshot, keys: Sequence[str], space: str) -> dict[str, dict[str, tuple[str, str]]]:
    """key -> level -> (encoder id, codec id), of the levels of a space that are stored."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    if space in now.commit.spaces and keys:
        for one in wanted_levels(now, {space: now.commit.spaces[space].names}):
            for row in one.table.find("key", keys, MADE).to_pylist():
                found.setdefault(str(row["key"]), {})[one.level.name] = made_of(row)
    return found


def filtered_keys(table: Table, where: str | None) -> Iterator[pa.RecordBatch]:
    table.check_damage()
    return table.batches(["key"], where, 8192)
