"""Where each key's row is, and reading rows: the images dataset seen by key."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lance

from chiasm.errors import StoreError
from chiasm.store.files import guarded
from chiasm.store.recovery import StoreWarning
from chiasm.store.rows import image_columns

Row = dict[str, object]


class ImageIndex:
    """key -> position and feature id. About 250 bytes of memory per image."""

    def __init__(self, root: Path, dataset: lance.LanceDataset) -> None:
        self.positions: dict[str, int] = {}
        self._features: dict[str, str] = {}
        self.duplicates: list[str] = []
        self.unreadable: list[int] = []  # fragments of which not even the keys can be read
        try:
            with guarded("reading the keys", root):
                self._add_all(0, dataset.scanner(columns=["key", "feature_id"], scan_in_order=True))
        except StoreError:
            self.positions, self._features, self.duplicates = {}, {}, []
            self._load_by_fragment(root, dataset)

    def _add_all(self, start: int, scanner: lance.LanceScanner) -> None:
        for batch in scanner.to_batches():
            self.add(start, batch["key"].to_pylist(), batch["feature_id"].to_pylist())
            start += batch.num_rows

    def _load_by_fragment(self, root: Path, dataset: lance.LanceDataset) -> None:
        """One damaged file must not hide the others: its rows are left out, loudly."""
        start = 0
        for fragment in dataset.get_fragments():
            try:
                with guarded("reading the keys", root):
                    self._add_all(start, fragment.scanner(columns=["key", "feature_id"]))
            except StoreError:
                self.unreadable.append(fragment.fragment_id)
            start += fragment.metadata.num_rows
        warnings.warn(
            f"{root}: {len(self.unreadable)} data files cannot be read, and their images are left out; "
            "run verify with repair, then encode again",
            StoreWarning,
            stacklevel=2,
        )

    def add(self, start: int, keys: Sequence[str], features: Sequence[str]) -> None:
        for offset, (key, feature) in enumerate(zip(keys, features, strict=True)):
            if key in self.positions:
                self.duplicates.append(key)
                continue
            self.positions[key] = start + offset
            self._features[key] = sys.intern(feature)

    def feature(self, key: str) -> str | None:
        return self._features.get(key)


def read_rows(
    dataset: lance.LanceDataset, root: Path, positions: Mapping[str, int], levels: Sequence[str]
) -> list[Row]:
    """The rows at these positions, in order, reading the facts and these levels only."""
    if not positions:
        return []
    with guarded(f"reading {len(positions)} images", root):
        rows: list[Row] = dataset.take(list(positions.values()), columns=image_columns(levels)).to_pylist()
    for row, key in zip(rows, positions, strict=True):
        if row["key"] != key:
            raise StoreError(
                f"{root}: the row of {key[:12]} holds {str(row['key'])[:12]!r}; run verify with repair"
            )
    return rows


def scan_rows(
    dataset: lance.LanceDataset, root: Path, levels: Sequence[str], batch_size: int
) -> Iterator[Row]:
    """Every row in the order of storing. Holds a few batches in memory, never the column."""
    scanner = dataset.scanner(
        columns=image_columns(levels),
        batch_size=batch_size,
        batch_readahead=2,
        fragment_readahead=2,
        scan_in_order=True,
    )
    with guarded("scanning", root):
        batches = iter(scanner.to_batches())
    while True:
        with guarded("scanning", root):
            batch = next(batches, None)
        if batch is None:
            return
        yield from batch.to_pylist()
