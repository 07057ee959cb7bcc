"""Adding what another store has and this one lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chiasm.contracts import Record, Stored
from chiasm.store.ledger import Ledger

if TYPE_CHECKING:
    from chiasm.store.lance_store import LanceStore

Made = Mapping[str, Mapping[str, tuple[str, str]]]  # key -> level -> encoder id, codec id
AT_ONCE = 512  # pictures of one commit
BYTES_AT_ONCE = 64 << 20


@dataclass(frozen=True)
class MergeReport:
    """What a merge added. images: new pictures. levels: levels of pictures, of new ones and of known ones. labelled:
    new pictures that came with labels. failures: uris that failed there and are not known here. left_out: levels that
    were coded on top of another level than the one of that name that is here, which could not be read.
    """

    images: int
    levels: int
    labelled: int
    failures: int
    left_out: int


def merge(store: LanceStore, other: LanceStore) -> MergeReport:
    """Add `other`'s pictures, levels, uris, labels, tables and failures; what is here stays as it is."""
    for space in other.spaces().values():
        store.declare(space)
    columns = other.columns()
    if columns:
        store.label(columns, {})
    counts = [0, 0, 0, 0]
    for batch in batches(other):
        counts = [sum(pair) for pair in zip(counts, merge_batch(store, other, batch), strict=True)]
    images, levels, labelled, left_out = counts
    return MergeReport(images, levels, labelled, merge_failures(store, other), left_out)


def batches(other: LanceStore) -> Iterator[list[Record]]:
    """All records, in the portions of one commit each."""
    batch: list[Record] = []
    held = 0
    for record in other.scan():
        batch.append(record)
        held += sum(len(one.coded.data) for stored in record.spaces.values() for one in stored.values())
        if len(batch) >= AT_ONCE or held >= BYTES_AT_ONCE:
            yield batch
            batch, held = [], 0
    yield batch


def merge_batch(store: LanceStore, other: LanceStore, batch: Sequence[Record]) -> tuple[int, int, int, int]:
    """Pictures, levels and labelled pictures that were new, and levels that were left out."""
    if not batch:
        return 0, 0, 0, 0
    keys = [record.key for record in batch]
    here = Ledger(store._now).here(keys)  # noqa: SLF001 - the same class
    known = {space: store.made(keys, space) for record in batch for space in record.spaces}
    fitting = [fitting_levels(store, record, known) for record in batch]
    left_out = sum(map(level_count, batch)) - sum(map(level_count, fitting))
    batch = fitting
    tables = {one.coded.tables for record in batch for stored in record.spaces.values() for one in stored.values()}
    for name in sorted(filter(None, tables)):
        store.put_table(name, other.table(name))
    levels = sum(
        level not in known[space].get(record.key, {})
        for record in batch
        for space, stored in record.spaces.items()
        for level in stored
    )
    places = Ledger(store._now).sources([uri for record in batch for uri in record.uris])  # noqa: SLF001
    fresh = [replace(r, uris=tuple(uri for uri in r.uris if uri not in places)) for r in batch]  # ours stay as they are
    store.put(fresh, stats=Ledger(other._now).stats(keys))  # noqa: SLF001
    new = [record for record in batch if record.key not in here]
    return len(new), levels, sum(bool(record.columns) for record in new), left_out


def level_count(record: Record) -> int:
    return sum(map(len, record.spaces.values()))


def fitting_levels(store: LanceStore, record: Record, known: Mapping[str, Made]) -> Record:
    """The record without new levels that were coded on top of another level than the one that is here.

    known: space -> key -> level -> what made it, of what is here.
    """
    spaces: dict[str, dict[str, Stored]] = {}
    for space, levels in record.spaces.items():
        here = known[space].get(record.key, {})
        above = [one.coded.parent for name, one in levels.items() if name not in here and one.coded.parent in here]
        ours = store.get(record.key, {space: above}).spaces.get(space, {}) if above else {}
        spaces[space] = {name: one for name, one in levels.items() if name in here or stands(one, levels, here, ours)}
    return replace(record, spaces=spaces)


def stands(
    one: Stored, levels: Mapping[str, Stored], here: Mapping[str, object], ours: Mapping[str, Stored]
) -> bool:
    """Whether a new level can be read here. levels: that come. here: that are there. ours: parents among those."""
    parent = one.coded.parent
    if parent in here:
        return ours[parent].coded.crc == one.coded.base
    return not parent or (parent in levels and stands(levels[parent], levels, here, ours))


def merge_failures(store: LanceStore, other: LanceStore) -> int:
    """Failures of uris that this store knows nothing of."""
    told = other.failures()
    ledger = Ledger(store._now)  # noqa: SLF001
    uris = [one.uri for one in told]
    known = {*ledger.sources(uris), *ledger.faults(uris)} if uris else set()
    new = [one for one in told if one.uri not in known]
    store.put([], new)
    return len(new)
