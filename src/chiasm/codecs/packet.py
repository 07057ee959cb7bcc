"""The bytes of a packet, version 2; `docs/format.md` is their specification. All integers are little endian.

"CHSM"  version u8  header length u16  header  CRC-32 of all before it u32  tables  streams, one after another
stream of a level in tiles: count u32  length of each tile u32  tiles, row by row; of one in a whole: its bytes alone
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from chiasm.contracts import Coded, Packet, Size, View
from chiasm.errors import PacketError
from chiasm.features.layout import count

MAGIC = b"CHSM"
VERSION = 2
LONGEST_NAME = 64  # bytes of UTF-8
LONGEST_EDGE = 1 << 24
MOST_PIXELS = 1 << 28  # as many as the camera reads by default
MOST_LEVELS = 64
MOST_NUMBERS = 1 << 27  # of one tile, or of a level that is not in tiles: half a gigabyte as float32
TILES = range(256, 2048 + 1, 64)  # edges of a tile: small enough to hold, large enough that they are few

_LEVEL = "<BBBHBBII"  # codec, quality, view, tile, parent, dimensions, bytes, CRC-32
_TABLES = re.compile(r"([0-9a-f]{16})?")


def write(packet: Packet, tables: Mapping[str, bytes] | None = None) -> bytes:
    """A packet as one self-describing file. tables: hash -> bytes, embedded for a reader that may not have them.

    Raises PacketError for a packet that `read` would refuse, and for tables that none of its levels needs.
    """
    check(packet)
    levels, embedded = _parents_first(packet.levels), dict(tables or {})
    codecs = list(dict.fromkeys((coded.codec, coded.tables) for coded in levels.values()))
    views = list(dict.fromkeys(coded.view for coded in levels.values()))
    for name, data in embedded.items():
        _check_tables(name, data, [hash_ for _, hash_ in codecs])
    header = [
        _text(packet.space),
        struct.pack("<IIBBBB", *packet.size, len(codecs), len(views), len(embedded), len(levels)),
        *(_text(name) + _text(bytes.fromhex(hash_)) for name, hash_ in codecs),
        *(_view(view) for view in views),
        *(bytes.fromhex(name) + struct.pack("<I", len(data)) for name, data in embedded.items()),
    ]
    for name, coded in levels.items():
        fields = (codecs.index((coded.codec, coded.tables)), coded.quality, views.index(coded.view), coded.tile)
        parent = list(levels).index(coded.parent) + 1 if coded.parent else 0
        fixed = struct.pack(_LEVEL, *fields, parent, len(coded.shape), len(coded.data), coded.crc)
        header.append(_text(name) + fixed + struct.pack(f"<{len(coded.shape)}I", *coded.shape))
    body = b"".join(header)
    head = MAGIC + struct.pack("<BH", VERSION, len(body)) + body
    streams = [coded.data for coded in levels.values()]
    return b"".join([head, struct.pack("<I", zlib.crc32(head)), *embedded.values(), *streams])


def read(data: bytes) -> tuple[Packet, dict[str, bytes]]:
    """The packet in `data` and the tables embedded in it, hash -> bytes. Every checksum is compared.

    Raises PacketError for damaged, cut or extended bytes, and for a version this chiasm does not read.
    """
    header = _header(data)
    end = header.begin + sum(header.tables.values()) + sum(header.lengths.values())
    if end != len(data):
        raise PacketError(
            f"packet: its header announces {end} bytes, got {len(data)}; it was cut or extended, fetch it again"
        )
    at, tables, levels = header.begin, {}, {}
    for name, length in header.tables.items():
        tables[name] = data[at : at + length]
        at += length
        _check_tables(name, tables[name], [coded.tables for coded in header.levels.values()])
    for name, coded in header.levels.items():
        levels[name] = replace(coded, data=data[at : at + header.lengths[name]])
        at += header.lengths[name]
        if levels[name].crc != header.checksums[name]:
            raise PacketError(
                f"packet: the checksum of level {name!r} does not match; the bytes are damaged, fetch them again"
            )
    packet = Packet(header.space, header.size, levels)
    check(packet)
    return packet, tables


def describe(data: bytes) -> dict[str, object]:
    """What a packet's header says, without looking at its streams. Raises PacketError as `read` does."""
    header = _header(data)
    height, width = header.size
    levels: dict[str, object] = {
        name: {
            "codec": coded.codec,
            "tables": coded.tables,
            "quality": coded.quality,
            "shape": list(coded.shape),
            "view": {"size": list(coded.view.size), "scale": coded.view.scale, "offset": coded.view.offset},
            "tile": coded.tile,
            "parent": coded.parent,
            "bytes": header.lengths[name],
        }
        for name, coded in header.levels.items()
    }
    return {
        "version": VERSION,
        "space": header.space,
        "height": height,
        "width": width,
        "levels": levels,
        "tables_embedded": list(header.tables),
        "bytes": len(data),
        "bits_per_pixel": 8.0 * len(data) / (height * width),
    }


