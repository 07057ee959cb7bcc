"""Columns of the user's own in `pictures`, and filters over them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import lance
import pyarrow as pa

from chiasm.errors import StoreError, nearest
from chiasm.store.local import datasets
from chiasm.store.local.commits import Change
from chiasm.store.local.datasets import Changed
from chiasm.store.local.files import sync_all
from chiasm.store.local.tables import Snapshot, Table
from chiasm.store.names import checked_key
from chiasm.store.rows import PICTURES, sealed, user_columns

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
AT_ONCE = 16_384  # rows that are rewritten together
WHERE = 10_000  # characters of a filter


def checked_where(table: Table, where: str) -> str | None:
    """A filter that parses and names columns that are there; None for "". Raises StoreError."""
    if not where.strip():
        return None
    if len(where) > WHERE:
        raise StoreError(
            f"a filter has at most {WHERE:,} characters, got {len(where):,}; put labels into a column instead"
        )
    try:
        table.dataset.scanner(columns=["key"], filter=where, limit=0).to_table()
    except Exception as error:  # whatever the parser of Lance raises
        columns = ", ".join(name for name in table.dataset.schema.names if name not in ("crc", "capture"))
        reason = re.sub(r",? ?/?\S+\.rs:\d+:\d+", "", str(error)).split(" Valid fields are")[0].split("\n")[0]
        raise StoreError(f"the filter {where!r} is none: {reason.rstrip('. ')}; the columns are {columns}") from error
    return where


def checked_columns(schema: pa.Schema, columns: Mapping[str, pa.DataType]) -> list[pa.Field]:
    """The columns that are new. Raises StoreError for a name or type that cannot be."""
    for name, kind in columns.items():
        if not NAME.fullmatch(name) or name.lower() in PICTURES.names:
            raise StoreError(
                f"a column is named with letters, digits and _ and not like one of the store's own "
                f"({', '.join(PICTURES.names)}), got {name!r}"
            )
        if name in schema.names and schema.field(name).type != kind:
            raise StoreError(
                f"the column {name!r} holds {schema.field(name).type} and {kind} came; give the new one another name"
            )
        other = next((one for one in schema.names if one != name and one.lower() == name.lower()), None)
        if other:
            raise StoreError(f"the column {name!r} differs from {other!r} in capitals only; give it another name")
    return [pa.field(name, kind) for name, kind in columns.items() if name not in schema.names]


def labelling(now: Snapshot, columns: Mapping[str, pa.DataType], rows: Mapping[str, Mapping[str, object]]) -> Change:
    """The change of `pictures` that adds columns and sets values. Raises StoreError before anything is written."""
    table = now.table("pictures")
    schema = table.dataset.schema
    new = checked_columns(schema, columns)
    allowed = [*user_columns(schema), *(field.name for field in new)]
    for key, values in rows.items():
        checked_key(key)
        for name in values:
            if name not in allowed:
                raise StoreError(f"{key[:12]}: there is no column {name!r}; {nearest(name, allowed)}")
    keys = list(rows)
    here = set(table.find("key", keys, ["key"])["key"].to_pylist()) if keys else set()
    missing = [key for key in keys if key not in here]
    if missing:
        raise StoreError(
            f"{len(missing)} of {len(keys)} labelled keys are not stored, for example {missing[0][:12]}; "
            "encode those pictures first or leave them out"
        )

    def change(dataset: lance.LanceDataset) -> Changed:
        done = with_columns(dataset, new)
        for start in range(0, len(keys), AT_ONCE):
            done = done.then(relabelled(now, done.dataset, keys[start : start + AT_ONCE], rows))
        return done

    return change


def with_columns(dataset: lance.LanceDataset, new: Sequence[pa.Field]) -> Changed:
    """The dataset with further columns, which are empty: no data file changes."""
    if not new:
        return Changed(dataset)
    before = datasets.used_files(dataset)
    changed = datasets.another(dataset)
    changed.add_columns(list(new))
    added = sorted(datasets.used_files(changed) - before)
    sync_all(Path(dataset.uri) / name for name in added)
    return Changed(changed, tuple(added))


def relabelled(
    now: Snapshot, dataset: lance.LanceDataset, keys: Sequence[str], rows: Mapping[str, Mapping[str, object]]
) -> Changed:
    """Rows of `pictures` with other values of the user's columns: the old rows go, the new ones are appended."""
    old = Table(now.root, "pictures", dataset).find("key", keys, dataset.schema.names, row_ids=True)
    changed = []
    for row in old.drop_columns(["_rowid"]).to_pylist():
        changed.append({**row, **rows[row["key"]]})
    try:
        table = pa.Table.from_pylist(changed, schema=dataset.schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
        raise StoreError(f"a label does not fit the type of its column: {error}") from error
    done = datasets.delete_rows(dataset, old["_rowid"].to_pylist())
    return done.then(datasets.append(done.dataset, sealed(table)))
