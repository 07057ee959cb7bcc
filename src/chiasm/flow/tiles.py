"""Features of one picture to coded levels and back, tile by tile.

    picture ──view, tile + margin──► encoder ──cut──► codec of each level ──► Coded: a stream of tiles
    Coded ──► codec ──► features of a tile and of its neighbours' edges ──► head ──► answers of the tile

A tile is encoded with as many pixels around it as can change it, so the result equals that of the whole picture. An
encoder without a margin sees the whole picture, and its levels are one tile. Work and memory are linear in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from chiasm.codecs import packet as packets
from chiasm.contracts import Codec, Coded, Features, Packet, Parent, Size, Space, View
from chiasm.errors import PacketError
from chiasm.features.layout import Window, assemble, count, cut, tiles

CodecOf = Callable[[Coded], Codec]


@dataclass(frozen=True)
class Choice:
    """How a level is to be coded."""

    codec: Codec
    quality: int

    @staticmethod
    def of(codec: Codec, quality: int) -> Choice:
        """quality: of codecs that have one. Raises PacketError when it is out of range."""
        if codec.qualities and not 1 <= quality <= codec.qualities:
            raise PacketError(f"quality {quality} is not between 1 (smallest) and {codec.qualities} (finest)")
        return Choice(codec, quality if codec.qualities else 0)

    @property
    def codec_id(self) -> str:
        return Coded(self.codec.name, self.codec.tables, self.quality, (), View((0, 0)), b"").codec_id


@dataclass(frozen=True)
class Seen:
    """Features of one picture as its encoder gave them, one part for each tile, row by row.

    tile: edge of the tiles in pixels of the view; 0: the whole in one part.
    """

    view: View
    tile: int
    parts: Iterable[Features]


def in_order(choices: Mapping[str, Choice]) -> list[str]:
    """Levels with every parent before its children."""
    waiting, ordered = list(choices), []
    while waiting:
        ready = [name for name in waiting if choices[name].codec.parent(name) not in waiting]
        ordered += ready
        waiting = [name for name in waiting if name not in ready]
    return ordered


def coded_levels(
    space: Space, seen: Seen, choices: Mapping[str, Choice], stored: PacketReader | None = None
) -> dict[str, Coded]:
    """Code the levels of one picture.

    stored: holds levels that are stored already, for those that are coded on top of one: its decoded features are then
    subtracted. A parent that is coded in this call is subtracted as it was encoded. Raises PacketError when a parent
    is in neither.
    """
    streams: dict[str, list[bytes]] = {name: [] for name in choices}
    order = in_order(choices)
    shapes = {level.name: _shape(space, level.name, seen.view) for level in space.levels if level.name in choices}
    for index, features in enumerate(seen.parts):
        parents: dict[str, Parent] = {}
        for name in order:
            codec, quality = choices[name].codec, choices[name].quality
            above = codec.parent(name)
            if above and above not in parents:
                parents |= _stored_parent(stored, above, index, name)
            data, symbols = codec.encode(name, features[name], quality, parents.get(above))
            parents[name] = Parent(features[name], symbols)
            streams[name].append(data)
            if not seen.tile:
                shapes[name] = tuple(features[name].shape[1:])
    found: dict[str, Coded] = {}
    for name in order:
        codec, quality = choices[name].codec, choices[name].quality
        vector = space.level(name).kind == "vector"
        data = packets.seal(streams[name], 0 if vector else seen.tile)
        above = codec.parent(name)
        base = 0 if not above else (found[above] if above in found else _coded(stored, above)).crc
        tile = 0 if vector else seen.tile
        found[name] = Coded(codec.name, codec.tables, quality, shapes[name], seen.view, data, tile, above, base)
    return {name: found[name] for name in space.names if name in found}


def _shape(space: Space, name: str, view: View) -> tuple[int, ...]:
    level = space.level(name)
    if level.kind == "vector":
        return (level.channels,)
    return (level.channels, view.size[0] // level.stride, view.size[1] // level.stride)


def _stored_parent(stored: PacketReader | None, above: str, index: int, name: str) -> dict[str, Parent]:
    if stored is None or above not in stored.packet.levels:
        raise PacketError(f"level {name!r} is coded on top of {above!r}, which is missing; encode both")
    return stored.parents((above,), index)


def _coded(stored: PacketReader | None, name: str) -> Coded:
    assert stored is not None  # else the parent would have been missed before
    return stored.packet.levels[name]


@dataclass
class PacketReader:
    """Reads the levels of one packet, all or tile by tile. A level's parent is decoded with it.

    Raises PacketError for a level that the packet does not hold, or that contradicts its space.
    """

    space: Space
    packet: Packet
    codec_of: CodecOf
    _streams: dict[str, packets.Tiles] = field(default_factory=dict, repr=False)

    def whole(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Features of the whole view: float32 maps 1 C h w and vectors 1 D."""
        self.require(names)
        found: dict[str, Tensor] = {}
        for group in self._groups(names):
            coded = self.packet.levels[group[0]]
            if self._is_vector(group[0]) or not coded.tile:
                found |= self.decoded(group, 0)
                continue
            parts = ((window, self.decoded(group, index)) for index, window in enumerate(self.windows(group[0])))
            found |= assemble(Window(0, 0, *coded.view.size), parts, self.strides)
        return {name: found[name] for name in names}

    def check(self) -> None:
        """Decode every tile of every level and keep none. Raises PacketError for what no encoder wrote."""
        for group in self._groups(tuple(self.packet.levels)):
            for index in range(len(self.windows(group[0]))):
                self.decoded(group, index)

    def decoded(self, names: Sequence[str], index: int) -> dict[str, Tensor]:
        """Features of one tile."""
        parents = self.parents(names, index)
        return {name: parents[name].values for name in names}

    def parents(self, names: Sequence[str], index: int) -> dict[str, Parent]:
        """Levels of one tile, decoded, with those that they are coded on top of."""
        found: dict[str, Parent] = {}
        for name in self._closure(names):
            coded = self.packet.levels[name]
            data, shape = self._data(name, index), self._tile_shape(name, index)
            try:
                found[name] = self.codec_of(coded).decode(name, data, shape, coded.quality, found.get(coded.parent))
            except PacketError as error:
                raise error if repr(name) in str(error) else PacketError(f"level {name!r}: {error}") from error
        return found

    def windows(self, name: str) -> list[Window]:
        """Where the tiles of a level lie, in pixels of its view."""
        coded = self.packet.levels[name]
        if not coded.tile or self._is_vector(name):
            return [Window(0, 0, *coded.view.size)]
        return list(tiles(coded.view.size, coded.tile))

    @property
    def strides(self) -> dict[str, int]:
        return {level.name: level.stride for level in self.space.levels}

    def _is_vector(self, name: str) -> bool:
        return self.space.level(name).kind == "vector"

    def require(self, names: Sequence[str]) -> None:
        """Raise PacketError unless the packet holds these levels."""
        for name in names:
            if name not in self.packet.levels:
                held = ", ".join(self.packet.levels) or "none"
                raise PacketError(f"level {name!r} is not in this packet, which holds {held}; encode the picture again")

    def _closure(self, names: Sequence[str]) -> list[str]:
        """`names` and those that they are coded on top of, parents first."""
        ordered: dict[str, None] = {}
        for name in names:
            chain = [name]
            self.require(chain)
            while above := self.packet.levels[chain[-1]].parent:
                self._check_parent(chain, above)
                chain.append(above)
            ordered |= dict.fromkeys(reversed(chain))
        return list(ordered)

    def _check_parent(self, chain: Sequence[str], above: str) -> None:
        """Raise PacketError when a parent is missing, is not the one that was coded on, or has other tiles."""
        name = chain[-1]
        self.require([above])
        coded, parent = self.packet.levels[name], self.packet.levels[above]
        whole = parent.shape == _shape(self.space, above, parent.view)
        if above in chain or not whole or (coded.view, coded.tile) != (parent.view, parent.tile):
            raise PacketError(f"level {name!r} cannot be coded on top of {above!r} as it is; fetch the packet again")
        if parent.crc != coded.base:
            raise PacketError(
                f"level {name!r} was coded on top of another {above!r} than the one that is here; "
                "encode the picture again with --replace"
            )

    def _groups(self, names: Sequence[str]) -> list[list[str]]:
        """Levels that share their tiles, so that a parent is decoded once for all of its children."""
        grouped: dict[object, list[str]] = {}
        for name in names:
            coded = self.packet.levels[name]
            grouped.setdefault((coded.view, coded.tile, self._is_vector(name)), []).append(name)
        return list(grouped.values())

    def _data(self, name: str, index: int) -> bytes:
        coded = self.packet.levels[name]
        if self._is_vector(name):
            return coded.data
        if name not in self._streams:
            self._check(name, coded)
            self._streams[name] = packets.Tiles(coded, name)
        return self._streams[name][index]

    def _check(self, name: str, coded: Coded) -> None:
        """Raise PacketError for a level that is not as its space says."""
        level = self.space.level(name)
        exact = _shape(self.space, name, coded.view)
        right = len(coded.shape) == 3 and coded.shape[0] == level.channels
        if right and (coded.tile or coded.parent):
            right = coded.shape == exact and not any(n % self.space.grid for n in (*coded.view.size, coded.tile))
        elif right:  # a convolution without a tile may round its size up or down
            right = all(abs(n - m) <= 1 for n, m in zip(coded.shape, exact, strict=True))
        if not right:
            raise PacketError(
                f"level {name!r} has shape {coded.shape} in tiles of {coded.tile}, which is no level of "
                f"{self.space.name!r} (channels {level.channels}, stride {level.stride}, grid {self.space.grid}); "
                "fetch the packet again"
            )

    def _tile_shape(self, name: str, index: int) -> tuple[int, ...]:
        coded = self.packet.levels[name]
        if not coded.tile or self._is_vector(name):
            return coded.shape
        rows, columns = _tile_size(coded.view.size, coded.tile, index)
        stride = self.space.level(name).stride
        return (coded.shape[0], rows // stride, columns // stride)


@dataclass(frozen=True)
class Walk:
    """The tiles of some levels in order, each with what lies around it: (tile, outer window, features over outer).

    margin: pixels around a tile that are needed. Tiles below are decoded for their upper edges, and again in their
    turn: that costs less memory than a row of whole ones. Each tile is held while others can need it and no longer.
    """

    reader: PacketReader
    names: Sequence[str]
    margin: int
    held: dict[int, tuple[Window, Mapping[str, Tensor]]] = field(default_factory=dict, repr=False)

    def __iter__(self) -> Iterator[tuple[Window, Window, dict[str, Tensor]]]:
        self.reader.require(self.names)
        coded = self.reader.packet.levels[self.names[0]]
        if any(self.reader.packet.levels[name].tile != coded.tile for name in self.names) or not coded.tile:
            whole = Window(0, 0, *coded.view.size)
            yield whole, whole, self.reader.whole(self.names)
            return
        yield from self._tiles(coded.view.size, coded.tile)

    def _tiles(self, size: Size, edge: int) -> Iterator[tuple[Window, Window, dict[str, Tensor]]]:
        columns, strides, held = -(-size[1] // edge), self.reader.strides, self.held
        held.clear()
        for index in range(count(size, edge)):
            row, column = divmod(index, columns)
            tile = _place(size, edge, row, column)
            outer = tile.grown(self.margin, size)
            near = self._near(outer, edge, columns)
            for other in near:
                if other not in held:
                    held[other] = self._part(size, edge, divmod(other, columns), row)
            yield tile, outer, assemble(outer, (held[other] for other in near), strides)
            last = column == columns - 1
            following = _place(size, edge, row, column + 1).grown(self.margin, size) if not last else None
            later = set() if following is None else set(self._near(following, edge, columns))
            for other in near:
                if other not in later:
                    self._forget(other, divmod(other, columns)[0] == row, size)

    def _near(self, outer: Window, edge: int, columns: int) -> list[int]:
        rows, across = outer.at(edge)
        return [
            row * columns + column
            for row in range(rows.start, rows.stop)
            for column in range(across.start, across.stop)
        ]

    def _part(self, size: Size, edge: int, at: tuple[int, int], row: int) -> tuple[Window, Mapping[str, Tensor]]:
        """A tile of the present row whole; of one below only the upper edge."""
        window = _place(size, edge, *at)
        maps = self.reader.decoded(self.names, at[0] * -(-size[1] // edge) + at[1])
        if at[0] <= row:
            return window, maps
        bottom = min(window.bottom, window.top + self.margin)
        return self._cut(window, maps, Window(window.top, window.left, bottom, window.right))

    def _forget(self, other: int, here: bool, size: Size) -> None:
        """Drop a tile that no other of this row needs; of the present row the lower edge stays for the next one."""
        window, maps = self.held.pop(other)
        if here and self.margin and window.bottom < size[0]:
            top = max(window.top, window.bottom - self.margin)
            self.held[other] = self._cut(window, maps, Window(top, window.left, window.bottom, window.right))

    def _cut(self, window: Window, maps: Mapping[str, Tensor], part: Window) -> tuple[Window, Mapping[str, Tensor]]:
        """A copy, for a view would hold all of it."""
        found = cut(maps, self.reader.strides, part.within(window))
        return part, {name: x.clone() for name, x in found.items()}


def _tile_size(size: Size, edge: int, index: int) -> Size:
    """Height and width in pixels of one tile."""
    row, column = divmod(index, -(-size[1] // edge))
    return min(edge, size[0] - row * edge), min(edge, size[1] - column * edge)


def _place(size: Size, edge: int, row: int, column: int) -> Window:
    top, left = row * edge, column * edge
    return Window(top, left, min(top + edge, size[0]), min(left + edge, size[1]))


def drawn(reader: PacketReader, draw: Callable[[Features], Tensor], names: Sequence[str], margin: int) -> Tensor:
    """The picture 3 x H x W, uint8 sRGB, drawn tile by tile by a head that sees `margin` pixels around a place."""
    height, width = reader.packet.size
    picture = torch.empty(3, height, width, dtype=torch.uint8)
    for tile, outer, features in Walk(reader, names, margin):
        visible = tile.meet(Window(0, 0, height, width))
        if visible is None:
            continue
        inner = visible.within(outer)
        part = draw(features)[0, :, inner.top : inner.bottom, inner.left : inner.right]
        picture[:, visible.top : visible.bottom, visible.left : visible.right] = (
            part.float().clamp(0, 1).mul(255.0).round().to(torch.uint8).cpu()
        )
    return picture
