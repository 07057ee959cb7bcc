"""One level of a space as a table of its own: its rows, and back to `Stored`.

A map's bytes are in `stream`; a vector's numbers are in `vector`, so that they can be searched. All facts of a row, the
CRC-32 of its bytes among them, are under `crc`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from chiasm.contracts import Coded, Level, Space, Stored, View
from chiasm.errors import ChiasmError, StoreError
from chiasm.store.names import LEVEL, SIDE, check_space, checked_id, checked_key, checked_number, checked_tables
from chiasm.store.rows import TIME, Row, checksum

ABOUT = b"chiasm"  # in the schema's metadata: space, grid, level, channels, stride
NUMBERS: dict[int, tuple[np.dtype[Any], pa.DataType]] = {
    2: (np.dtype("<f2"), pa.float16()),
    4: (np.dtype("<f4"), pa.float32()),
}  # by bytes of one
COLUMNS = (
    ("key", pa.string()),
    ("encoder", pa.string()),
    ("codec", pa.string()),
    ("tables", pa.string()),
    ("quality", pa.int32()),
    ("shape", pa.list_(pa.int32())),
    ("view", pa.list_(pa.float64())),  # height, width; scale y, x; offset y, x
    ("tile", pa.int32()),
    ("parent", pa.string()),
    ("base", pa.int64()),  # CRC-32 of the parent's bytes
    ("bytes", pa.int64()),
    ("stream_crc", pa.int64()),
)
FACTS = tuple(name for name, _ in COLUMNS)
READ = (*FACTS, "crc")  # what is read of a row beside its bytes
MADE = ("key", "encoder", "codec", "tables", "quality")


def folder_name(space: str, level: str) -> str:
    """A plain identifier for the table of a level; the real names are in the schema's metadata and the journal."""
    words = re.sub(r"[^a-z0-9]+", "_", f"{space} {level}".lower()).strip("_")[:60]
    return f"levels/{words}_{hashlib.sha256(json.dumps([space, level]).encode()).hexdigest()[:8]}"


def level_schema(space: Space, level: Level, data: bytes) -> pa.Schema:
    """The schema of a new table. data: of the first row, which says how many bytes a vector's number has."""
    facts = {"space": space.name, "grid": space.grid, "level": level.name}
    about = json.dumps({**facts, "channels": level.channels, "stride": level.stride})
    last = [pa.field("crc", pa.int64()), pa.field("added", TIME)]
    # the streams are entropy coded: a second compressor would only cost time
    stream = pa.field("stream", pa.large_binary(), metadata={"lance-encoding:compression": "none"})
    if level.kind == "vector":
        kind = NUMBERS[number_bytes(level, data)][1]
        stream = pa.field("vector", pa.list_(kind, level.channels))
    return pa.schema(
        [pa.field(name, kind) for name, kind in COLUMNS] + last + [stream], metadata={ABOUT: about.encode()}
    )


def number_bytes(level: Level, data: bytes) -> int:
    """2 or 4: the bytes of one number of a vector. Raises StoreError for another length."""
    size, rest = divmod(len(data), level.channels)
    if rest or size not in NUMBERS:
        raise StoreError(
            f"a vector {level.name!r} has {level.channels} numbers of float16 or float32, got {len(data)} bytes"
        )
    return size


def described(schema: pa.Schema) -> tuple[Space, Level]:
    """The level that a table holds, and its space with this level alone. Raises StoreError when it does not say."""
    try:
        about = json.loads((schema.metadata or {})[ABOUT])
        level = Level(about["level"], about["channels"], about["stride"])
        space = Space(about["space"], (level,), about["grid"])
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError("a table of a level does not say in its schema which level it holds") from error
    check_space(space)
    return space, level


def data_column(schema: pa.Schema) -> str:
    return "vector" if "vector" in schema.names else "stream"


def level_rows(rows: Sequence[tuple[str, Stored]], level: Level, schema: pa.Schema) -> pa.Table:
    """(key, level) to rows."""
    made = []
    for key, stored in rows:
        coded = stored.coded
        view = (*coded.view.size, *coded.view.scale, *coded.view.offset)
        made.append(
            {
                "key": checked_key(key),
                "encoder": checked_id(stored.encoder, "encoder"),
                "codec": checked_id(coded.codec, "codec"),
                "tables": checked_tables(coded.tables),
                "quality": coded.quality,
                "shape": list(coded.shape),
                "view": [float(number) for number in view],
                "tile": coded.tile,
                "parent": coded.parent,
                "base": coded.base,
                "bytes": len(coded.data),
                "stream_crc": coded.crc,
            }
        )
        made[-1]["crc"] = row_crc(made[-1])
        coded_of(made[-1], coded.data, level)  # what could not be read back is not stored
    facts = schema.remove(schema.get_field_index(data_column(schema)))
    now = datetime.now(UTC)
    table = pa.Table.from_pylist([{**row, "added": now} for row in made], schema=facts)
    return table.append_column(
        schema.field(data_column(schema)), data_array([s.coded.data for _, s in rows], level, schema)
    )


