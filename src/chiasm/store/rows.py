"""Pictures, sources and failures as rows of their tables, and back; every fact of a row is under a checksum."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa

from chiasm.contracts import Capture, Record, Sensor, Stat
from chiasm.errors import StoreError
from chiasm.store.names import SIDE, checked_id, checked_key, checked_number, checked_uri

UNKNOWN: Stat = (-1, -1)  # size and mtime of a source that nobody looked up: equal to no file's
TIME = pa.timestamp("us", tz="UTC")
Row = Mapping[str, object]
CAPTURE_LIMIT = 1 << 16  # characters of the facts of capture


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


PICTURES = pa.schema(
    [
        ("key", pa.string()),
        ("digest", pa.string()),
        ("part", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("source_bytes", pa.int64()),
        ("capture", pa.string()),  # JSON; empty where nothing is known
        ("crc", pa.int64()),  # CRC-32 of the facts before, and of the user's columns
        ("added", TIME),
    ]
)
FACTS = tuple(PICTURES.names[:-2])
SOURCES = pa.schema(
    [
        ("uri", pa.string()),
        ("key", pa.string()),
        ("name", pa.string()),  # the last part of the uri's path
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
SOURCE_COLUMNS = ("uri", "key", "size", "mtime_ns", "commit")
INDEXED = {"pictures": ("key",), "sources": ("uri", "key", "name"), "errors": ("uri",)}


def checksum(values: Sequence[object]) -> int:
    """CRC-32 of facts, in their order."""
    return zlib.crc32(json.dumps(values, default=str).encode("utf-8", "surrogatepass"))


def picture_crc(row: Row, columns: Sequence[str]) -> int:
    """Of the facts and, by name, of those columns of the user that have a value."""
    own = [(name, row[name]) for name in sorted(columns) if row.get(name) is not None]
    return checksum([*(row[name] for name in FACTS), own])


def picture_rows(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    """Records to rows of `pictures`. schema: with the user's columns."""
    now = datetime.now(UTC)
    own = user_columns(schema)
    rows = []
    for record in records:
        row: dict[str, object] = {
            "key": checked_key(record.key),
            "digest": checked_key(record.digest),
            "part": checked_id(record.part, "part", empty=True),
            "height": checked_number(record.size[0], "height", 1, SIDE),
            "width": checked_number(record.size[1], "width", 1, SIDE),
            "source_bytes": checked_number(record.source_bytes, "source_bytes"),
            "capture": capture_text(record.capture),
            "added": now,
        }
        for name in record.columns:
            if name not in own:
                raise StoreError(f"record {record.key[:12]} has a column {name!r}; call label to add a column first")
            row[name] = record.columns[name]
        rows.append(row)
    try:
        return sealed(pa.Table.from_pylist(rows, schema=schema))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise StoreError(
            f"a record has a value that does not fit its column: {error}; mend it and put again"
        ) from error


def sealed(rows: pa.Table) -> pa.Table:
    """Rows of `pictures` with their checksums, of the values as they are stored."""
    own = user_columns(rows.schema)
    crcs = pa.array([picture_crc(row, own) for row in rows.to_pylist()], pa.int64())
    return rows.set_column(rows.schema.get_field_index("crc"), rows.schema.field("crc"), crcs)


def user_columns(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name not in PICTURES.names]


def picture_columns(schema: pa.Schema) -> list[str]:
    """The columns to read for a record."""
    return [name for name in schema.names if name != "added"]


@dataclass(frozen=True)
class Picture:
    """The facts of one picture, read and checked."""

    key: str
    digest: str
    part: str
    size: tuple[int, int]
    source_bytes: int
    capture: Capture
    columns: Mapping[str, object]


