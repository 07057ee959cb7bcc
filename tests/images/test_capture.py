"""What files say of how they were taken is read, whatever the format; what is absurd is unknown."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from PIL import Image

from chiasm.contracts import Capture
from chiasm.images import DecoderPool, decode
from chiasm.images.capture import FRAME_DIAGONAL, capture_of, directories_of

SUFFIXES = ("jpg", "png", "webp", "avif", "tif")


def exif(**facts: object) -> Image.Exif:
    """An EXIF block of a camera, with some facts of its sub-directory replaced or, when None, left out."""
    block = Image.Exif()
    block[271], block[272], block[306] = "Nikon Corporation", "D90", "2020:01:01 00:00:00"
    inner = {36867: "2019:08:05 17:03:09", 41989: 50}
    names = {"taken": 36867, "focal": 37386, "x": 41486, "y": 41487, "unit": 41488, "focal35": 41989}
    names |= {"width": 40962, "height": 40963}
    for name, value in facts.items():
        inner.pop(names[name], None)
        if value is not None:
            inner[names[name]] = value
    block.get_ifd(0x8769).update(inner)
    return block


def told(block: Image.Exif, size: tuple[int, int] = (48, 64)) -> Capture:
    return capture_of(directories_of(block.tobytes()), size)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_tells_the_same(save, photo, suffix):
    path = save(photo, f"a.{suffix}", exif=exif().tobytes())
    wanted = Capture("2019-08-05T17:03:09", "Nikon Corporation D90", 50.0)
    assert decode(path).capture == wanted
    with DecoderPool(1) as pool:
        ((_, outcome),) = pool.decode_all([path])
    assert outcome.capture == wanted


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_facts_has_none(save, photo, suffix):
    assert decode(save(photo, f"a.{suffix}")).capture == Capture()


def test_the_camera_of_a_raw_file_and_its_sensor_come_through_a_worker(save_dng, counts):
    path = save_dng(counts, "a.dng")
    alone = decode(path)
    with DecoderPool(1) as pool:
        ((_, outcome),) = pool.decode_all([path])
    assert outcome.capture == alone.capture
    assert alone.capture.sensor == alone.sensor
    assert alone.sensor is not None
    assert alone.capture.camera == alone.sensor.camera


@pytest.mark.parametrize(
    ("unit", "per_mm"), [(2, 25.4), (3, 10.0), (4, 1.0), (None, 25.4)], ids=["inch", "cm", "mm", "not given"]
)
def test_the_focal_length_follows_from_the_size_of_the_sensor(unit, per_mm):
    """A sensor of 23.6 x 15.8 mm has 4288 x 2848 pixels; the picture may have been made smaller or turned."""
    density = 4288 / 23.6 * per_mm
    block = exif(focal35=None, focal=35.0, x=density, y=density, unit=unit, width=4288, height=2848)
    wanted = 35.0 * FRAME_DIAGONAL / math.hypot(23.6, 2848 / 4288 * 23.6)
    for size in ((2848, 4288), (640, 426)):
        assert told(block, size).focal_35mm == pytest.approx(wanted, abs=0.02)
    without_size = exif(focal35=None, focal=35.0, x=density, unit=unit)
    assert told(without_size, (4288, 2848)).focal_35mm == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    "facts",
    [
        {"focal35": 0},
        {"focal35": 65535},
        {"focal35": None, "focal": 35.0},
        {"focal35": None, "focal": 35.0, "x": 0.0, "unit": 2},
        {"focal35": None, "focal": 35.0, "x": 1e-3, "unit": 2},
        {"focal35": None, "focal": 0.0, "x": 4000.0, "unit": 2},
    ],
)
def test_an_absurd_focal_length_is_unknown(facts):
    assert told(exif(**facts)).focal_35mm == 0.0


@pytest.mark.parametrize(
    "taken", [None, "0000:00:00 00:00:00", "    :  :     :  :  ", "2019:13:05 17:03:09", "yesterday", "2019-08-05"]
)
def test_a_time_that_is_none_is_unknown(taken):
    assert told(exif(taken=taken)).time == ""  # nor is it the time of the last change


def test_damaged_blocks_never_cost_the_picture(save, photo):
    whole = exif().tobytes()
    random = np.random.default_rng(5)
    for _ in range(200):
        damaged = bytearray(whole)
        for at in random.integers(6, len(whole), 3):
            damaged[at] = random.integers(256)
        kept = capture_of(directories_of(bytes(damaged[: random.integers(len(whole))])), (48, 64))
        assert math.isfinite(kept.focal_35mm)
    path = save(photo, "a.webp", exif=b"Exif\0\0II*\0" + struct.pack("<I", 2**32 - 1))
    assert decode(path).capture == Capture()

