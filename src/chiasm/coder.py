"""One picture to one packet and back, tile by tile.

    Picture ──tile + margin──► encoder ──cut──► codec ──► a stream per level ──► Packet
    Packet ──► codec ──► features of a tile and its neighbours' edges ──► head ──► pixels of the tile

A tile is encoded with as many pixels around it as can change it, so the result equals that of the whole
picture; what is held at a time does not grow with the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Features, FeatureSpec, Packet
from chiasm.encoders.space import RECEPTIVE_FIELD as SEES
from chiasm.errors import PacketError
from chiasm.features.layout import Window, assemble, count, crop, cut, pad, padded, tiles
from chiasm.packets import bitstream
from chiasm.packets.codec import TransformCodec
from chiasm.tasks.reconstruct import RECEPTIVE_FIELD as DRAWS

if TYPE_CHECKING:
    from chiasm.camera import Picture

TILE = 1024  # a multiple of the wavelet's unit, so that a tile's bands are whole

Encode = Callable[[Tensor], Features]
Draw = Callable[[Features], Tensor]


@dataclass(frozen=True)
class PictureCoder:
    """Joins an encoder and a codec of one space. encode: B 3 H W in [0, 1] to Features on the CPU."""

    spec: FeatureSpec
    encode: Encode
    codec: TransformCodec

    @property
    def strides(self) -> dict[str, int]:
        return {level.name: level.stride for level in self.spec.levels}

    def pack_many(self, pictures: Sequence[Picture], quality: int, levels: Sequence[str]) -> list[Packet]:
        """Packets of pictures of one padded size, encoded in one batch when they are a tile or smaller."""
        size = padded(pictures[0].size, self.spec.grid)
        if max(size) > TILE:
            return [self.pack(picture, quality, levels) for picture in pictures]
        pixels = torch.stack([pad(picture.tile(0, 0, *picture.size), size) for picture in pictures])
        features = self.encode(pixels)
        return [
            self._packet(picture.size, quality, [self._compress(features, index, quality, levels)])
            for index, picture in enumerate(pictures)
        ]

    def pack(self, picture: Picture, quality: int, levels: Sequence[str]) -> Packet:
        """The packet of one picture of any size, tile by tile."""
        found = self._tiles(picture, padded(picture.size, self.spec.grid))
        coded = (self._compress(Features(maps), 0, quality, levels) for maps in found)
        return self._packet(picture.size, quality, coded)

    def _tiles(self, picture: Picture, size: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        for window in tiles(size, TILE):
            outer = window.grown(SEES, size)
            seen = outer.meet(Window(0, 0, *picture.size))
            assert seen is not None
            pixels = pad(picture.tile(seen.top, seen.left, seen.bottom, seen.right), outer.size)
            yield cut(self.encode(pixels[None]).maps, self.strides, window.within(outer))

    def _compress(
        self, features: Features, index: int, quality: int, levels: Sequence[str]
    ) -> dict[str, bytes]:
        maps = {name: x[index : index + 1] for name, x in features.maps.items() if name in levels}
        return self.codec.compress(Features(maps), quality)

    def _packet(self, size: tuple[int, int], quality: int, coded: Iterable[Mapping[str, bytes]]) -> Packet:
        parts: dict[str, list[bytes]] = {}
        for tile in coded:
            for name, data in tile.items():
                parts.setdefault(name, []).append(data)
        streams = {name: bitstream.seal(held, name) for name, held in parts.items()}
        return Packet(self.spec.space, self.codec.name, quality, self.codec.tables, size, TILE, streams)

    def unpack(self, packet: Packet, levels: Sequence[str] | None = None) -> Features:
        """All features of a packet, cropped to whole cells of the picture: float32 maps 1 C H/s W/s."""
        reader = _TileReader(self, packet, levels)
        whole = Window(0, 0, *reader.size)
        parts = ((window, reader.maps(index)) for index, window in enumerate(reader.windows))
        return Features(assemble(whole, parts, self.strides))

    def draw(self, packet: Packet, head: Draw, levels: Sequence[str] | None = None) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, drawn tile by tile from the levels asked for."""
        reader = _TileReader(self, packet, levels)
        height, width = packet.size
        picture = np.empty((height, width, 3), np.uint8)
        for index, window in enumerate(reader.windows):
            outer = window.grown(DRAWS, reader.size)
            pixels = head(Features(reader.around(index, outer)))[0].float()
            inner = window.within(outer)
            part = pixels[:, inner.top : inner.bottom, inner.left : inner.right]
            visible = window.meet(Window(0, 0, height, width))
            assert visible is not None
            shown = crop(part, visible.size).clamp(0, 1).mul(255.0).round().to(torch.uint8)  # 3 h w
            picture[visible.at(1)] = shown.permute(1, 2, 0).numpy()
        return picture


