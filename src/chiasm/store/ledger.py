"""What is known about each uri and key, in memory: the rules of "done", "failed" and "the same bytes again".

Both stores use these rules, so they cannot differ. About 400 bytes of memory per source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chiasm.contracts import Failure, Record, Stat
from chiasm.errors import StoreError, nearest
from chiasm.store.rows import UNKNOWN, Fault, Source

KEY = re.compile(r"[0-9a-f]{64}")
PREFIX = re.compile(r"[0-9a-f]{6,63}")


class Ledger:
    """The newest word on each uri. Sources and faults may be added in any order: their commit numbers
    decide.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Source]] = {}  # uri -> key -> newest source
        self._uris: dict[str, dict[str, None]] = {}  # key -> its uris, in the order in which they came
        self._faults: dict[str, Fault] = {}  # uri -> newest fault

    def add_sources(self, sources: Iterable[Source]) -> None:
        for source in sources:
            seen = self._seen.setdefault(source.uri, {})
            known = seen.get(source.key)
            if known is None or known.commit <= source.commit:
                seen.pop(source.key, None)
                seen[source.key] = source
            if any(other.commit > source.commit for other in seen.values()):  # the newest key comes last
                self._seen[source.uri] = dict(sorted(seen.items(), key=lambda item: item[1].commit))
            self._uris.setdefault(source.key, {})[source.uri] = None

    def add_faults(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            known = self._faults.get(fault.uri)
            if known is None or known.commit <= fault.commit:
                self._faults[fault.uri] = fault

    def uris(self, key: str) -> tuple[str, ...]:
        """Every uri at which these bytes were seen."""
        return tuple(self._uris.get(key, ()))

    def all_uris(self) -> Iterable[str]:
        return self._seen.keys()

    def sources(self) -> int:
        """How many uris are known."""
        return len(self._seen)

    def lost(self, keys: Container[str]) -> dict[str, str]:
        """uri -> key of the sources whose newest image is not among `keys` and that are not in the errors
        either.
        """
        newest = {uri: self.keys_of(uri)[0] for uri in self._seen}
        return {uri: key for uri, key in newest.items() if key not in keys and self.fault(uri) is None}

    def keys_of(self, uri: str) -> list[str]:
        """The keys stored for a uri, newest first."""
        return list(reversed(self._seen.get(uri, {})))

    def fault(self, uri: str) -> Fault | None:
        """The uri's failure, unless a success came in the same commit or later."""
        fault = self._faults.get(uri)
        if fault and any(source.commit >= fault.commit for source in self._seen.get(uri, {}).values()):
            return None
        return fault

    def failures(self) -> list[Failure]:
        """The failures that stand, by uri."""
        standing = [fault for uri in sorted(self._faults) if (fault := self.fault(uri))]
        return [Failure(fault.uri, fault.reason, fault.message) for fault in standing]

    def done(self, stats: Mapping[str, Stat], wanted: Callable[[str], bool]) -> set[str]:
        """The uris stored from a file of this very size and mtime, under a key that is `wanted`."""
        done = set()
        for uri, stat in stats.items():
            sources = self._seen.get(uri, {}).values()
            if stat != UNKNOWN and any(source.stat == stat and wanted(source.key) for source in sources):
                done.add(uri)
        return done

    def failed(self, stats: Mapping[str, Stat]) -> set[str]:
        """The uris whose standing failure was with a file of this very size and mtime."""
        standing = ((uri, stat, self.fault(uri)) for uri, stat in stats.items())
        return {uri for uri, stat, fault in standing if fault and stat == fault.stat and stat != UNKNOWN}

    def is_news(self, source: Source) -> bool:
        """Whether a source says something new: a place, a stat, a return to old bytes, or a success after a
        failure.
        """
        known = self._seen.get(source.uri, {}).get(source.key)
        if known is None or self.keys_of(source.uri)[0] != source.key or self.fault(source.uri):
            return True
        return source.stat not in (known.stat, UNKNOWN)


@dataclass(frozen=True)
class Batch:
    """What one put adds: records, sources and faults that the store does not have yet."""

    records: list[Record] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.sources or self.faults)


