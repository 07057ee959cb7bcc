"""Rotation and colour profiles."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from chiasm.images import decode

# Linear sRGB to XYZ under D50, the profile connection space.
SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)

# What has to be done to the stored picture so that it is upright (EXIF 2.32, tag 0x0112).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.webp", {"lossless": True})])
def test_each_exif_orientation_is_turned_upright_exactly(save, photo, name, options, orientation):
    picture = decode(save(photo, name, exif=exif(orientation), **options))
    assert np.array_equal(picture.pixels, UPRIGHT[orientation](photo))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_each_tiff_orientation_is_turned_upright_exactly_and_once(save, photo, options, orientation):
    picture = decode(save(photo, "a.tif", tiffinfo={0x0112: orientation}, **options))
    assert np.array_equal(picture.pixels, UPRIGHT[orientation](photo))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_each_jpeg_orientation_is_turned_upright_exactly(save, photo, orientation):
    stored = decode(save(photo, "plain.jpg")).pixels
    assert np.array_equal(
        decode(save(photo, "a.jpg", exif=exif(orientation))).pixels, UPRIGHT[orientation](stored)
    )


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_each_avif_orientation_is_turned_upright(save, photo, orientation):
    stored = decode(save(photo, "plain.avif", quality=95)).pixels
    got = decode(save(photo, "a.avif", quality=95, exif=exif(orientation))).pixels
    assert np.array_equal(got, UPRIGHT[orientation](stored))


def test_16_bit_pictures_are_turned_too(save):
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    got = decode(save(grey, "a.png", exif=exif(6))).pixels
    assert np.array_equal(got[..., 0], np.rot90(grey, -1))


def test_large_pictures_are_turned_strip_by_strip(save):
    tall = np.random.default_rng(0).integers(0, 256, (1500, 1700, 3), np.uint8)  # more than one strip
    for orientation in (1, 6, 7):
        got = decode(save(tall, "a.tif", tiffinfo={0x0112: orientation})).pixels
        assert np.array_equal(got, UPRIGHT[orientation](tall))
        got = decode(save(tall, "a.png", compress_level=0, exif=exif(orientation))).pixels
        assert np.array_equal(got, UPRIGHT[orientation](tall))


@pytest.mark.parametrize(
    "metadata", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0" + bytes(40), exif(99)]
)
def test_damaged_metadata_costs_nothing_but_the_rotation(save, photo, metadata):
    plain = decode(save(photo, "plain.jpg")).pixels
    assert np.array_equal(decode(save(photo, "a.jpg", exif=metadata)).pixels, plain)


def test_an_srgb_profile_changes_no_value(save, photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, options in [("a.png", {}), ("a.tif", {}), ("a.webp", {"lossless": True})]:
        assert np.array_equal(decode(save(photo, name, icc_profile=profile, **options)).pixels, photo)


def test_a_profile_with_red_and_green_exchanged_exchanges_them(save):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    path = save(red, "a.png", icc_profile=rgb_profile(SRGB_TO_XYZ[:, [1, 0, 2]], 2.2))
    assert np.abs(decode(path).pixels[4, 4].astype(int) - (0, 255, 0)).max() <= 3


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_matrix_profile_gives_what_its_equation_says(save, photo, gamma):
    """sRGB = encode(M^-1 N v^gamma), N being the profile's matrix and M that of sRGB."""
    matrix = SRGB_TO_XYZ @ np.array([[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.0, 0.1, 0.9]])
    got = decode(save(photo, "a.png", icc_profile=rgb_profile(matrix, gamma))).pixels
    linear = (photo / 255.0) ** gamma @ (np.linalg.inv(SRGB_TO_XYZ) @ matrix).T
    wanted = 255 * srgb_encode(linear)
    bright = photo.min(-1) > 20  # an 8-bit table is coarse where the curve is steep
    assert bright.sum() > 1000
    assert np.abs(got - wanted)[bright].max() <= 3
    assert np.abs(got - photo.astype(int)).mean() > 5


def test_a_profile_gives_what_littlecms_gives(save, photo):
    profile = rgb_profile(SRGB_TO_XYZ[:, [2, 0, 1]], 2.0)
    wanted = ImageCms.profileToProfile(
        Image.fromarray(photo),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert np.array_equal(decode(save(photo, "a.png", icc_profile=profile)).pixels, np.asarray(wanted))


def test_a_profile_applies_to_grey_palette_and_transparent_pictures(save):
    grey = np.full((8, 8), 128, np.uint8)
    wanted = round(255 * float(srgb_encode(np.array(128 / 255))))  # a linear profile
    assert wanted == 188
    linear = rgb_profile(SRGB_TO_XYZ, 1.0)
    cases = [
        save(grey, "l.png", icc_profile=grey_profile(1.0)),
        save(
            Image.merge("LA", [Image.fromarray(grey)] + [Image.new("L", (8, 8), 255)]),
            "la.png",
            icc_profile=grey_profile(1.0),
        ),
        save(Image.fromarray(grey).convert("P"), "p.png", icc_profile=linear),
        save(Image.fromarray(grey).convert("RGBA"), "rgba.png", icc_profile=linear),
    ]
    for path in cases:
        assert np.abs(decode(path).pixels.astype(int) - wanted).max() <= 1, path
    assert len(cases) == 4


def test_a_broken_or_foreign_profile_is_ignored(save, photo):
    profiles = [b"not a profile", bytes(200), rgb_profile(SRGB_TO_XYZ, 1.0)[:150], grey_profile(1.0)]
    for profile in profiles:
        assert np.array_equal(decode(save(photo, "a.png", icc_profile=profile)).pixels, photo)
    assert len(profiles) == 4


# Small ICC profiles made by hand (ICC.1:2001-04, version 2), since Pillow can make only sRGB and LAB.


def rgb_profile(matrix: np.ndarray, gamma: float) -> bytes:
    """A matrix profile: device values to the power gamma, times the matrix, are XYZ."""
    tags = {f"{name}XYZ": _xyz(matrix[:, i]) for i, name in enumerate("rgb")}
    tags |= {f"{name}TRC": _curve(gamma) for name in "rgb"}
    return _profile("RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile("GRAY", {"kTRC": _curve(gamma)})


def srgb_encode(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB in [0, 1] (IEC 61966-2-1)."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def _xyz(value: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(v) * 65536)) for v in value)


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space: str, tags: dict[str, bytes]) -> bytes:
    text = b"test\0"
    tags = {
        "desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        "cprt": b"text\0\0\0\0" + text,
        "wtpt": _xyz(np.array([0.9642, 1.0, 0.8249])),
        **tags,
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name.encode(), start + len(body), len(data))
        body += padded
    size = start + len(body)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", size, b"test", 0x02100000, b"mntr", space.encode(), b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)  # the D50 illuminant
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