def check(packet: Packet) -> None:
    """Raise PacketError unless every name, number and relation in a packet is one that the format has.

    It looks at no byte of a stream. A packet that was put together from the rows of a store needs it as well.
    """
    check_name(packet.space, "space")
    _check_size(packet.size, "picture")
    if not 0 < len(packet.levels) <= MOST_LEVELS:
        raise PacketError(f"packet: {len(packet.levels)} levels; expected 1 to {MOST_LEVELS}, give as many")
    for name, coded in packet.levels.items():
        check_name(name, "level")
        _check_level(name, coded)
        if not coded.parent:
            continue
        parent = packet.levels.get(coded.parent)
        if parent is None or parent.crc != coded.base:
            came = "which is missing" if parent is None else "whose bytes are not those that it was coded on"
            raise PacketError(
                f"level {name!r} is coded on top of {coded.parent!r}, {came}; give both, or encode it again"
            )
    _parents_first(packet.levels)


def check_name(name: str, what: str) -> None:
    """Raise PacketError unless `name` may stand in a packet and be part of the name of a file."""
    length = len(name.encode(errors="surrogatepass"))
    if not 0 < length <= LONGEST_NAME or not name.isprintable() or ".." in name or set(name) & set("/\\"):
        raise PacketError(
            f"packet: {name[:LONGEST_NAME]!r} is no name of a {what}; expected 1 to {LONGEST_NAME} bytes that are "
            "printed, without slashes and '..', choose another"
        )


def _check_size(size: Size, what: str) -> None:
    height, width = size
    if not (0 < height <= LONGEST_EDGE and 0 < width <= LONGEST_EDGE and height * width <= MOST_PIXELS):
        raise PacketError(
            f"packet: a {what} of {height} x {width} pixels; expected 1 to {MOST_PIXELS} in all, fetch it again"
        )


def _check_level(name: str, coded: Coded) -> None:
    check_name(coded.codec, "codec")
    if not _TABLES.fullmatch(coded.tables):
        raise PacketError(
            f"packet: {coded.tables[:LONGEST_NAME]!r} names no tables; expected 16 hexadecimal digits or nothing"
        )
    _check_view(name, coded.view)
    shape, (height, width) = coded.shape, coded.view.size
    sound = len(shape) in {1, 3} and min(shape) > 0
    if not sound or (len(shape) == 3 and (shape[1] > height or shape[2] > width)):
        raise PacketError(
            f"packet: level {name!r} has shape {tuple(shape)} seen at {height} x {width} pixels; expected a vector, or "
            "a map with no more places than pixels, fetch it again"
        )
    if coded.tile and (len(shape) != 3 or coded.tile not in TILES):
        raise PacketError(
            f"packet: level {name!r} has tiles of {coded.tile} pixels; expected a map in tiles of {TILES.start} to "
            f"{TILES[-1]} in steps of {TILES.step}, or 0 for the whole in one, fetch it again"
        )
    if math.prod(shape) * (_share(coded) if coded.tile else 1.0) > MOST_NUMBERS:
        raise PacketError(
            f"packet: level {name!r} decodes to more than {MOST_NUMBERS} numbers at a time; encode it in smaller "
            "tiles, or let its encoder see the picture smaller"
        )
    if not 0 <= coded.quality <= 255:
        raise PacketError(f"packet: level {name!r} has quality {coded.quality}; expected 0 to 255, fetch it again")
    if not 0 <= len(coded.data) < 1 << 32:
        raise PacketError(f"packet: level {name!r} takes {len(coded.data)} bytes; 2^32 - 1 is the most")


def _share(coded: Coded) -> float:
    """How much of a map a tile is, at most."""
    height, width = coded.view.size
    return min(1.0, coded.tile / height) * min(1.0, coded.tile / width)


def _check_view(name: str, view: View) -> None:
    _check_size(view.size, f"view of level {name!r}")
    numbers = (*view.scale, *view.offset)
    sound = all(math.isfinite(number) and abs(number) <= LONGEST_EDGE for number in numbers)
    if not sound or min(view.scale) <= 1 / LONGEST_EDGE:
        raise PacketError(
            f"packet: level {name!r} was seen at scale {view.scale} and offset {view.offset}; expected "
            "a positive scale and both finite, fetch it again"
        )


def _check_tables(name: str, data: bytes, needed: Sequence[str]) -> None:
    if not name or name not in needed:
        raise PacketError(f"packet: no level needs the tables {name!r}; leave them out")
    if hashlib.sha256(data).hexdigest()[:16] != name:
        raise PacketError(f"packet: the tables {name} do not have that hash; the bytes are damaged, fetch them again")


def _parents_first(levels: Mapping[str, Coded]) -> dict[str, Coded]:
    ordered: dict[str, Coded] = {}
    while len(ordered) < len(levels):
        ready = {n: x for n, x in levels.items() if n not in ordered and (not x.parent or x.parent in ordered)}
        if not ready:
            left = ", ".join(repr(name) for name in levels if name not in ordered)
            raise PacketError(f"packet: the levels {left} are coded on top of each other; no chiasm writes that")
        ordered |= ready
    return ordered


