"""Adding what another store has and this one lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chiasm.contracts import Record
from chiasm.store.ledger import Ledger

if TYPE_CHECKING:
    from chiasm.store.lance_store import LanceStore

AT_ONCE = 512  # pictures of one commit
BYTES_AT_ONCE = 64 << 20


@dataclass(frozen=True)
class MergeReport:
    """What a merge added. images: new pictures. levels: levels of pictures, of new ones and of known ones. labelled:
    new pictures that came with labels. failures: uris that failed there and are not known here.
    """

    images: int
    levels: int
    labelled: int
    failures: int


def merge(store: LanceStore, other: LanceStore) -> MergeReport:
    """Add `other`'s pictures, levels, uris, labels, tables and failures; what is here stays as it is."""
    for space in other.spaces().values():
        store.declare(space)
    columns = other.columns()
    if columns:
        store.label(columns, {})
    images, levels, labelled = 0, 0, 0
    for batch in batches(other):
        new = merge_batch(store, other, batch)
        images, levels, labelled = images + new[0], levels + new[1], labelled + new[2]
    return MergeReport(images, levels, labelled, merge_failures(store, other))


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


def merge_batch(store: LanceStore, other: LanceStore, batch: Sequence[Record]) -> tuple[int, int, int]:
    """Pictures, levels and labelled pictures that were new."""
    if not batch:
        return 0, 0, 0
    keys = [record.key for record in batch]
    here = Ledger(store._now).here(keys)  # noqa: SLF001 - the same class
    known = {space: store.made(keys, space) for record in batch for space in record.spaces}
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
    return len(new), levels, sum(bool(record.columns) for record in new)


def merge_failures(store: LanceStore, other: LanceStore) -> int:
    """Failures of uris that this store knows nothing of."""
    told = other.failures()
    ledger = Ledger(store._now)  # noqa: SLF001
    uris = [one.uri for one in told]
    known = {*ledger.sources(uris), *ledger.faults(uris)} if uris else set()
    new = [one for one in told if one.uri not in known]
    store.put([], new)
    return len(new)
