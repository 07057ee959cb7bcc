"""The bytes of a packet, version 1; `docs/format.md` is their specification. All integers are little endian.

"CHSM"  version u8  header length u16  header  CRC-32 of all before it u32  streams, one after another
stream: CRC-32 of the level's name and the rest u32  tiles u32  length of each tile u32  tiles, row by row
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chiasm.contracts import Packet
from chiasm.errors import PacketError

MAGIC = b"CHSM"
VERSION = 1
LONGEST_EDGE = 1 << 24
MOST_LEVELS = 16
MOST_PIXELS = 1 << 28  # as many as the camera reads by default
TILES = range(16, 2048 + 1, 16)  # edges of a tile that a reader takes: what one tile may cost has a bound


def write(packet: Packet, tables: bytes = b"") -> bytes:
    """A packet as one self-describing file. `tables`: embedded for a reader whose package does not ship them.

    Raises PacketError for a packet that `read` would refuse: too many pixels, levels, or too long a name.
    """
    _check_limits(packet.size, packet.tile, len(packet.streams))
    levels = b"".join(_text(name) + struct.pack("<Q", len(stream)) for name, stream in packet.streams.items())
    header = b"".join(
        [
            _text(packet.space),
            _text(packet.codec),
            _text(packet.tables),
            struct.pack("<BIIIIB", packet.quality, *packet.size, packet.tile, len(tables), len(packet.streams)),
            levels,
        ]
    )
    head = MAGIC + struct.pack("<BH", VERSION, len(header)) + header
    sealed_tables = struct.pack("<I", zlib.crc32(tables)) + tables if tables else b""
    return head + struct.pack("<I", zlib.crc32(head)) + sealed_tables + b"".join(packet.streams.values())


def read(data: bytes) -> tuple[Packet, bytes]:
    """The packet in `data` and the tables embedded in it (or b""). Every checksum is compared.

    Raises PacketError for damaged, cut or extended bytes, and for a version this chiasm does not read.
    """
    packet, tables, begin = _header(data)
    end = begin + sum(packet.streams_sizes.values())
    if end != len(data):
        raise PacketError(
            f"packet: its header announces {end} bytes, got {len(data)}; it was cut or extended, fetch it again"
        )
    streams: dict[str, bytes] = {}
    for name, length in packet.streams_sizes.items():
        streams[name] = data[begin : begin + length]
        check(streams[name], name)
        begin += length
    return packet.with_streams(streams), tables


def describe(data: bytes) -> dict[str, object]:
    """What a packet's header says, without looking at its streams."""
    header, tables, _ = _header(data)
    height, width = header.size
    return {
        "version": VERSION,
        "space": header.space,
        "codec": header.codec,
        "quality": header.quality,
        "tables": header.tables,
        "tables_embedded": bool(tables),
        "height": height,
        "width": width,
        "tile": header.tile,
        "bytes": {"all": len(data), **header.streams_sizes},
        "bits_per_pixel": 8.0 * len(data) / (height * width),
    }


@dataclass(frozen=True)
class _Header:
    space: str
    codec: str
    tables: str
    quality: int
    size: tuple[int, int]
    tile: int
    streams_sizes: dict[str, int]

    def with_streams(self, streams: dict[str, bytes]) -> Packet:
        return Packet(self.space, self.codec, self.quality, self.tables, self.size, self.tile, streams)


def _header(data: bytes) -> tuple[_Header, bytes, int]:
    if data[:4] != MAGIC:
        raise PacketError(
            f"not a chiasm packet: it starts with {data[:4]!r}, not {MAGIC!r}; give a file made by `chiasm pack`"
        )
    if len(data) < 7:
        raise PacketError(f"packet: {len(data)} bytes are fewer than a header has; it was cut short, fetch it again")
    version, length = struct.unpack_from("<BH", data, 4)
    if version != VERSION:
        raise PacketError(f"packet: version {version} is not known here (this chiasm reads {VERSION}); update chiasm")
    begin = 7 + length
    if len(data) < begin + 4 or struct.unpack_from("<I", data, begin)[0] != zlib.crc32(data[:begin]):
        raise PacketError("packet: the header's checksum does not match; the bytes are damaged, fetch them again")
    header, embedded = _fields(data[7:begin])
    begin += 4
    if not embedded:
        return header, b"", begin
    tables = data[begin + 4 : begin + 4 + embedded]
    if len(tables) < embedded or struct.unpack_from("<I", data, begin)[0] != zlib.crc32(tables):
        raise PacketError("packet: the checksum of its tables does not match; the bytes are damaged, fetch them again")
    return header, tables, begin + 4 + embedded


