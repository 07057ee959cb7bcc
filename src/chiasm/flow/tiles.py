"""One picture to one packet and back, tile by tile.

    Picture ──tile + margin──► encoder ──cut──► codec ──► a stream per level ──► Packet
    Packet ──► codec ──► features of a tile and its neighbours' edges ──► head ──► pixels of the tile

A tile is encoded with as many pixels around it as can change it, so the result equals that of the whole
picture. What is held at a time is two or three tiles, and when drawing some rows as long as the picture is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs import packet as bitstream
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Features, Packet, Space
from chiasm.encoders.ns import RECEPTIVE_FIELD as SEES
from chiasm.errors import ImageError, PacketError
from chiasm.features.layout import Window, assemble, count, crop, cut, pad, padded, tiles
from chiasm.features.working import shrink
from chiasm.heads.reconstruct import RECEPTIVE_FIELD as DRAWS
from chiasm.images.raw.sensor import condition

if TYPE_CHECKING:
    from chiasm.images import Shot

TILE = 1024  # a multiple of the wavelet's unit, so that a tile's bands are whole

Encode = Callable[[Tensor], Features]
EncodeRaw = Callable[[Tensor, Tensor], Features]
Draw = Callable[[Features], Tensor]
_Part = tuple[Window, dict[str, Tensor]]  # maps over a window


@dataclass(frozen=True)
class PictureCoder:
    """Joins encoders and a codec of one space.

    encode: photographs, B 3 H W in [0, 1], to Features on the CPU. encode_raw: mosaics, B 1 H W, and what is known of
    their sensors, B 13; None where the space has no encoder of mosaics.
    """

    spec: Space
    encode: Encode
    codec: TransformCodec
    encode_raw: EncodeRaw | None = None

    @property
    def strides(self) -> dict[str, int]:
        return {level.name: level.stride for level in self.spec.levels}

    def refusal(self, picture: Shot) -> ImageError | None:
        """Why this picture cannot be encoded, if it cannot."""
        if picture.kind == "rgb" or self.encode_raw is not None:
            return None
        return ImageError(
            f"{picture.uri}: expected a photograph, got a RAW file, for which this space has no encoder; load ns-rgb",
            "unsupported",
        )

    def pack_many(self, pictures: Sequence[Shot], quality: int, levels: Sequence[str]) -> list[Packet]:
        """Packets of pictures of one padded size, encoded in one batch when they are a tile or smaller."""
        size = padded(pictures[0].size, self.spec.grid)
        if max(size) > TILE:
            return [self.pack(picture, quality, levels) for picture in pictures]
        features = self._encoded(pictures, [picture.tile(0, 0, *picture.size) for picture in pictures], size)
        return [
            self._packet(picture.size, quality, [self._compress(features, index, quality, levels)])
            for index, picture in enumerate(pictures)
        ]

    def pack(self, picture: Shot, quality: int, levels: Sequence[str]) -> Packet:
        """The packet of one picture of any size, tile by tile."""
        found = self._tiles(picture, padded(picture.size, self.spec.grid))
        coded = (self._compress(maps, 0, quality, levels) for maps in found)
        return self._packet(picture.size, quality, coded)

    def _tiles(self, picture: Shot, size: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        for window in tiles(size, TILE):
            outer = window.grown(SEES[picture.kind], size)
            seen = outer.meet(Window(0, 0, *picture.size))
            assert seen is not None
            pixels = picture.tile(seen.top, seen.left, seen.bottom, seen.right)
            features = self._encoded([picture], [pixels], outer.size)
            yield cut(features, self.strides, window.within(outer))

    def _encoded(self, pictures: Sequence[Shot], pixels: Sequence[Tensor], size: tuple[int, int]) -> Features:
        """Features of pictures of one kind, given their pixels (or those of one tile), padded to `size`."""
        if pictures[0].kind == "rgb":
            return self.encode(torch.stack([pad(x, size) for x in pixels]))
        assert self.encode_raw is not None
        told = condition([picture.sensor for picture in pictures if picture.sensor is not None])
        return self.encode_raw(torch.stack([pad(x, size, cell=2) for x in pixels]), told)

    def _compress(
        self, features: Features, index: int, quality: int, levels: Sequence[str]
    ) -> dict[str, bytes]:
        maps = {name: x[index : index + 1] for name, x in features.items() if name in levels}
        return self.codec.compress(maps, quality)

    def _packet(self, size: tuple[int, int], quality: int, coded: Iterable[Mapping[str, bytes]]) -> Packet:
        parts: dict[str, list[bytes]] = {}
        for tile in coded:
            for name, data in tile.items():
                parts.setdefault(name, []).append(data)
        streams = {name: bitstream.seal(held, name) for name, held in parts.items()}
        return Packet(self.spec.name, self.codec.name, quality, self.codec.tables, size, TILE, streams)

    def unpack(self, packet: Packet, levels: Sequence[str] | None = None) -> Features:
        """All features of a packet, cropped to whole cells of the picture: float32 maps 1 C H/s W/s."""
        reader = _TileReader(self, packet, levels)
        whole = Window(0, 0, *reader.size)
        parts = ((window, reader.maps(index)) for index, window in enumerate(reader.windows))
        return assemble(whole, parts, self.strides)

    def shrunk(self, packet: Packet, factor: int, halve: Draw) -> Features:
        """Features of the picture at 1 / `factor` of its size: float32 maps 1 C ceil(H/s/factor) and so on.

        factor: a power of two, such that a tile holds whole cells; 1 leaves all as it was stored. Else `context` alone
        is read, `halve` draws the picture at half its size from it, and the encoder sees that, as small as asked.
        Means of features would not do: oriented edges cancel. Places beyond the picture repeat its last ones.
        """
        if factor == 1:
            return self.unpack(packet)
        reader = _TileReader(self, packet, ("context",))
        unit = self.spec.grid * factor
        if packet.tile % unit and len(reader.windows) > 1:
            raise PacketError(f"tiles of {packet.tile} pixels hold no whole cells of {unit}; encode the picture again")
        parts = []
        for index, window in enumerate(reader.windows):
            half = halve(reader.around(index, DRAWS))  # 1 3 h/2 w/2 over the tile and what is around it
            inner = window.within(window.grown(DRAWS, reader.size))
            whole = Window(window.top, window.left, *padded((window.bottom, window.right), unit))
            height, width = (n // 2 for n in whole.size)
            parts.append((whole, {"small": shrink(half[..., *inner.at(2)], (height, width), factor)}))
        return self.encode(assemble(Window(0, 0, *padded(reader.size, unit)), parts, {"small": factor})["small"])

    def half(self, packet: Packet, halve: Draw) -> np.ndarray:
        """The picture at half its size, rounded up, H/2 x W/2 x 3, uint8 sRGB: `halve` draws it from `context`."""
        reader = _TileReader(self, packet, ("context",))
        parts = []
        for index, window in enumerate(reader.windows):
            inner = window.within(window.grown(DRAWS, reader.size))
            parts.append((window, {"half": halve(reader.around(index, DRAWS))[..., *inner.at(2)]}))
        half = assemble(Window(0, 0, *reader.size), parts, {"half": 2})["half"][0]
        shown = crop(half, (-(-packet.size[0] // 2), -(-packet.size[1] // 2))).clamp(0, 1).mul(255.0).round()
        return shown.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    def check(self, packet: Packet) -> None:
        """Decode every tile and keep none. Raises PacketError for what no encoder wrote."""
        reader = _TileReader(self, packet, None)
        for index in range(len(reader.windows)):
            reader.maps(index)

    def draw(
        self, packet: Packet, head: Draw, levels: Sequence[str] | None = None, sees: int = DRAWS
    ) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, drawn tile by tile from the levels asked for.

        sees: pixels beyond which a feature cannot change what `head` draws, a multiple of the grid.
        """
        reader = _TileReader(self, packet, levels)
        height, width = packet.size
        picture = np.empty((height, width, 3), np.uint8)
        for index, window in enumerate(reader.windows):
            outer = window.grown(sees, reader.size)
            pixels = head(reader.around(index, sees))[0].float()
            inner = window.within(outer)
            part = pixels[:, inner.top : inner.bottom, inner.left : inner.right]
            visible = window.meet(Window(0, 0, height, width))
            assert visible is not None
            shown = crop(part, visible.size).clamp(0, 1).mul(255.0).round().to(torch.uint8)  # 3 h w
            picture[visible.at(1)] = shown.permute(1, 2, 0).numpy()
        return picture


