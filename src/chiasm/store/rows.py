"""Records, sources and failures as rows of the three datasets, and back.

images: one row per image; its streams are one binary column per level, so that a level is read on its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa

from chiasm.contracts import Packet, Record, Sensor, Stat
from chiasm.errors import StoreError, nearest

UNKNOWN: Stat = (-1, -1)  # size and mtime of a source that nobody looked up: equal to no file's
TIME = pa.timestamp("us", tz="UTC")


class Source(NamedTuple):
    """These bytes were seen here: `key` at `uri`, then with this size in bytes and mtime in ns."""

    uri: str
    key: str
    stat: Stat
    commit: int


class Fault(NamedTuple):
    """This uri could not be stored: one word why, the sentence, and the file's size and mtime at the time."""

    uri: str
    reason: str
    message: str
    stat: Stat
    commit: int


FACTS = (
    ("key", pa.string()),
    ("digest", pa.string()),
    ("space", pa.string()),
    ("codec", pa.string()),
    ("quality", pa.int32()),
    ("tables", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("tile", pa.int32()),
    ("feature_id", pa.string()),
    ("codec_id", pa.string()),
    ("source_bytes", pa.int64()),
    ("sensor", pa.string()),  # JSON; null for photographs
    ("added", TIME),
)
SOURCES = pa.schema(
    [
        ("uri", pa.string()),
        ("key", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("commit", pa.int64()),
    ]
)
ERRORS = pa.schema(
    [
        ("uri", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("commit", pa.int64()),
        ("added", TIME),
    ]
)


def level_column(level: str) -> str:
    return f"level_{level}"


def bytes_column(level: str) -> str:
    return f"bytes_{level}"


def images_schema(levels: Sequence[str]) -> pa.Schema:
    """The facts, the length of each level's stream, and the streams.

    A level not stored for an image is null.
    """
    lengths = [pa.field(bytes_column(level), pa.int64()) for level in levels]
    # the streams are entropy coded: a second compressor would only cost time
    plain = {"lance-encoding:compression": "none"}
    streams = [pa.field(level_column(level), pa.large_binary(), metadata=plain) for level in levels]
    return pa.schema([pa.field(name, kind) for name, kind in FACTS] + lengths + streams)


def known_levels(wanted: Sequence[str] | None, levels: Sequence[str]) -> list[str]:
    """The levels to read: all when None. Raises StoreError for one that this store has no column for."""
    if wanted is None:
        return list(levels)
    for level in wanted:
        if level not in levels:
            raise StoreError(f"this store has no level {level!r}; {nearest(level, levels)}")
    return list(dict.fromkeys(wanted))


def image_columns(levels: Sequence[str]) -> list[str]:
    """The columns to read for a record with these levels and no other bytes."""
    return [name for name, _ in FACTS if name != "added"] + [level_column(level) for level in levels]


def image_table(records: Sequence[Record], levels: Sequence[str]) -> pa.Table:
    """Records to rows."""
    now = datetime.now(UTC)
    rows = []
    for record in records:
        packet = record.packet
        row: dict[str, object] = {
            "key": record.key,
            "digest": record.digest,
            "space": packet.space,
            "codec": packet.codec,
            "quality": packet.quality,
            "tables": packet.tables,
            "height": packet.size[0],
            "width": packet.size[1],
            "tile": packet.tile,
            "feature_id": record.feature_id,
            "codec_id": record.codec_id,
            "source_bytes": record.source_bytes,
            "sensor": json.dumps(asdict(record.sensor)) if record.sensor else None,
            "added": now,
        }
        for level, stream in packet.streams.items():
            row[bytes_column(level)] = len(stream)
            row[level_column(level)] = stream
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=images_schema(levels))


def record_of(row: dict[str, object], levels: Sequence[str], uris: tuple[str, ...]) -> Record:
    """One row, as read with `image_columns(levels)`, to a record that holds those of the levels that are
    stored.
    """
    streams = {level: row[level_column(level)] for level in levels if row[level_column(level)] is not None}
    facts = {name: row[name] for name in ("space", "codec", "quality", "tables", "tile")}
    packet = Packet(size=(row["height"], row["width"]), streams=streams, **facts)  # type: ignore[arg-type]
    names = ("key", "digest", "feature_id", "codec_id", "source_bytes")
    sensor = sensor_of(str(row["sensor"])) if row["sensor"] else None
    return Record(packet=packet, uris=uris, sensor=sensor, **{name: row[name] for name in names})  # type: ignore[arg-type]


def sensor_of(text: str) -> Sensor:
    """The inverse of the column `sensor`."""
    held = json.loads(text)
    for name in ("gains", "black"):
        held[name] = tuple(held[name])
    held["matrix"] = tuple(map(tuple, held["matrix"]))
    return Sensor(**held)


def source_table(sources: Sequence[Source]) -> pa.Table:
    rows = [(*entry[:2], *entry.stat, entry.commit) for entry in sources]
    return pa.Table.from_pylist([dict(zip(SOURCES.names, row, strict=True)) for row in rows], schema=SOURCES)


def sources_of(table: pa.Table) -> Iterator[Source]:
    columns = [table[name].to_pylist() for name in SOURCES.names]
    for uri, key, size, mtime_ns, commit in zip(*columns, strict=True):
        yield Source(uri, key, (size, mtime_ns), commit)


def fault_table(faults: Sequence[Fault]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [(*entry[:3], *entry.stat, entry.commit, now) for entry in faults]
    return pa.Table.from_pylist([dict(zip(ERRORS.names, row, strict=True)) for row in rows], schema=ERRORS)


def faults_of(table: pa.Table) -> Iterator[Fault]:
    columns = [table[name].to_pylist() for name in ERRORS.names[:-1]]
    for uri, reason, message, size, mtime_ns, commit in zip(*columns, strict=True):
        yield Fault(uri, reason, message, (size, mtime_ns), commit)
