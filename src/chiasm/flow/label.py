"""A user's table of labels into a store: columns joined by key or uri."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from chiasm.errors import ConfigError, StoreError, nearest
from chiasm.store import LanceStore

NAMED_BY = ("key", "uri")


@dataclass(frozen=True)
class LabelReport:
    """What `label_from_csv` did. unknown: name -> why its line fits no picture."""

    labelled: int
    columns: tuple[str, ...]
    unknown: Mapping[str, str]


def label_from_csv(store: LanceStore, file: Path) -> LabelReport:
    """Add the columns of a CSV file to the pictures that its column `key` or `uri` names.

    Types are those that Arrow reads: numbers, booleans, dates, text. Raises ConfigError for a file that does not parse
    or names no picture, StoreError for a column that a store has for itself.
    """
    try:
        # a key is text, also one whose digits look like a number
        types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(NAMED_BY, pa.string()))
        table = pyarrow.csv.read_csv(file, convert_options=types)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{file} is no CSV file with one line of column names ({error}); mend it") from error
    named_by = next((name for name in NAMED_BY if name in table.column_names), None)
    columns = tuple(name for name in table.column_names if name not in NAMED_BY)
    if named_by is None or not columns:
        found = ", ".join(table.column_names)
        raise ConfigError(f"{file}: expected a column called key or uri, and others, got {found}; rename one")
    rows, unknown, seen = dict[str, dict[str, object]](), dict[str, str](), dict[str, str]()
    values = table.select(columns).to_pylist()
    for name, row in zip(map(str, table[named_by].to_pylist()), values, strict=True):
        try:
            key = store.get(name, {}).key
        except StoreError as error:
            unknown[name] = str(error)
            continue
        if key in seen:
            raise ConfigError(f"{file}: {name!r} and {seen[key]!r} are the same picture; keep one line for each")
        seen[key] = name
        rows[key] = row
    if not rows:
        raise ConfigError(
            f"{file}: none of its {table.num_rows} lines names a stored picture; {_example(store, unknown)}"
        )
    known = store.columns()
    store.label({name: _type(table.schema.field(name).type, known.get(name)) for name in columns}, rows)
    return LabelReport(len(rows), columns, unknown)


def _type(came: pa.DataType, known: pa.DataType | None) -> pa.DataType:
    """The type of a column. A file without a value or a fraction says nothing against one that is there."""
    if known is not None and (pa.types.is_null(came) or (pa.types.is_integer(came) and pa.types.is_floating(known))):
        return known
    return pa.string() if pa.types.is_null(came) else came


def _example(store: LanceStore, unknown: Mapping[str, str]) -> str:
    keys = store.keys()[:100]
    uris = [uri for key in keys for uri in store.get(key, {}).uris[:1]]
    return nearest(next(iter(unknown), ""), uris) if uris else "the store is empty"
