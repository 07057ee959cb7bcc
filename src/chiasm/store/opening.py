"""Making and opening a store folder.

photos.lance/
  store.json        format, space, levels: written once, last, so that a folder without it was never a store
  images.lance/ sources.lance/ errors.lance/     Lance datasets, see rows.py
  commits/          the journal, see journal.py
  tables/           <hash>.bin, see tables.py
  quarantine/       whatever was ever moved aside
  writer.lock
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from chiasm.errors import StoreError
from chiasm.store import datasets
from chiasm.store.files import guarded, listing, mark, set_aside, sync_folder, write_durably
from chiasm.store.journal import Commit, numbers, write_commit
from chiasm.store.rows import ERRORS, SOURCES, images_schema

Mode = Literal["r", "w"]
FORMAT = 1
NAMES = ("images.lance", "sources.lance", "errors.lance")


@dataclass(frozen=True)
class Identity:
    """What a store is for, for ever: its space and the levels that it has columns for."""

    space: str
    levels: tuple[str, ...]


def schemas(levels: Sequence[str]) -> dict[str, pa.Schema]:
    return dict(zip(NAMES, (images_schema(levels), SOURCES, ERRORS), strict=True))


def read_identity(root: Path) -> Identity:
    """Raises StoreError when there is no store here, or one of a newer format."""
    path = root / "store.json"
    if not path.is_file():
        raise StoreError(
            f"{root}: there is no store here (no store.json); check the path, or encode into it to make one"
        )
    with guarded("reading store.json", root):
        facts = json.loads(path.read_bytes())
        version, space, levels = facts["format"], facts["space"], tuple(facts["levels"])
    if version != FORMAT:
        raise StoreError(
            f"{root}: the store has format {version} and this chiasm reads format {FORMAT}; update chiasm"
        )
    return Identity(space, levels)


def check_identity(root: Path, found: Identity, space: str | None, levels: Sequence[str] | None) -> None:
    """Raise StoreError when an existing store is not of the space, or lacks one of the levels, that are
    wanted.
    """
    if space is not None and space != found.space:
        raise StoreError(
            f"{root}: the store holds space {found.space!r}, not {space!r}; use another store for that space"
        )
    missing = [level for level in levels or () if level not in found.levels]
    if missing:
        raise StoreError(
            f"{root}: the store has columns for {', '.join(found.levels)} and not for {', '.join(missing)}; "
            "levels are fixed when a store is made, so make a new one"
        )


def make_store(root: Path, identity: Identity) -> None:
    """Make an empty store in a folder that the caller has locked.

    A creation that was killed is begun anew.
    """
    check_names(identity)
    strange = {path.name for path in root.iterdir()} - {
        *NAMES,
        "commits",
        "quarantine",
        "writer.lock",
        "store.json.part",
    }
    if strange:
        raise StoreError(
            f"{root}: not a store, and it holds {sorted(strange)[0]!r}; choose an empty or new folder"
        )
    if any(number > 1 for number in numbers(root)):
        raise StoreError(
            f"{root}: store.json is missing beside committed images; bring it back from a backup"
        )
    with guarded("making the store", root):
        set_aside(root, [root / name for name in (*NAMES, "commits")], "unfinished-creation")
        (root / "commits").mkdir()
        made = {
            name: datasets.create(root / name, schema) for name, schema in schemas(identity.levels).items()
        }
        marks = tuple(mark(root, path) for name in NAMES for path in listing(root / name).values())
        versions = {name: dataset.version for name, dataset in made.items()}
        write_commit(root, Commit(1, versions, dict.fromkeys(NAMES, 0), marks))
        sync_folder(root)
        write_durably(root / "store.json", json.dumps({"format": FORMAT, **asdict(identity)}).encode())
        sync_folder(root.parent)


def check_names(identity: Identity) -> None:
    """Raise StoreError for a space or level name that cannot be a column or is missing."""
    if not identity.space or not identity.levels:
        raise StoreError("a new store needs its space and at least one level; pass space= and levels=")
    for level in identity.levels:
        if not level.isidentifier() or identity.levels.count(level) > 1:
            raise StoreError(f"level {level!r} cannot be a column; use letters, digits and _, each name once")
