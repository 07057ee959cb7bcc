"""What kind of file some bytes are, by their content, and whether the file was cut short.

A suffix is a claim by whoever named the file. The first bytes decide which parser runs, so they are the
allow-list.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

Format = Literal["JPEG", "PNG", "WebP", "TIFF", "AVIF"]
HEADER_BYTES = 64

_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

# Pictures that we know and do not read: their owner is better served by "convert it" than by "not an image".
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"v/1\x01", "OpenEXR"),
    (b"%PDF", "PDF"),
    (b"\0\0\x01\0", "icon"),
    (b"qoif", "QOI"),
    (b"\x8aMNG", "MNG"),
)

_TIFF_WIDTHS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of each type; of the others 1
_TIFF_STARTS, _TIFF_LENGTHS = (273, 324), (279, 325)  # of strips, of tiles


def format_of(header: bytes) -> Format | None:
    """The format that a file beginning with these bytes has, or None when chiasm does not read it."""
    for magic, name in _SIGNATURES:
        if header.startswith(magic):
            return name
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        return "WebP"
    return "AVIF" if _brands(header) & {b"avif", b"avis"} else None


def refused_format_of(header: bytes) -> str | None:
    """The name of a picture format that is known but not read, or None."""
    for magic, name in _REFUSED:
        if header.startswith(magic):
            return name
    return "HEIF" if _brands(header) & {b"heic", b"heix", b"mif1", b"msf1", b"hevc"} else None


def _brands(header: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO media file; the header holds as many as fit."""
    if header[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(header[:4], "big"), len(header))
    return {header[8:12], *(header[at : at + 4] for at in range(16, end, 4))}


def is_cut_short(file: BinaryIO, kind: Format) -> bool:
    """Whether the file ends before its own structure says so. Slow: called to explain a failure."""
    lacks_end = {
        "JPEG": _jpeg_lacks_end,
        "PNG": _png_lacks_end,
        "WebP": _riff_lacks_end,
        "TIFF": _directory_lacks_end,
        "AVIF": _boxes_lack_end,
    }
    return lacks_end[kind](file, file.seek(0, os.SEEK_END))


def _jpeg_lacks_end(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - 2**16))
    return b"\xff\xd9" not in file.read()


def _riff_lacks_end(file: BinaryIO, size: int) -> bool:
    file.seek(4)
    return int.from_bytes(file.read(4), "little") + 8 > size


def _png_lacks_end(file: BinaryIO, size: int) -> bool:
    at = 8
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        at += int.from_bytes(head[:4], "big") + 12
        if head[4:] == b"IEND":
            return False
    return True


def _directory_lacks_end(file: BinaryIO, size: int) -> bool:
    """Whether the first directory of a TIFF, or what it points to, lies beyond the end."""
    file.seek(0)
    head = file.read(8)
    order: Literal["little", "big"] = "little" if head.startswith(b"II") else "big"

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)

    if number(head[2:4]) != 42:  # a BigTIFF: rare, and its failure keeps the general word
        return False
    start = number(head[4:])
    file.seek(start)
    count = number(file.read(2))
    table = file.read(12 * count)
    if not count or len(table) < 12 * count:
        return start + 2 + 12 * count > size
    starts, lengths = [0], [0]
    for entry in (table[at : at + 12] for at in range(0, len(table), 12)):
        tag, kind, items = number(entry[:2]), number(entry[2:4]), number(entry[4:8])
        width = _TIFF_WIDTHS.get(kind, 1)
        values = entry[8 : 8 + width * items]
        if width * items > 4:
            if number(entry[8:]) + width * items > size:
                return True
            file.seek(number(entry[8:]))
            values = file.read(width * items)
        if tag in (*_TIFF_STARTS, *_TIFF_LENGTHS):
            found = [number(values[at : at + width]) for at in range(0, len(values), width)]
            starts, lengths = (found, lengths) if tag in _TIFF_STARTS else (starts, found)
    return any(at + length > size for at, length in zip(starts, lengths, strict=False))


def _boxes_lack_end(file: BinaryIO, size: int) -> bool:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows the name
            length = int.from_bytes(head[8:], "big")
        if length == 0:  # the last box, to the end of the file
            return False
        if length < 8:
            return False
        at += length
    return at != size
