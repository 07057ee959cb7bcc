"""Stored levels to features: which levels a reader needs, the codecs that made them, and no byte of any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chiasm import models
from chiasm.contracts import Codec, Coded, Features, Packet, Record, Size, Space, Stored, View
from chiasm.errors import ChiasmError, PacketError, ShapeError, StoreError, nearest
from chiasm.flow.tiles import PacketReader
from chiasm.store import LanceStore


@dataclass(frozen=True)
class Reading:
    """Features of one picture, what of it the encoder saw (one view per level), and the picture's height and width."""

    features: Features
    views: Mapping[str, View]
    size: Size


@dataclass
class Reader:
    """Reads one store, of any spaces. Codec tables come from the package where it ships them, else from the store."""

    store: LanceStore
    _codecs: dict[tuple[str, str], Codec] = field(default_factory=dict, repr=False)
    _parents: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)  # as last seen

    def space(self, name: str | None = None) -> Space:
        """A space of the store; None: the only one, or ns-1 among several. Raises StoreError naming the nearest."""
        spaces = self.store.spaces()
        if name is None:
            name = next(iter(spaces)) if len(spaces) == 1 else "ns-1"
            if name not in spaces:
                told = (
                    f"holds spaces {', '.join(spaces)}; name one with --space" if spaces else "is empty; encode into it"
                )
                raise StoreError(f"{self.store.path} {told}")
        if name not in spaces:
            raise StoreError(f"{self.store.path} holds no space {name!r}; {nearest(name, spaces)}")
        return spaces[name]

    def packet(self, key: str, space: Space, levels: Sequence[str] | None = None) -> Packet:
        """The coded levels of a picture, and those that they are coded on top of; None: all that are stored.

        key: a key, the first six or more digits of one, or the path of a source. Raises StoreError for an unknown
        picture, or a level that is not stored of it, ShapeError for a level that the space does not have.
        """
        if levels is not None and not levels:
            known = ", ".join(space.names)
            raise ShapeError(f"expected a level or more of {space.name!r}, got none; there are {known}")
        names = list(space.names if levels is None else dict.fromkeys(space.level(name).name for name in levels))
        return self.packet_of(self.record(key, space, names), space, levels)

    def record(self, key: str, space: Space, names: Sequence[str]) -> Record:
        """A picture with those of these levels that are stored of it, and the levels that they are coded on top of.

        Raises StoreError for an unknown picture.
        """
        asked = list(dict.fromkeys(names))  # with parents that earlier pictures had: most often one look is enough
        asked += [above for name in asked if (above := self._parents.get((space.name, name))) and above not in asked]
        while True:
            record = self.store.get(key, {space.name: asked})
            parents = {name: each.coded.parent for name, each in record.spaces.get(space.name, {}).items()}
            self._parents |= {(space.name, name): above for name, above in parents.items()}
            missing = set(parents.values()) - {""} - set(asked)
            if not missing:
                return record
            asked += sorted(missing)

    def packet_of(self, record: Record, space: Space, levels: Sequence[str] | None = None) -> Packet:
        """The same of a record that was read."""
        held: Mapping[str, Stored] = record.spaces.get(space.name, {})
        for name in levels or ():
            if name not in held:
                raise StoreError(
                    f"level {name!r} of {space.name!r} is not stored of {record.key[:12]} (there is "
                    f"{', '.join(held) or 'nothing'}); add it with `chiasm encode ... --levels {name}`, or with "
                    "`chiasm derive` where it is derived"
                )
        if not held:
            raise StoreError(
                f"{record.key[:12]} has nothing in space {space.name!r}; add it with `chiasm encode --encoder ...`"
            )
        return Packet(space.name, record.size, {name: each.coded for name, each in held.items()})

    def opened(self, packet: Packet, space: Space) -> PacketReader:
        return PacketReader(space, packet, self.codec_of)

    def reading(self, key: str, space: Space, levels: Sequence[str] | None = None) -> Reading:
        """The stored features of a picture, float32: maps 1 C h w, padded as the encoder saw it, and vectors 1 D."""
        packet = self.packet(key, space, levels)
        names = tuple(packet.levels) if levels is None else tuple(levels)
        views = {name: packet.levels[name].view for name in names}
        return Reading(self.opened(packet, space).whole(names), views, packet.size)

    def codec_of(self, coded: Coded) -> Codec:
        """The codec that a level names. Raises StoreError when its tables are not to be had."""
        return self._codec(coded.codec, coded.tables)

    def parent_of(self, level: str, codec_id: str) -> str:
        """The level that one with this codec id (see `Coded`) is coded on top of, or ""."""
        name, _, tables = codec_id.partition("/")[0].partition("@")
        return self._codec(name, tables).parent(level)

    def _codec(self, name: str, tables: str) -> Codec:
        if (name, tables) not in self._codecs:
            self._codecs[name, tables] = models.codec_for(name, tables, self.store.table)
        return self._codecs[name, tables]

    def check(self, record: Record) -> str | None:
        """Decode all of a record that was read: why that cannot be done, or None. What `store.verify` asks for."""
        try:
            spaces = self.store.spaces()
            for name in record.spaces:
                self.opened(self.packet_of(record, spaces[name]), spaces[name]).check()
        except ChiasmError as error:
            return str(error)
        return None


def file_reader(packet: Packet, space: Space, tables: Mapping[str, bytes], store: LanceStore | None) -> PacketReader:
    """The features of a packet file. tables: hash -> tables that the file embeds.

    Raises PacketError when it is of another space, or when neither package, file nor store has its tables.
    """
    if packet.space != space.name:
        raise PacketError(f"the packet is of space {packet.space!r}, this pipeline reads {space.name!r}; load another")

    def table(name: str) -> bytes:
        if name in tables:
            return tables[name]
        if store is None:
            raise PacketError(f"the packet needs the tables {name}, which are not here; open the store that holds them")
        return store.table(name)

    return PacketReader(space, packet, lambda coded: models.codec_for(coded.codec, coded.tables, table))