def data_array(data: Sequence[bytes], level: Level, schema: pa.Schema) -> pa.Array:
    if data_column(schema) == "stream":
        return pa.array(data, pa.large_binary())
    kind = schema.field("vector").type
    size = kind.value_type.bit_width // 8
    for one in data:
        if number_bytes(level, one) != size:
            raise StoreError(
                f"the store keeps {level.name!r} as {kind.value_type} and a vector came with numbers of "
                f"{len(one) // level.channels} bytes; store the level with one precision"
            )
    return pa.FixedSizeListArray.from_arrays(pa.array(np.frombuffer(b"".join(data), NUMBERS[size][0])), type=kind)


def data_of(column: pa.ChunkedArray | pa.Array) -> list[bytes]:
    """The bytes of each row of `stream` or `vector`."""
    if not pa.types.is_fixed_size_list(column.type):
        return [b"" if one is None else one for one in column.to_pylist()]
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    dtype = NUMBERS[column.type.value_type.bit_width // 8][0]
    found: list[bytes] = []
    for chunk in chunks:
        values = np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), dtype)
        found += [row.tobytes() for row in values.reshape(len(chunk), column.type.list_size)]
    return found


def row_crc(row: Row) -> int:
    return checksum([row[name] for name in FACTS])


def stored_of(row: Row, data: bytes, level: Level) -> Stored:
    """One row and its bytes to what was put. Raises StoreError when either is not what was stored, or is made up."""
    return Stored(checked_id(row["encoder"], "encoder"), coded_of(row, data, level))


def coded_of(row: Row, data: bytes, level: Level) -> Coded:
    key = checked_key(row["key"])
    try:
        if row["crc"] != row_crc(row):
            raise StoreError("its facts do not have the checksum that was stored")
        coded = Coded(
            checked_id(row["codec"], "codec"),
            checked_tables(row["tables"]),
            checked_number(row["quality"], "quality", 0, 1000),
            shape_of(row["shape"], level),
            view_of(row["view"]),
            data,
            checked_number(row["tile"], "tile", 0, SIDE),
            parent_of(row["parent"]),
            checked_number(row["base"], "base", 0, 2**32 - 1),
        )
        if row["bytes"] != len(data) or coded.crc != row["stream_crc"]:
            raise StoreError("its bytes are not those that were stored")
    except (ChiasmError, TypeError, ValueError, KeyError) as error:
        raise StoreError(f"{key[:12]}, level {level.name!r}: {error}; run verify with repair") from error
    return coded


def shape_of(values: object, level: Level) -> tuple[int, ...]:
    wanted = 3 if level.kind == "map" else 1
    if not isinstance(values, list) or len(values) != wanted or values[0] != level.channels:
        raise StoreError(f"the shape of a {level.kind} of {level.channels} channels reads {values!r}")
    return tuple(checked_number(value, "shape", 1, SIDE) for value in values)


def view_of(values: object) -> View:
    if not isinstance(values, list) or len(values) != 6 or not all(abs(float(x)) <= SIDE for x in values):
        raise StoreError(f"a view is six numbers, got {values!r}")
    height, width, *rest = map(float, values)
    if height < 1 or width < 1 or height % 1 or width % 1 or min(rest[:2]) <= 0:
        raise StoreError(f"a view has whole sides from 1 and scales above 0, got {values!r}")
    return View((int(height), int(width)), (rest[0], rest[1]), (rest[2], rest[3]))


def parent_of(text: object) -> str:
    if not isinstance(text, str) or (text and not LEVEL.fullmatch(text)):
        raise StoreError(f"the parent reads {str(text)[:70]!r}, which is no level")
    return text


def made_of(row: Mapping[str, object]) -> tuple[str, str]:
    """(encoder id, codec id) of a row read with MADE."""
    codec, tables = checked_id(row["codec"], "codec"), checked_tables(row["tables"])
    quality = checked_number(row["quality"], "quality", 0, 1000)
    nothing = Coded(codec, tables, quality, (), View((1, 1)), b"")
    return checked_id(row["encoder"], "encoder"), nothing.codec_id