def picture_of(row: Row, own: Sequence[str]) -> Picture:
    """One row of `pictures`. own: the user's columns. Raises StoreError for a row that is damaged or made up."""
    key = checked_key(row["key"])
    if row["crc"] != picture_crc(row, own):
        raise StoreError(f"the facts of {key[:12]} do not have the checksum that was stored; run verify with repair")
    height, width = (checked_number(row[name], f"{key[:12]}: {name}", 1, SIDE) for name in ("height", "width"))
    return Picture(
        key,
        checked_key(row["digest"]),
        checked_id(row["part"], "part", empty=True),
        (height, width),
        checked_number(row["source_bytes"], f"{key[:12]}: source_bytes"),
        capture_of(row["capture"]),
        {name: row[name] for name in own if row[name] is not None},
    )


def capture_text(capture: Capture) -> str:
    """The facts of capture as JSON, "" when nothing is known. Raises StoreError when they cannot be read back."""
    if capture == Capture():
        return ""
    text = json.dumps(asdict(capture))
    capture_of(text)
    return text


def capture_of(text: object) -> Capture:
    """The inverse of the column `capture`. Raises StoreError."""
    if text == "":
        return Capture()
    try:
        if not isinstance(text, str) or len(text) > CAPTURE_LIMIT:
            raise ValueError("too long")
        facts = json.loads(text)
        sensor = facts.pop("sensor")
        found = Capture(**facts, sensor=None if sensor is None else sensor_of(sensor))
        checked_id(found.time, "time of capture", empty=True)
        checked_id(found.camera, "camera", empty=True)
        if not isinstance(found.focal_35mm, int | float) or not 0 <= found.focal_35mm < 1e6:
            raise ValueError("focal length")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"the facts of capture read {str(text)[:70]!r}, which are none") from error
    return found


def sensor_of(facts: dict[str, object]) -> Sensor:
    held = dict(facts)
    held["gains"], held["black"] = numbers(held["gains"], 3), numbers(held["black"], 4)
    rows = held["matrix"]
    if not isinstance(rows, list) or len(rows) != 3:
        raise ValueError("the matrix has three rows")
    held["matrix"] = tuple(numbers(row, 3) for row in rows)
    for name in ("shot", "read", "iso", "white"):
        numbers([held[name]], 1)
    for name in ("camera", "pattern"):
        checked_id(held[name], name, empty=True)
    return Sensor(**held)  # type: ignore[arg-type]


def numbers(values: object, count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count or not all(type(x) in (int, float) for x in values):
        raise ValueError(f"{count} numbers are wanted")
    return tuple(values)


def last_part(uri: str) -> str:
    """The name of a file: what stands after the last slash."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def source_table(sources: Sequence[Source]) -> pa.Table:
    rows = [(checked_uri(one.uri), checked_key(one.key), last_part(one.uri), *one.stat, one.commit) for one in sources]
    return pa.Table.from_pylist([dict(zip(SOURCES.names, row, strict=True)) for row in rows], schema=SOURCES)


def sources_of(table: pa.Table | pa.RecordBatch) -> Iterator[Source]:
    """Rows, read with SOURCE_COLUMNS, to sources; one that is damaged or made up is left out."""
    columns = [table[name].to_pylist() for name in SOURCE_COLUMNS]
    for uri, key, size, mtime_ns, commit in zip(*columns, strict=True):
        try:
            yield Source(checked_uri(uri), checked_key(key), (size, mtime_ns), commit)
        except StoreError:
            continue


def fault_table(faults: Sequence[Fault]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [(checked_uri(one.uri), *one[1:3], *one.stat, one.commit, now) for one in faults]
    return pa.Table.from_pylist([dict(zip(ERRORS.names, row, strict=True)) for row in rows], schema=ERRORS)


def faults_of(table: pa.Table | pa.RecordBatch) -> Iterator[Fault]:
    columns = [table[name].to_pylist() for name in ERRORS.names[:-1]]
    for uri, reason, message, size, mtime_ns, commit in zip(*columns, strict=True):
        try:
            yield Fault(checked_uri(uri), str(reason), str(message), (size, mtime_ns), commit)
        except StoreError:
            continue
