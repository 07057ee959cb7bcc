"""What a store says about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow.compute as pc

from chiasm.errors import StoreError
from chiasm.store.levels import MADE, made_of
from chiasm.store.local.tables import Snapshot, Table
from chiasm.store.rows import capture_of, user_columns

ROWS = 8192  # read at once


@dataclass(frozen=True)
class LevelStats:
    """One level of a space: how many pictures have it, its bytes, and how many rows came of each encoder and codec."""

    rows: int
    bytes: int
    encoders: Mapping[str, int]
    codecs: Mapping[str, int]


@dataclass(frozen=True)
class StoreStats:
    """Counts of a store, from its small columns only.

    sources: uris that mean a picture. pixels: sum of height x width. source_bytes: size of the files encoded. levels:
    space -> level -> LevelStats, of all that are declared. tables: hash -> rows that need it. sensors: of RAW files, in
    words. columns: the user's own, name -> type.
    """

    images: int
    sources: int
    failures: int
    pixels: int
    source_bytes: int
    levels: Mapping[str, Mapping[str, LevelStats]]
    tables: Mapping[str, int]
    sensors: Mapping[str, int]
    columns: Mapping[str, str]

    @property
    def bits_per_pixel(self) -> dict[str, dict[str, float]]:
        """Space -> level -> bits per pixel of all pictures; 0 for an empty store."""
        return {
            space: {name: 8 * one.bytes / self.pixels if self.pixels else 0.0 for name, one in levels.items()}
            for space, levels in self.levels.items()
        }


def stats(now: Snapshot) -> StoreStats:
    """Count everything; reads no stream."""
    tables: Counter[str] = Counter()
    levels = {
        space.name: {level.name: level_stats(now.level(space.name, level.name), tables) for level in space.levels}
        for space in now.commit.spaces.values()
    }
    table = now.table("pictures")
    table.check_damage()
    images = pixels = source_bytes = 0
    sensors: Counter[str] = Counter()
    for batch in table.batches(["height", "width", "source_bytes", "capture"], rows=ROWS):
        images += batch.num_rows
        pixels += sum(h * w for h, w in zip(batch["height"].to_pylist(), batch["width"].to_pylist(), strict=True))
        source_bytes += pc.sum(batch["source_bytes"]).as_py() or 0
        sensors.update(filter(None, (sensor_words(text) for text in filter(None, batch["capture"].to_pylist()))))
    names = user_columns(table.dataset.schema)
    return StoreStats(
        images,
        now.commit.rows["sources"],
        now.commit.rows["errors"],
        pixels,
        source_bytes,
        levels,
        dict(tables),
        dict(sensors),
        {name: str(table.dataset.schema.field(name).type) for name in names},
    )


def level_stats(table: Table | None, tables: Counter[str]) -> LevelStats:
    encoders: Counter[str] = Counter()
    codecs: Counter[str] = Counter()
    rows = size = 0
    if table:
        table.check_damage()
        for batch in table.batches([*MADE[1:], "bytes"], rows=ROWS):
            rows += batch.num_rows
            size += pc.sum(batch["bytes"]).as_py() or 0
            for row in batch.select(list(MADE[1:])).to_pylist():
                try:
                    encoder, codec = made_of(row)
                except StoreError:  # a damaged row is for verify to tell
                    continue
                encoders[encoder] += 1
                codecs[codec] += 1
                if row["tables"]:
                    tables[row["tables"]] += 1
    return LevelStats(rows, size, dict(encoders), dict(codecs))


def sensor_words(text: str) -> str:
    try:
        sensor = capture_of(text).sensor
    except StoreError:
        return ""
    return str(sensor) if sensor else ""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    rows: pictures that are sound with all their levels. bad: key -> reason. duplicates: keys that a table holds twice.
    lost: uri -> key of sources whose picture is gone. unreadable: table -> how many of its data files cannot be read,
    not even their keys. tables: hash -> reason. orphans: files that no kept commit uses (a killed writer leaves them;
    they are harmless). repaired: whether the bad were moved to the errors table.
    """

    rows: int
    bad: Mapping[str, str] = field(default_factory=dict)
    duplicates: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    orphans: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def sound(self) -> bool:
        """Whether everything that was committed can be read. Orphans do not count: nothing of worth is in them."""
        return not (self.bad or self.duplicates or self.lost or self.unreadable or self.tables)
