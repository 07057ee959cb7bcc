"""What a store says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StoreStats:
    """Counts of a store, from its small columns only.

    pixels: sum of height x width. level_bytes: compressed bytes per level. source_bytes: size of the files
    encoded. spaces, feature_ids, codec_ids, tables, sensors (in words, of RAW files): how many images each has.
    """

    images: int
    sources: int
    failures: int
    pixels: int
    source_bytes: int
    level_bytes: Mapping[str, int]
    spaces: Mapping[str, int]
    feature_ids: Mapping[str, int]
    codec_ids: Mapping[str, int]
    tables: Mapping[str, int]
    sensors: Mapping[str, int]

    @property
    def bits_per_pixel(self) -> dict[str, float]:
        """Bits per source pixel, level by level; 0 for an empty store."""
        return {
            level: 8 * size / self.pixels if self.pixels else 0.0 for level, size in self.level_bytes.items()
        }


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    rows: rows read and sound. bad: key -> reason. lost: uri -> key of sources whose image is gone.
    unreadable: Lance fragments of which not even the keys can be read. tables: hash -> reason. orphans: files
    that no kept commit uses (a killed writer leaves them; they are harmless). repaired: whether the bad were
    moved to the errors table.
    """

    rows: int
    bad: Mapping[str, str] = field(default_factory=dict)
    duplicates: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    unreadable: tuple[int, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    orphans: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def sound(self) -> bool:
        """Whether everything that was committed can be read. Orphans do not count: nothing of worth is in
        them.
        """
        return not (self.bad or self.duplicates or self.lost or self.unreadable or self.tables)
