"""Keeping a table in few files while it grows, so that commits and look-ups stay cheap.

    small fragments ──32 of one tier──► one fragment of the next tier ── ... ──► a closed one ──► indexed

The tail is what no index covers yet: it is scanned by a look-up, so it stays short. Fragments fall into tiers by rows
(powers of 32); when 32 of a tier stand at the end of the tail, they and whatever follows them become one. So a row is
rewritten once at the default cadence, and at most three times when every commit holds a single row. A fragment of
32,768 rows, or of 32 MiB, is closed: it is never merged again, and once the tail holds one with that many rows, or 16
of any, the tail is added to the index. Rows in an index never move (only `compact` moves them), so nothing has to be
remapped.
"""

from __future__ import annotations

from collections.abc import Sequence

import lance

from chiasm.store.local import datasets
from chiasm.store.local.datasets import Changed

FAN = 32  # fragments of one tier that become one
CLOSED_ROWS = FAN**3
CLOSED_BYTES = 32 << 20
CLOSED = 3  # the tier of closed fragments
WAITING = 16  # closed fragments that the tail may hold
SEGMENTS = 4  # parts of an index; beyond, they become one
BATCH_BYTES = 8 << 20  # about what is in memory of a fragment while it is rewritten


def size(fragment: lance.LanceFragment) -> int:
    return sum(file.file_size_bytes or 0 for file in fragment.metadata.files)


def tier(fragment: lance.LanceFragment) -> int:
    """0: below 32 rows, 1: below 1,024, 2: below 32,768, 3: closed."""
    rows = fragment.metadata.physical_rows
    if rows >= CLOSED_ROWS or size(fragment) >= CLOSED_BYTES:
        return CLOSED
    return next(number for number in range(CLOSED) if rows < FAN ** (number + 1))


def tail_of(dataset: lance.LanceDataset) -> list[lance.LanceFragment]:
    """The fragments that no index covers, in order."""
    indexed = datasets.indexed_fragments(dataset)
    return [fragment for fragment in dataset.get_fragments() if fragment.fragment_id not in indexed]


def to_merge(tail: Sequence[lance.LanceFragment]) -> list[lance.LanceFragment]:
    """The end of the tail that is to become one fragment, or nothing."""
    tiers = [tier(fragment) for fragment in tail]
    for wanted in range(CLOSED):
        start = len(tiers)
        while start and tiers[start - 1] <= wanted:
            start -= 1
        if tiers[start:].count(wanted) >= FAN:
            return list(tail[start:])
    return []


def is_due(tail: Sequence[lance.LanceFragment]) -> bool:
    """Whether the tail is to be indexed."""
    closed = [fragment for fragment in tail if tier(fragment) == CLOSED]
    return len(closed) >= WAITING or any(fragment.metadata.physical_rows >= CLOSED_ROWS for fragment in closed)


def untidy(dataset: lance.LanceDataset) -> bool:
    """Whether `tidy` would change anything."""
    tail = tail_of(dataset)
    return bool(to_merge(tail)) or is_due(tail)


def tidy(dataset: lance.LanceDataset, keys: Sequence[str]) -> Changed:
    """The same rows in fewer fragments, and the index extended when it is due; unchanged in most calls.

    keys: the columns that are indexed.
    """
    changed = Changed(dataset)
    tail = tail_of(dataset)
    if fragments := to_merge(tail):
        rows = sum(fragment.metadata.physical_rows for fragment in fragments)
        batch = max(1, min(65_536, BATCH_BYTES * rows // max(1, sum(map(size, fragments)))))
        changed = datasets.rewrite(dataset, fragments, batch)
        tail = tail_of(changed.dataset)
    if is_due(tail):
        changed = changed.then(indexed(changed.dataset, keys))
    return changed


def indexed(dataset: lance.LanceDataset, keys: Sequence[str]) -> Changed:
    """Everything indexed, in at most SEGMENTS parts an index."""
    parts = max((len(index.segments) for index in dataset.describe_indices()), default=0)
    return datasets.extend_indices(dataset, keys, parts if parts >= SEGMENTS else 0)


def compacted(dataset: lance.LanceDataset, keys: Sequence[str], rows_per_fragment: int) -> Changed:
    """The same rows in few large fragments without deleted rows, all of them indexed."""
    before = datasets.used_files(dataset)
    changed = datasets.another(dataset)
    changed.optimize.compact_files(target_rows_per_fragment=rows_per_fragment, batch_size=64, num_threads=1)
    parts = max((len(index.segments) for index in changed.describe_indices()), default=0)
    if changed.count_rows() and (tail_of(changed) or parts > 1):
        changed = datasets.extend_indices(changed, keys, parts).dataset
    after = datasets.used_files(changed)
    return Changed(changed, tuple(sorted(after - before)), tuple(sorted(before - after)))
