"""The store's behaviour without a disk: for tests, and for work that is thrown away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from chiasm.contracts import Failure, Record, Stat
from chiasm.errors import StoreError, nearest
from chiasm.store.ledger import Additions, Ledger, check_records, plan, resolve
from chiasm.store.reports import StoreStats
from chiasm.store.rows import known_levels
from chiasm.store.tables import check_table


class MemoryStore:
    """Records in a dict. The same rules and errors as LanceStore; nothing outlives the object."""

    def __init__(self, space: str, levels: Sequence[str]) -> None:
        self.space = space
        self.levels = tuple(levels)
        self._records: dict[str, Record] = {}
        self._tables: dict[str, bytes] = {}
        self._ledger = Ledger()
        self._commits = 1

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to free."""

    def put(
        self,
        records: Sequence[Record],
        failures: Sequence[Failure] = (),
        uris: Mapping[str, str] | None = None,
        stats: Mapping[str, Stat] | None = None,
    ) -> None:
        """As LanceStore.put."""
        check_records(records, self.space, self.levels, self._tables.__contains__)
        batch = plan(
            Additions(records, failures, uris or {}, stats or {}),
            self._records,
            self._ledger,
            self._commits + 1,
        )
        self._commits += bool(batch)
        self._records.update((record.key, record) for record in batch.records)
        self._ledger.add_sources(batch.sources)
        self._ledger.add_faults(batch.faults)

    def note_uris(self, uris: Mapping[str, str], stats: Mapping[str, Stat] | None = None) -> None:
        """As LanceStore.note_uris."""
        self.put((), (), uris, stats)

    def put_table(self, name: str, data: bytes) -> None:
        """As LanceStore.put_table."""
        check_table(name, data)
        self._tables[name] = data

    def table(self, name: str) -> bytes:
        """As LanceStore.table."""
        if name not in self._tables:
            raise StoreError(f"there are no tables {name!r}; {nearest(name, self._tables)}")
        return self._tables[name]

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def keys(self) -> list[str]:
        """As LanceStore.keys."""
        return list(self._records)

    def get(self, key: str, levels: Sequence[str] | None = None) -> Record:
        """As LanceStore.get."""
        return self.get_many([key], levels)[0]

    def get_many(self, keys: Sequence[str], levels: Sequence[str] | None = None) -> list[Record]:
        """As LanceStore.get_many."""
        wanted = known_levels(levels, self.levels)
        return [self._shown(resolve(key, self._records, self._ledger), wanted) for key in keys]

    def scan(self, levels: Sequence[str] | None = None, batch_size: int = 64) -> Iterator[Record]:
        """As LanceStore.scan."""
        wanted = known_levels(levels, self.levels)
        for key in list(self._records):
            yield self._shown(key, wanted)

    def done(self, stats: Mapping[str, Stat], feature_id: str) -> set[str]:
        """As LanceStore.done."""
        return self._ledger.done(stats, lambda key: self._records[key].feature_id == feature_id)

    def failed(self, stats: Mapping[str, Stat]) -> set[str]:
        """As LanceStore.failed."""
        return self._ledger.failed(stats)

    def failures(self) -> list[Failure]:
        """As LanceStore.failures."""
        return self._ledger.failures()

    def stats(self) -> StoreStats:
        """As LanceStore.stats."""
        records = list(self._records.values())
        packets = [record.packet for record in records]
        return StoreStats(
            images=len(records),
            sources=self._ledger.sources(),
            failures=len(self.failures()),
            pixels=sum(packet.size[0] * packet.size[1] for packet in packets),
            source_bytes=sum(record.source_bytes for record in records),
            level_bytes={
                name: sum(len(packet.streams.get(name, b"")) for packet in packets) for name in self.levels
            },
            spaces=dict(Counter(packet.space for packet in packets)),
            feature_ids=dict(Counter(record.feature_id for record in records)),
            codec_ids=dict(Counter(record.codec_id for record in records)),
            tables=dict(Counter(packet.tables for packet in packets)),
            sensors=dict(Counter(str(record.sensor) for record in records if record.sensor)),
        )

    def _shown(self, key: str, levels: Sequence[str]) -> Record:
        record = self._records[key]
        streams = {name: record.packet.streams[name] for name in levels if name in record.packet.streams}
        return replace(record, packet=replace(record.packet, streams=streams), uris=self._ledger.uris(key))