def _fields(data: bytes) -> tuple[_Header, int]:
    try:
        space, at = _untext(data, 0)
        codec, at = _untext(data, at)
        tables, at = _untext(data, at)
        quality, height, width, tile, embedded, count = struct.unpack_from("<BIIIIB", data, at)
        at += struct.calcsize("<BIIIIB")
        sizes: dict[str, int] = {}
        for _ in range(count):
            name, at = _untext(data, at)
            (sizes[name],) = struct.unpack_from("<Q", data, at)
            at += 8
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise PacketError(
            f"packet: its header does not parse ({error}); the bytes are damaged, fetch them again"
        ) from error
    if len(sizes) != count or at != len(data):
        raise PacketError(f"packet: its header announces {count} levels and names {len(sizes)}; fetch it again")
    _check_limits((height, width), tile, count)
    return _Header(space, codec, tables, quality, (height, width), tile, sizes), embedded


def _check_limits(size: tuple[int, int], tile: int, levels: int) -> None:
    """Raise PacketError for what no reader of version 1 takes, before anything of that size is made."""
    height, width = size
    if not (0 < height <= LONGEST_EDGE and 0 < width <= LONGEST_EDGE and height * width <= MOST_PIXELS):
        raise PacketError(f"packet: {height} x {width} pixels; expected 1 to {MOST_PIXELS} in all, fetch it again")
    if tile not in TILES or not 0 < levels <= MOST_LEVELS:
        raise PacketError(
            f"packet: tile {tile} and {levels} levels; expected a tile of {TILES.start} to {TILES[-1]} "
            f"in steps of {TILES.step}, and 1 to {MOST_LEVELS} levels, fetch it again"
        )


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise PacketError(f"a name of {len(data)} bytes does not fit a packet; 255 is the most")
    return bytes([len(data)]) + data


def _untext(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise IndexError("a name ends behind the header")
    return data[at + 1 : end].decode(), end


def seal(tiles: Sequence[bytes], level: str) -> bytes:
    """One level's stream from its tiles, with their lengths and a checksum that knows the level's name."""
    body = struct.pack(f"<I{len(tiles)}I", len(tiles), *map(len, tiles)) + b"".join(tiles)
    return struct.pack("<I", _checksum(body, level)) + body


def _checksum(body: bytes, level: str) -> int:
    return zlib.crc32(body, zlib.crc32(level.encode()))


def check(stream: bytes, level: str) -> None:
    """Raise PacketError unless the stream's checksum matches."""
    if len(stream) < 8 or struct.unpack_from("<I", stream)[0] != _checksum(stream[4:], level):
        raise PacketError(
            f"packet: the checksum of level {level!r} does not match; the bytes are damaged, fetch them again"
        )


class Tiles:
    """Random access to the tiles of a sealed stream whose checksum has been compared."""

    def __init__(self, stream: bytes, level: str, expected: int) -> None:
        check(stream, level)
        (count,) = struct.unpack_from("<I", stream, 4)
        if count != expected or len(stream) < 8 + 4 * count:
            raise PacketError(f"packet: level {level!r} has {count} tiles where the picture's size asks for {expected}")
        lengths = struct.unpack_from(f"<{count}I", stream, 8)
        self._stream, self._ends = stream, list(_running(8 + 4 * count, lengths))
        if self._ends[-1] != len(stream):
            raise PacketError(f"packet: the tiles of level {level!r} end at {self._ends[-1]} of {len(stream)} bytes")

    def __getitem__(self, index: int) -> bytes:
        return self._stream[self._ends[index] : self._ends[index + 1]]


def _running(start: int, lengths: Sequence[int]) -> Iterator[int]:
    yield start
    for length in lengths:
        start += length
        yield start