class _TileReader:
    """Decodes tiles when they are needed, and keeps of them what later tiles need and no more."""

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
        self.held: list[_Part] = []
        self.decoded: set[int] = set()  # in the present row of tiles, and below it

    def maps(self, index: int) -> dict[str, Tensor]:
        streams = {name: tiles_[index] for name, tiles_ in self.streams.items()}
        window = self.windows[index]
        return dict(self.coder.codec.decompress(streams, window.size, self.packet.quality))

    def around(self, index: int, margin: int) -> dict[str, Tensor]:
        """Maps over tile `index` and `margin` pixels around it. Call in the tiles' order.

        Tiles below are decoded for their upper edges, and again when it is their turn: that costs less than
        to hold a row of whole ones.
        """
        tile = self.windows[index]
        outer = tile.grown(margin, self.size)
        seen = Window(0, 0, outer.bottom, self.size[1])  # by this row of tiles
        if tile.left == 0:
            self.decoded.clear()
            self.held = [part for part in self.held if part[0].top < tile.top]
        for i in self._near(Window(tile.top, outer.left, outer.bottom, outer.right)):
            if i not in self.decoded:
                self.decoded.add(i)
                self.held += self._within([seen], self.windows[i], self.maps(i))
        found = assemble(outer, self.held, self.coder.strides)
        self._forget(tile, margin)
        return found

    def _near(self, window: Window) -> list[int]:
        columns = -(-self.size[1] // self.packet.tile)
        rows, across = window.at(self.packet.tile)
        return [
            row * columns + column
            for row in range(rows.start, rows.stop)
            for column in range(across.start, across.stop)
        ]

    def _forget(self, tile: Window, margin: int) -> None:
        """Cut what is held down to what tiles to the right of this one and tiles below it will look at."""
        height, width = self.size
        needed = [
            Window(tile.top - margin, tile.right - margin, height, width),
            Window(tile.bottom - margin, 0, height, width),
        ]
        self.held = [part for place, maps in self.held for part in self._within(needed, place, maps)]

    def _within(self, windows: Sequence[Window], place: Window, maps: dict[str, Tensor]) -> list[_Part]:
        """What of the maps over `place` lies in `windows`: copies, unless it is all, for a view holds it all."""
        shared = [window for window in map(place.meet, windows) if window]
        if place in shared:
            return [(place, maps)]
        cuts = [(window, cut(maps, self.coder.strides, window.within(place))) for window in shared]
        return [(window, {name: x.clone() for name, x in part.items()}) for window, part in cuts]


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
    if packet.space != coder.spec.name:
        raise PacketError(
            f"the packet is of space {packet.space!r}, this pipeline reads {coder.spec.name!r}; load another"
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
