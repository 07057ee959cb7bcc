"""What kind of file some bytes are, by their content, and whether the file was cut short.

A suffix is a claim by whoever named the file. The first bytes decide which parser runs, so they are the
allow-list.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

from chiasm.images.raw import directories

Format = Literal[
    "JPEG", "PNG", "WebP", "TIFF", "AVIF", "DNG", "CR2", "CR3", "CRW", "RAF", "ORF", "RW2", "MRW", "X3F", "RAW"
]
# RAW: any other TIFF-like
RAW_FORMATS: tuple[Format, ...] = ("DNG", "CR2", "CR3", "CRW", "RAF", "ORF", "RW2", "MRW", "X3F", "RAW")
HEADER_BYTES = 64

_HUFFMAN_FRAMES = {0xC0: 2, 0xC1: 2, 0xC2: 1}  # bits that a block takes at least, by the marker of the frame
_MOST_SEGMENTS = 1024  # of a JPEG before its frame

_SENSORS = {directories.COLOUR_FILTER_ARRAY, directories.LINEAR_RAW}

_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"IIU\0", "RW2"),
    (b"FOVb", "X3F"),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
    (b"\0MRM", "MRW"),
)

# Behind the first 8 bytes of an IIQ, whose TIFF directories show only its thumbnail
_PHASE_ONE = (b"IIIITwaR", b"IIIICwaR", b"MMMMRawT", b"MMMMRawC")

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


def format_of(file: BinaryIO) -> Format | None:
    """The format of a file by its content, or None when chiasm does not read it.

    A TIFF counts as RAW when its directories say so; its first bytes do not.
    """
    file.seek(0)
    header = file.read(HEADER_BYTES)
    kind = _format_of_header(header)
    if kind != "TIFF":
        return kind
    if header[8:10] == b"CR":
        return "CR2"
    if header[8:16] in _PHASE_ONE:
        return "RAW"
    found = directories.read(file)
    if any(directories.DNG_VERSION in directory.fields for directory in found[:1]):
        return "DNG"
    return "RAW" if any(_SENSORS & {*each.numbers(directories.PHOTOMETRIC)} for each in found) else "TIFF"


def _format_of_header(header: bytes) -> Format | None:
    for magic, name in _SIGNATURES:
        if header.startswith(magic):
            return name
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        return "WebP"
    brands = _brands(header)
    return "CR3" if b"crx " in brands else "AVIF" if brands & {b"avif", b"avis"} else None


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


def least_bytes(file: BinaryIO, kind: Format) -> int:
    """Fewer bytes cannot hold a picture of the size in the header; 0 where no bound is known.

    JPEG: each block of 8 x 8 samples takes a Huffman code for its mean, one bit or more, and in a sequential file
    another for its end. Arithmetic codes may take less, so those have no bound. PNG: deflate shrinks by a factor of
    1,032 at most. The other formats can say "all of it alike" in a few bytes.
    """
    file.seek(0)
    if kind == "JPEG":
        return _least_of_jpeg(file)
    return _least_of_png(file.read(33)) if kind == "PNG" else 0


def _least_of_jpeg(file: BinaryIO) -> int:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return 0
        if head[1] == 0xFF:  # a filling byte
            at += 1
        elif head[1] in _HUFFMAN_FRAMES:
            bits = _HUFFMAN_FRAMES[head[1]] * _blocks_of_frame(file.read(6 + 3 * 4))
            return -(-bits // 8)
        elif head[1] in (0xD9, 0xDA) or 0xC9 <= head[1] <= 0xCF and head[1] != 0xCC:
            return 0
        else:
            at += 2 + int.from_bytes(head[2:], "big")
    return 0


def _blocks_of_frame(frame: bytes) -> int:
    """Blocks of all components. frame: precision, height, width, number of components, three bytes for each."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    factors = [(factor >> 4, factor & 15) for factor in frame[7 : 6 + 3 * frame[5] : 3]] if len(frame) > 5 else []
    if not factors or not all(across and down for across, down in factors):
        return 0
    most_across, most_down = max(across for across, _ in factors), max(down for _, down in factors)
    return sum(
        -(-width * across // (8 * most_across)) * -(-height * down // (8 * most_down)) for across, down in factors
    )


def _least_of_png(header: bytes) -> int:
    if header[12:16] != b"IHDR" or len(header) < 26:
        return 0
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    bits = header[24] * {2: 3, 4: 2, 6: 4}.get(header[25], 1)
    return height * (-(-width * bits // 8)) // 1032


def is_cut_short(file: BinaryIO, kind: Format) -> bool:
    """Whether the file ends before its own structure says so. Slow: called to explain a failure."""
    lacks_end = {
        "JPEG": _jpeg_lacks_end,
        "PNG": _png_lacks_end,
        "WebP": _riff_lacks_end,
        "AVIF": _boxes_lack_end,
        "CR3": _boxes_lack_end,
        "RAF": _raf_lacks_end,
    }
    return lacks_end.get(kind, _directories_lack_end)(file, file.seek(0, os.SEEK_END))


def fault_of_counts(file: BinaryIO, kind: Format) -> Literal["", "truncated", "damaged"]:
    """What is wrong with where a RAW file says its counts are; empty when nothing is.

    Asked before LibRaw unpacks: what is not there it takes for zeros, or for whatever its memory held before.
    """
    if kind in ("CR3", "RAF"):
        return "truncated" if is_cut_short(file, kind) else ""
    found = directories.read(file)
    if kind not in ("CR2", "ORF", "RW2"):  # those do not say which of their directories is the sensor's
        found = [each for each in found if _SENSORS & {*each.numbers(directories.PHOTOMETRIC)}]
    if directories.strips_cut_short(found, file.seek(0, os.SEEK_END)):
        return "truncated"
    return "damaged" if kind == "DNG" and directories.jpeg_missing(file, found) else ""


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


def _directories_lack_end(file: BinaryIO, size: int) -> bool:
    """Whether a directory of a TIFF-like file, or what one points to, lies beyond the end."""
    return size < 8 or directories.cut_short(directories.read(file), size)


def _raf_lacks_end(file: BinaryIO, size: int) -> bool:
    """Whether the preview, the description or the counts of a Fujifilm file lie beyond the end."""
    file.seek(84)
    places = file.read(24)
    numbers = [int.from_bytes(places[at : at + 4], "big") for at in range(0, 24, 4)]
    return len(places) < 24 or any(sum(numbers[at : at + 2]) > size for at in (0, 2, 4))


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