class _TileReader:
    """Decodes tiles when they are needed and forgets them when they are not."""

    def __init__(self, coder: PictureCoder, packet: Packet, levels: Sequence[str] | None) -> None:
        check_space(packet, coder)
        self.coder, self.packet = coder, packet
        self.size = padded(packet.size, coder.spec.grid)
        if packet.tile % coder.spec.grid:
            raise PacketError(
                f"the packet's tiles of {packet.tile} pixels are no multiple of the grid {coder.spec.grid}; "
                "no chiasm writes such a packet, fetch it again"
            )
        chosen = (
            packet.streams
            if levels is None
            else {name: packet.streams[name] for name in wanted(packet, levels)}
        )
        if not chosen:
            raise PacketError("the packet holds no level; encode the picture again")
        expected = count(self.size, packet.tile)
        self.streams = {name: bitstream.Tiles(stream, name, expected) for name, stream in chosen.items()}
        self.windows = list(tiles(self.size, packet.tile))  # as many as each stream has, as Tiles has checked
        self.held: dict[int, dict[str, Tensor]] = {}

    def maps(self, index: int) -> dict[str, Tensor]:
        streams = {name: tiles_[index] for name, tiles_ in self.streams.items()}
        window = self.windows[index]
        return dict(self.coder.codec.decompress(streams, window.size, self.packet.quality).maps)

    def around(self, index: int, outer: Window) -> dict[str, Tensor]:
        """Maps over `outer`, which reaches into the neighbours of tile `index`. Call in the tiles' order."""
        columns = -(-self.size[1] // self.packet.tile)
        rows_near, columns_near = outer.at(self.packet.tile)
        near = [
            row * columns + column
            for row in range(rows_near.start, rows_near.stop)
            for column in range(columns_near.start, columns_near.stop)
        ]
        for i in near:
            if i not in self.held:
                self.held[i] = self.maps(i)
        found = assemble(outer, ((self.windows[i], self.held[i]) for i in near), self.coder.strides)
        for i in [i for i in self.held if i < index - columns]:
            del self.held[i]
        return found


def wanted(packet: Packet, levels: Sequence[str]) -> list[str]:
    """`levels`, checked against what the packet holds."""
    missing = [name for name in levels if name not in packet.streams]
    if missing:
        raise PacketError(
            f"level {missing[0]!r} is not in this packet, which holds {', '.join(packet.streams)}; "
            "encode it again"
        )
    return [name for name in packet.streams if name in levels]


def check_space(packet: Packet, coder: PictureCoder) -> None:
    """Raise PacketError when a packet is of another space, codec or tables than `coder` reads."""
    if packet.space != coder.spec.space:
        raise PacketError(
            f"the packet is of space {packet.space!r}, this pipeline reads {coder.spec.space!r}; load another"
        )
    if (packet.codec, packet.tables) != (coder.codec.name, coder.codec.tables):
        raise PacketError(
            f"the packet needs {packet.codec!r} tables {packet.tables}, "
            f"got {coder.codec.name!r} {coder.codec.tables}; "
            "open it with the store that holds them, or pack with embedded tables"
        )
    coded = {level.name: (level.stride, level.mean.size) for level in coder.codec.fitted.levels}
    read = {level.name: (level.stride, level.channels) for level in coder.spec.levels if level.name in coded}
    if coder.codec.space != packet.space or read != coded:
        raise PacketError(
            f"the tables {packet.tables} code levels {coded} of space {coder.codec.space!r}, "
            f"which are not those of {packet.space!r}; fetch the packet again"
        )
