"""Taking pictures, or a level of all of them, out of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chiasm.contracts import Space
from chiasm.errors import StoreError, nearest
from chiasm.store.local.commits import Change
from chiasm.store.local.journal import Commit
from chiasm.store.local.tables import Snapshot
from chiasm.store.names import quoted
from chiasm.store.writing import changing


def removal(now: Snapshot, keys: Sequence[str]) -> dict[str, Change]:
    """The changes that take these pictures out of every table."""
    changes = {}
    for name in (*now.commit.levels, "sources", "pictures"):
        old = now.table(name).find("key", keys, ["key"], row_ids=True)["_rowid"].to_pylist() if keys else []
        if old:
            changes[name] = changing(old, None)
    return changes


def without_level(now: Snapshot, space: str, level: str) -> tuple[Commit, int]:
    """The commit without one level, and the rows that it had.

    Raises StoreError for a level that is not known, or that another one is coded on top of.
    """
    commit = now.commit
    if space not in commit.spaces:
        raise StoreError(f"this store has no space {space!r}; {nearest(space, commit.spaces)}")
    known = commit.spaces[space]
    if level not in known.names:
        raise StoreError(f"this store has no level {level!r} of space {space!r}; {nearest(level, known.names)}")
    for other in known.names:
        table = now.level(space, other) if other != level else None
        if table and len(table.where(f"parent = {quoted(level)}", ["key"], limit=1)):
            raise StoreError(
                f"level {other!r} of {space!r} is coded on top of {level!r} and cannot be read without it; "
                f"remove {other!r} first"
            )
    rest = tuple(one for one in known.levels if one.name != level)
    spaces = {name: one for name, one in commit.spaces.items() if name != space or rest}
    if rest:
        spaces[space] = Space(space, rest, known.grid)
    folder = commit.table_of(space, level)
    left = replace(
        commit,
        spaces=spaces,
        versions={name: version for name, version in commit.versions.items() if name != folder},
        rows={name: rows for name, rows in commit.rows.items() if name != folder},
        levels={name: of for name, of in commit.levels.items() if name != folder},
    )
    return left, commit.rows.get(folder, 0) if folder else 0
