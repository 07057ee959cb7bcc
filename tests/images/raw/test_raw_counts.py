"""Counts that are not where a RAW file says are an error, and three colours for each pixel are said to be so."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest

from chiasm.errors import ImageError
from chiasm.images import DecoderPool, Mosaic, Picture, container, decode, find
from chiasm.images.raw import directories
from chiasm.images.raw.directories import Directory


def patched(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF whose first directory says `value` in its tag of one short or long number."""
    start = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[start : start + 2], "little")
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        if int.from_bytes(data[at : at + 2], "little") == tag:
            return data[: at + 8] + value.to_bytes(4, "little") + data[at + 12 :]
    raise AssertionError(f"no tag {tag}")


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3)])
def test_counts_beyond_the_end_are_truncated_before_anything_is_unpacked(save_dng, shape):
    path = save_dng(np.full(shape, 700, np.uint16))
    data = path.read_bytes()
    path.write_bytes(patched(data, 273, len(data) - 100))  # the strip begins 100 bytes before the end
    with pytest.raises(ImageError, match="its counts lie beyond its end") as caught:
        decode(path)
    assert caught.value.reason == "truncated"


def test_counts_that_should_be_a_jpeg_and_are_none_are_damage_and_not_what_memory_held(save_dng, counts):
    path = save_dng(counts)
    path.write_bytes(patched(path.read_bytes(), 259, 7))
    with pytest.raises(ImageError, match="no JPEG") as caught:
        decode(path)
    assert caught.value.reason == "damaged"


def test_a_jpeg_is_known_by_what_its_decoder_needs_first():
    whole = b"\xff\xd8\xff\xc4\0\x02\xff\xc3\0\x02\xff\xda"
    fields = {directories.COMPRESSION: (3, b"\x07\0"), directories.STARTS: (4, struct.pack("<I", 4))}
    for held, missing in ((whole, False), (whole[:-2], True), (whole[1:], True), (b"", True)):
        assert directories.jpeg_missing(BytesIO(b"II*\0" + held), [Directory("<", fields)]) is missing
    plain = fields | {directories.COMPRESSION: (3, b"\x01\0")}
    assert not directories.jpeg_missing(BytesIO(b""), [Directory("<", plain)])


@pytest.mark.parametrize(
    ("start", "size", "cut"), [(None, 900, False), (None, 899, True), (50, 950, False), (50, 949, True)]
)
def test_panasonics_start_of_the_counts_is_elsewhere(start, size, cut):
    fields = {directories.STARTS: (4, b"\xff" * 4), directories.LENGTHS: (4, struct.pack("<I", 900))}
    if start is not None:
        fields[directories.PANASONIC_START] = (4, struct.pack("<I", start))
    assert directories.strips_cut_short([Directory("<", fields)], size) is cut


def test_only_the_counts_must_be_whole(save_dng, counts):
    """A thumbnail may be gone: an editor's slip that costs the picture nothing."""
    thumbnail = struct.pack("<H", 2) + struct.pack("<HHII", 273, 4, 1, 10**6) + struct.pack("<HHII", 279, 4, 1, 10**6)
    path = save_dng(counts)
    data = path.read_bytes()
    start = int.from_bytes(data[4:8], "little")
    after = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data = data + bytes(len(data) % 2)
    path.write_bytes(data[:after] + len(data).to_bytes(4, "little") + data[after + 4 :] + thumbnail + bytes(4))
    assert isinstance(decode(path), Mosaic)
    with path.open("rb") as file:
        assert container.is_cut_short(file, "DNG")
        assert container.fault_of_counts(file, "DNG") == ""


def test_three_colours_for_each_pixel_are_said_to_be_so(save_dng, counts, save, photo):
    path = save_dng(counts[..., None].repeat(3, 2), black=(16,), more=[(34855, "H", 1, 800)])
    alone = decode(path)
    with DecoderPool(1) as pool:
        sent, mosaic, photograph = (
            shot for _, shot in pool.decode_all([path, save_dng(counts, "b.dng"), save(photo, "c.png")])
        )
    for shot in (alone, sent):
        assert isinstance(shot, Picture)
        assert (shot.sensor.camera, shot.sensor.iso, shot.sensor.white) == ("Maker Model 7", 800.0, 4095.0)
        assert "linear (already demosaiced, encoded as a picture)" in str(shot.sensor)
        assert shot.remark.startswith(f"{path}: this RAW file is linear (already demosaiced")
        assert shot.frame().sensor is None  # its pixels are a photograph's
    assert sent.sensor == alone.sensor
    assert (mosaic.remark, photograph.remark, photograph.sensor) == ("", "", None)


def test_folders_are_searched_for_what_libraw_reads(tmp_path):
    names = ["a.CRW", "b.nrw", "c.rwl", "d.iiq", "e.mrw", "f.3FR"]
    for name in [*names, "g.xmp"]:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find(tmp_path)] == names
