"""Making and opening a store folder.

photos.lance/
  store.json                   the format: written once, last, so that a folder without it was never a store
  pictures/ sources/ errors/   Lance datasets, see rows.py
  levels/<name>/               one Lance dataset for each level of each space, made when it is first put
  commits/                     the journal, see journal.py
  tables/                      <hash>.bin, see codec_tables.py
  quarantine/                  whatever was ever moved aside
  writer.lock
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from chiasm.errors import StoreError
from chiasm.store.local import datasets
from chiasm.store.local.files import (
    guarded,
    listing,
    mark,
    read_whole,
    require_real,
    set_aside,
    sync_folder,
    write_durably,
)
from chiasm.store.local.journal import FIXED, Commit, numbers, write_commit
from chiasm.store.rows import ERRORS, PICTURES, SOURCES

Mode = Literal["r", "r+", "w"]
FORMAT = 2
LIMIT = 1 << 16  # bytes of store.json
FOLDERS = (*FIXED, "levels", "commits", "tables", "quarantine")
SCHEMAS = dict(zip(FIXED, (PICTURES, SOURCES, ERRORS), strict=True))


def check_store(root: Path) -> None:
    """Raise StoreError when there is no store here, one of another format, or one with links in it."""
    path = root / "store.json"
    require_real(path, folder=False)
    if not path.is_file():
        raise StoreError(
            f"{root}: there is no store here (no store.json); check the path, or encode into it to make one"
        )
    with guarded("reading store.json", root):
        version = json.loads(read_whole(path, LIMIT))["format"]
    if version == 1:
        raise StoreError(f"{root}: the store has format 1, which was never released; encode again into a new folder")
    if version != FORMAT:
        raise StoreError(f"{root}: the store has format {version} and this chiasm reads format {FORMAT}; update chiasm")
    check_folders(root)


def check_folders(root: Path) -> None:
    """Raise StoreError when a folder of the store, or of a table of it, is a link or no folder."""
    for name in FOLDERS:
        require_real(root / name, folder=True)
    for table in (*(root / name for name in FIXED), *(root / "levels").glob("*")):
        for folder in (table, *(table / part for part in datasets.PARTS)):
            require_real(folder, folder=True)


def check_free(root: Path) -> None:
    """Raise StoreError for a folder that a store cannot be made in; nothing is written."""
    with guarded("making the store", root):
        strange = {path.name for path in root.iterdir()} - {*FOLDERS, "writer.lock", "store.json.part", "store.json"}
    if strange:
        raise StoreError(f"{root}: not a store, and it holds {sorted(strange)[0]!r}; choose an empty or new folder")


def make_store(root: Path) -> None:
    """Make an empty store in a folder that the caller has locked. A creation that was killed is begun anew."""
    check_free(root)
    check_folders(root)
    if any(number > 1 for number in numbers(root)):
        raise StoreError(f"{root}: store.json is missing beside committed images; bring it back from a backup")
    with guarded("making the store", root):
        set_aside(root, [root / name for name in (*FIXED, "levels", "commits")], "unfinished-creation")
        for name in ("commits", "levels"):
            (root / name).mkdir()
        made = {name: datasets.create(root / name, schema).dataset for name, schema in SCHEMAS.items()}
        marks = tuple(mark(root, path) for name in FIXED for path in listing(root / name).values())
        versions = {name: dataset.version for name, dataset in made.items()}
        write_commit(root, Commit(1, versions, dict.fromkeys(FIXED, 0), marks=marks))
        sync_folder(root)
        write_durably(root / "store.json", json.dumps({"format": FORMAT}).encode())
        sync_folder(root.parent)
