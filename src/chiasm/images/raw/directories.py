"""The directories of a TIFF-like file (TIFF, DNG, NEF, CR2, ORF, RW2, ...), read within bounds.

    header ──offset──► directory ──next, SubIFDs, EXIF──► further directories, each once, `_MOST` at most

A file that nobody vouches for may point in circles or claim billions of values: nothing is followed twice, and only
the values of the tags that chiasm asks for are read, up to `_VALUE_BYTES` each.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

COMPRESSION, PHOTOMETRIC, MAKE, MODEL, STARTS, ORIENTATION, LENGTHS = 259, 262, 271, 272, 273, 274, 279
SUB_DIRECTORIES, EXIF, TILE_STARTS, TILE_LENGTHS = 330, 34665, 324, 325
PANASONIC_START = 280  # where the counts begin when STARTS says `_ELSEWHERE`
TAKEN, FOCAL_LENGTH, WIDTH, HEIGHT = 36867, 37386, 40962, 40963
FOCAL_PLANE_X, FOCAL_PLANE_Y, FOCAL_PLANE_UNIT, FOCAL_LENGTH_35MM = 41486, 41487, 41488, 41989
ISO, DNG_VERSION, UNIQUE_MODEL, WHITE_LEVEL, NOISE_PROFILE = 34855, 50706, 50708, 50717, 51041
COLOUR_FILTER_ARRAY, LINEAR_RAW = 32803, 34892  # values of PHOTOMETRIC that only RAW files have

# TIFF, two of Olympus and one of Panasonic; BigTIFF has another layout and no camera writes it
_HEADS = (b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
_WANTED = frozenset(
    {PHOTOMETRIC, MAKE, MODEL, STARTS, LENGTHS, SUB_DIRECTORIES, EXIF, TILE_STARTS, TILE_LENGTHS, ISO}
    | {COMPRESSION, PANASONIC_START, ORIENTATION, DNG_VERSION, UNIQUE_MODEL, WHITE_LEVEL, NOISE_PROFILE}
    | {TAKEN, FOCAL_LENGTH, WIDTH, HEIGHT, FOCAL_PLANE_X, FOCAL_PLANE_Y, FOCAL_PLANE_UNIT, FOCAL_LENGTH_35MM}
)
_MOST, _ENTRIES, _VALUE_BYTES = 32, 2048, 2**18
_ELSEWHERE = 2**32 - 1
_JPEG, _JPEG_HEADER = 7, 2**12
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_RATIONALS = {5: "I", 10: "i"}

Order = Literal["<", ">"]


@dataclass(frozen=True)
class Directory:
    """One directory: the wanted tags, each with its type and its bytes. following: where the next one begins."""

    order: Order
    fields: Mapping[int, tuple[int, bytes]]
    following: int = 0
    cut: bool = False  # something in it lies beyond the end of the file

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The values of a tag; none when it is absent, of another kind, or a fraction over zero."""
        kind, data = self.fields.get(tag, (0, b""))
        code = _CODES.get(kind) or _RATIONALS.get(kind)
        if code is None:
            return ()
        count = len(data) // struct.calcsize(code)
        values: tuple[float, ...] = struct.unpack_from(f"{self.order}{count}{code}", data)
        if kind in _RATIONALS:
            pairs = list(zip(values[::2], values[1::2], strict=False))
            return tuple(above / below for above, below in pairs) if all(below for _, below in pairs) else ()
        return values

    def offsets(self, tag: int) -> tuple[int, ...]:
        """The values of a tag that holds places in the file."""
        return tuple(int(value) for value in self.numbers(tag) if 0 <= value < 2**32)

    def text(self, tag: int) -> str:
        """The text of a tag up to its first null, on one line; empty when it is absent."""
        data = self.fields.get(tag, (0, b""))[1].partition(b"\0")[0]
        return " ".join("".join(letter if letter.isprintable() else " " for letter in data.decode("latin-1")).split())


def read(file: BinaryIO) -> list[Directory]:
    """All directories that the file's first one leads to, that one first; none when it is no TIFF."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(8)
    if len(head) < 8 or not head.startswith(_HEADS):
        return []
    order: Order = "<" if head.startswith(b"II") else ">"
    waiting, seen, found = deque([struct.unpack(order + "I", head[4:])[0]]), set[int](), list[Directory]()
    while waiting and len(seen) < _MOST:
        at = waiting.popleft()
        if at in seen or not at:
            continue
        seen.add(at)
        directory = _directory(file, at, size, order)
        found.append(directory)
        waiting.extend(directory.offsets(SUB_DIRECTORIES)[:_MOST])
        waiting.extend((*directory.offsets(EXIF)[:1], directory.following))
    return found


def cut_short(found: list[Directory], size: int) -> bool:
    """Whether a directory, one of its values or what it points to lies beyond the end of the file."""
    return any(directory.cut for directory in found) or strips_cut_short(found, size)


def strips_cut_short(found: list[Directory], size: int) -> bool:
    """Whether a strip or tile of these directories lies beyond the end of the file."""
    return any(end > size for directory in found for end in _ends(directory))


def jpeg_missing(file: BinaryIO, found: list[Directory]) -> bool:
    """Whether a strip or tile of these directories that should be a JPEG does not begin as one."""
    for directory in found:
        starts = directory.offsets(STARTS) + directory.offsets(TILE_STARTS)
        for start in starts if directory.numbers(COMPRESSION) == (_JPEG,) else ():
            file.seek(start)
            head = file.read(_JPEG_HEADER)
            # start, frame (lossless or not), table of codes, scan: what a decoder needs before the first pixel
            frame = any(bytes((255, kind)) in head for kind in (0xC0, 0xC1, 0xC3))
            if not (head.startswith(b"\xff\xd8\xff") and frame and b"\xff\xc4" in head and b"\xff\xda" in head):
                return True
    return False


def _ends(directory: Directory) -> Iterator[int]:
    """Where the strips and tiles of a directory end."""
    for starts, lengths in ((STARTS, LENGTHS), (TILE_STARTS, TILE_LENGTHS)):
        for start, length in zip(directory.offsets(starts), directory.offsets(lengths), strict=False):
            yield length + (max(directory.offsets(PANASONIC_START), default=0) if start == _ELSEWHERE else start)


def _directory(file: BinaryIO, at: int, size: int, order: Order) -> Directory:
    file.seek(at)
    count = int.from_bytes(file.read(2), "little" if order == "<" else "big")
    table = file.read(12 * min(count, _ENTRIES))
    cut = not count or at + 2 + 12 * count > size
    fields: dict[int, tuple[int, bytes]] = {}
    for tag, kind, items, inline in struct.iter_unpack(order + "HHI4s", table[: len(table) // 12 * 12]):
        width = struct.calcsize(_CODES.get(kind, "")) or (8 if kind in _RATIONALS else 0)
        length = width * items
        if length <= 4:
            data = inline[:length]
        else:
            start = struct.unpack(order + "I", inline)[0]
            cut = cut or start + length > size
            if tag not in _WANTED or length > _VALUE_BYTES:
                continue
            file.seek(start)
            data = file.read(length)
        if tag in _WANTED and len(data) == length:
            fields[tag] = kind, data
    file.seek(at + 2 + 12 * count)
    following = file.read(4)
    return Directory(order, fields, struct.unpack(order + "I", following)[0] if len(following) == 4 else 0, cut)