@dataclass(frozen=True)
class Additions:
    """The arguments of one put."""

    records: Sequence[Record]
    failures: Sequence[Failure]
    uris: Mapping[str, str]
    stats: Mapping[str, Stat]


def plan(added: Additions, keys: Container[str], ledger: Ledger, commit: int) -> Batch:
    """Keep what is new.

    Raises StoreError for a further uri of a key that is neither stored nor in this batch.
    """
    fresh: dict[str, Record] = {}
    places: list[tuple[str, str]] = []
    for record in added.records:
        if record.key not in keys:
            fresh.setdefault(record.key, record)
        places += [(uri, record.key) for uri in record.uris]
    for uri, key in added.uris.items():
        if key not in keys and key not in fresh:
            raise StoreError(
                f"{uri!r} cannot be noted for key {key[:12]!r}, which is not stored; put its record first"
            )
        places.append((uri, key))
    sources = [Source(uri, key, added.stats.get(uri, UNKNOWN), commit) for uri, key in dict.fromkeys(places)]
    faults = {
        one.uri: Fault(one.uri, one.reason, one.message, added.stats.get(one.uri, UNKNOWN), commit)
        for one in added.failures
    }
    return Batch(
        list(fresh.values()),
        [source for source in sources if ledger.is_news(source)],
        [fault for fault in faults.values() if not same_fault(ledger.fault(fault.uri), fault)],
    )


def same_fault(known: Fault | None, new: Fault) -> bool:
    return known is not None and known[:4] == new[:4]


def check_records(
    records: Sequence[Record], space: str, levels: Sequence[str], has_table: Callable[[str], bool]
) -> None:
    """Raise StoreError for a record that does not belong in a store of this space, these levels and these
    tables.
    """
    for record in records:
        packet = record.packet
        if not KEY.fullmatch(record.key):
            raise StoreError(f"a key is 64 lower-case hex digits, got {record.key!r}")
        if packet.space != space:
            raise StoreError(
                f"the store holds space {space!r} and the record {record.key[:12]} is of {packet.space!r}; "
                "use a store of its own for each space"
            )
        for level in packet.streams:
            if level not in levels:
                raise StoreError(
                    f"record {record.key[:12]} has a level {level!r} that the store was not made for; "
                    f"{nearest(level, levels)}"
                )
        if packet.tables and not has_table(packet.tables):
            raise StoreError(
                f"record {record.key[:12]} needs the tables {packet.tables[:12]!r}, which the store does "
                "not hold; call put_table first"
            )


def resolve(name: str, keys: Mapping[str, object], ledger: Ledger) -> str:
    """The one key meant by a key, a prefix of at least 6 hex digits, a uri, or the end of a path.

    Raises StoreError that names the nearest, or the candidates when there are several.
    """
    if name in keys:
        return name
    for key in ledger.keys_of(name):
        if key in keys:
            return key
    found = {key for key in keys if key.startswith(name)} if PREFIX.fullmatch(name) else set()
    if not found and name:
        ends = [uri for uri in ledger.all_uris() if uri.endswith("/" + name)]
        found = {key for uri in ends for key in ledger.keys_of(uri)[:1] if key in keys}
    if len(found) == 1:
        return found.pop()
    if found:
        shown = ", ".join(sorted(key[: max(12, len(name) + 2)] for key in found)[:4])
        raise StoreError(f"{name!r} means {len(found)} images ({shown}); give more of the key or path")
    raise StoreError(f"the store has no image {name!r}; {closest(name, keys, ledger)}")


def closest(name: str, keys: Mapping[str, object], ledger: Ledger) -> str:
    """The nearest key or uri, or how many images there are. Looks only at likely names: a store can hold
    millions.
    """
    if not keys:
        return "the store is empty"
    last = name.rsplit("/", 1)[-1]
    likely = [key for key in keys if key[:4] == name[:4]]
    for uri in ledger.all_uris():
        if last and uri.rsplit("/", 1)[-1][:2].lower() == last[:2].lower():
            likely.append(uri)
            if len(likely) >= 1000:
                break
    hint = nearest(name, likely) if likely else ""
    return (
        hint
        if hint.startswith("did you mean")
        else f"there are {len(keys)} images, for example {next(iter(keys))[:12]}"
    )