@dataclass(frozen=True)
class _Header:
    """begin: of what follows the header. lengths, checksums: of each level's stream. tables: hash -> bytes."""

    space: str
    size: Size
    begin: int
    tables: dict[str, int]
    levels: dict[str, Coded]  # without data
    lengths: dict[str, int]
    checksums: dict[str, int]


def _header(data: bytes) -> _Header:
    if data[:4] != MAGIC:
        raise PacketError(
            f"not a chiasm packet: it starts with {data[:4]!r}, not {MAGIC!r}; give a file made by `chiasm pack`"
        )
    if len(data) < 7:
        raise PacketError(f"packet: {len(data)} bytes are fewer than a header has; it was cut short, fetch it again")
    version, length = struct.unpack_from("<BH", data, 4)
    if version != VERSION:
        raise PacketError(f"packet: version {version} is not known here (this chiasm reads {VERSION}); update chiasm")
    end = 7 + length
    if len(data) < end + 4 or struct.unpack_from("<I", data, end)[0] != zlib.crc32(data[:end]):
        raise PacketError("packet: the header's checksum does not match; the bytes are damaged, fetch them again")
    try:
        return _parsed(data[7:end], end + 4)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise PacketError(
            f"packet: its header does not parse ({error}); the bytes are damaged, fetch them again"
        ) from error


def _parsed(data: bytes, begin: int) -> _Header:
    fields = _Fields(data)
    space = fields.text()
    height, width, codecs, views, embedded, named = fields.take("<IIBBBB")
    made = [(fields.text(), fields.counted().hex()) for _ in range(codecs)]
    seen = [fields.view() for _ in range(views)]
    tables: dict[str, int] = {}
    for _ in range(embedded):
        name = fields.part(8).hex()
        (tables[name],) = fields.take("<I")
    levels: dict[str, Coded] = {}
    lengths: dict[str, int] = {}
    checksums: dict[str, int] = {}
    for _ in range(named):
        name = fields.text()
        codec, quality, view, tile, parent, dimensions, length, checksum = fields.take(_LEVEL)
        below = list(levels)[parent - 1] if parent else ""
        shape = fields.take(f"<{dimensions}I")
        base = checksums[below] if below else 0
        levels[name] = Coded(*made[codec], quality, shape, seen[view], b"", tile, below, base)
        lengths[name], checksums[name] = length, checksum
    if len(levels) != named or len(tables) != embedded or fields.at != len(data):
        raise IndexError(f"it names {len(levels)} of {named} levels and ends at {fields.at} of {len(data)} bytes")
    return _Header(space, (height, width), begin, tables, levels, lengths, checksums)


class _Fields:
    """Reads one field after another. Raises IndexError or struct.error behind the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def part(self, length: int) -> bytes:
        if self.at + length > len(self.data):
            raise IndexError("a field ends behind the header")
        self.at += length
        return self.data[self.at - length : self.at]

    def take(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.part(struct.calcsize(layout)))

    def text(self) -> str:
        return self.counted().decode()

    def counted(self) -> bytes:
        return self.part(self.part(1)[0])

    def view(self) -> View:
        height, width, resized = self.take("<IIB")
        if not resized:
            return View((height, width))
        down, right, top, left = struct.unpack("<4d", self.part(32))
        return View((height, width), (down, right), (top, left))


def _view(view: View) -> bytes:
    resized = (view.scale, view.offset) != ((1.0, 1.0), (0.0, 0.0))
    placed = struct.pack("<4d", *view.scale, *view.offset) if resized else b""
    return struct.pack("<IIB", *view.size, resized) + placed


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return bytes([len(data)]) + data


def seal(tiles: Sequence[bytes], tile: int) -> bytes:
    """The stream of a map: its tiles with their lengths. tile: edge in pixels; 0: the whole map is one, and alone."""
    if not tile:
        (whole,) = tiles
        return whole
    return struct.pack(f"<I{len(tiles)}I", len(tiles), *map(len, tiles)) + b"".join(tiles)


class Tiles:
    """Random access to the tiles of a level, row by row."""

    def __init__(self, coded: Coded, level: str) -> None:
        """Raises PacketError unless there are as many as the level's view asks for, and they end with the stream."""
        self.stream = coded.data
        if not coded.tile:
            self._ends = [0, len(self.stream)]
            return
        expected = count(coded.view.size, coded.tile)
        announced = int.from_bytes(self.stream[:4], "little")
        if announced != expected or len(self.stream) < 4 + 4 * expected:
            raise PacketError(
                f"packet: level {level!r} has {announced} tiles where the picture's size asks for {expected}; "
                "fetch it again"
            )
        lengths = struct.unpack_from(f"<{expected}I", self.stream, 4)
        self._ends = list(accumulate(lengths, initial=4 + 4 * expected))
        if self._ends[-1] != len(self.stream):
            raise PacketError(
                f"packet: the tiles of level {level!r} end at {self._ends[-1]} of {len(self.stream)} bytes; "
                "fetch it again"
            )

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.stream[self._ends[index] : self._ends[index + 1]]
