"""Each format and pixel layout comes out as upright sRGB, H x W x 3."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm.errors import ConfigError, ImageError
from chiasm.images import Limits, decode, read

LOSSLESS = [
    ("a.png", {}),
    ("a.webp", {"lossless": True}),
    ("a.tif", {}),
    ("a.tiff", {"compression": "tiff_lzw"}),
    ("a.tif", {"compression": "tiff_adobe_deflate"}),
]
LOSSY = [
    ("a.jpg", {"quality": 98, "subsampling": 0}),
    ("a.jpg", {"quality": 98, "subsampling": 0, "progressive": True}),
    ("a.webp", {"quality": 98}),
    ("a.avif", {"quality": 98}),
]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, for the layouts that Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("name", "options"), LOSSLESS)
def test_lossless_formats_come_back_exactly(save, photo, name, options):
    assert np.array_equal(decode(save(photo, name, **options)).pixels, photo)


@pytest.mark.parametrize(("name", "options"), LOSSY)
def test_lossy_formats_come_back_nearly(save, photo, name, options):
    picture = decode(save(photo, name, **options))
    assert picture.pixels.shape == photo.shape
    assert picture.pixels.dtype == np.uint8
    assert np.abs(picture.pixels.astype(int) - photo).mean() < 3


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"])
def test_red_stays_red(save, name):
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 250
    middle = decode(save(red, name)).pixels[16, 16]
    assert middle[0] > 230
    assert max(middle[1:]) < 25


def test_a_picture_knows_its_file(save, photo):
    path = save(photo, "a.png")
    picture = decode(path)
    assert picture.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert picture.source_bytes == path.stat().st_size
    assert picture.uri == str(path)
    assert picture.size == (48, 64)


def test_the_content_decides_and_not_the_suffix(save, photo):
    path = save(photo, "a.png")
    assert np.array_equal(decode(path.rename(path.with_suffix(".jpg"))).pixels, photo)


def test_read_gives_a_frame_of_floats(save, photo):
    frame = read(save(photo, "a.png"))
    assert frame.kind == "rgb"
    assert frame.size == (48, 64)
    assert np.array_equal(frame.pixels.numpy(), photo.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"])
def test_extreme_shapes_are_pictures(save, name, height, width):
    pixels = np.full((height, width, 3), 99, np.uint8)
    picture = decode(save(pixels, name))
    assert picture.size == (height, width)
    assert np.abs(picture.pixels.astype(int) - 99).max() <= 6


@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"})]
)
def test_16_bit_grey_keeps_16_bits(save, name, options):
    grey = (np.arange(48 * 64, dtype=np.uint32) * 21).astype(np.uint16).reshape(48, 64)
    assert len(np.unique(grey)) == 3072
    picture = decode(save(grey, name, **options))
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels, np.repeat(grey[..., None], 3, -1))


def test_big_endian_16_bit_grey_tiff_keeps_16_bits(save):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    picture = decode(save(Image.frombytes("I;16B", (16, 16), grey.astype(">u2").tobytes()), "a.tif"))
    assert np.array_equal(picture.pixels[..., 1], grey)


def test_16_bit_grey_tiff_with_white_as_zero_is_turned_over(save):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    picture = decode(save(grey, "a.tif", tiffinfo={262: 0}))
    assert np.array_equal(picture.pixels[..., 2], 65535 - grey)


def test_16_bit_rgb_png_is_read_to_its_upper_8_bits(tmp_path):
    values = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 85
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(16, 16, 16, 2, rows))
    picture = decode(tmp_path / "a.png")
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, values >> 8)


def test_8_bit_grey_and_1_bit_are_grey_in_all_channels(save, photo):
    grey = photo[..., 0]
    assert np.array_equal(decode(save(grey, "a.png")).pixels, np.repeat(grey[..., None], 3, -1))
    bits = (grey > 100)[..., None]
    one_bit = Image.fromarray(grey).point(lambda v: 255 * (v > 100)).convert("1", dither=Image.Dither.NONE)
    for name in ("b.png", "b.tif"):
        assert np.array_equal(decode(save(one_bit, name)).pixels, np.repeat(bits * np.uint8(255), 3, -1))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparency_is_laid_over_white(save, photo, name):
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    got = decode(
        save(np.dstack([photo, alpha]), name, **({"lossless": True} if name == "a.webp" else {}))
    ).pixels
    cover = alpha[..., None] / 255
    wanted = photo * cover + 255 * (1 - cover)
    assert np.abs(got - wanted).max() <= 0.51
    assert np.array_equal(got[:, 0], np.full((48, 3), 255))
    assert np.array_equal(got[:, -1], photo[:, -1])


def test_grey_with_alpha_is_laid_over_white(save):
    grey, alpha = np.uint8([[0, 100, 200]]), np.uint8([[255, 255, 0]])
    got = decode(save(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), "a.png")).pixels
    assert got[0, :, 0].tolist() == [0, 100, 255]


def test_a_transparent_palette_colour_is_white(save):
    palette = Image.fromarray(np.uint8([[0, 1, 2]]), "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(save(palette, "a.png")).pixels[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    clear = decode(save(palette, "b.png", transparency=1)).pixels
    assert clear[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    some = decode(save(palette, "c.png", transparency=bytes([255, 0, 128]))).pixels
    assert some[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 255]]


def test_a_transparent_colour_of_an_opaque_png_is_white(save, photo):
    key = tuple(int(v) for v in photo[5, 7])
    got = decode(save(photo, "a.png", transparency=key)).pixels
    hit = (photo == key).all(-1)
    assert hit.sum() >= 1
    assert np.array_equal(got[~hit], photo[~hit])
    assert (got[hit] == 255).all()
    deep = np.uint16([[5, 70, 65535]])
    assert decode(save(deep, "b.png", transparency=70)).pixels[0, :, 0].tolist() == [5, 65535, 65535]


def test_cmyk_as_adobe_writes_it_has_the_right_way_up(save):
    ink = np.zeros((32, 32, 4), np.uint8)
    ink[..., 0] = 255  # full cyan
    for name in ("a.jpg", "a.tif"):
        middle = decode(save(Image.fromarray(ink, "CMYK"), name)).pixels[16, 16]
        assert middle[0] < 20
        assert min(middle[1:]) > 235


def test_lab_tiff_comes_out_in_srgb(save):
    lab = Image.merge("LAB", [Image.new("L", (8, 8), 128)] * 3)  # L* = 50, neutral
    middle = decode(save(lab, "a.tif")).pixels[4, 4].astype(int)
    assert np.abs(middle - 119).max() <= 2


@pytest.mark.parametrize(
    ("name", "options"), [("a.webp", {"lossless": True}), ("a.png", {}), ("a.avif", {"quality": 98})]
)
def test_an_animation_is_its_first_frame(save, photo, name, options):
    first, second = Image.fromarray(photo), Image.fromarray(255 - photo)
    path = save(first, name, save_all=True, append_images=[second], **options)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert np.abs(decode(path).pixels.astype(int) - photo).mean() < 3


@pytest.mark.parametrize(
    ("name", "word"), [("a.gif", "GIF"), ("a.bmp", "BMP"), ("a.jp2", "JPEG 2000"), ("a.ico", "icon")]
)
def test_other_picture_formats_are_unsupported_by_name(save, photo, name, word):
    with pytest.raises(ImageError, match=word) as caught:
        decode(save(photo, name))
    assert caught.value.reason == "unsupported"


def test_an_animated_gif_is_unsupported(save, photo):
    path = save(Image.fromarray(photo), "a.gif", save_all=True, append_images=[Image.fromarray(255 - photo)])
    with pytest.raises(ImageError, match="GIF") as caught:
        decode(path)
    assert caught.value.reason == "unsupported"


def test_heic_is_unsupported_and_not_mistaken_for_avif(tmp_path):
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.avif").write_bytes(head + bytes(200))
    with pytest.raises(ImageError, match="HEIF") as caught:
        decode(tmp_path / "a.avif")
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_float_and_32_bit_tiff_are_unsupported(save, dtype):
    with pytest.raises(ImageError, match="mode '[FI]'") as caught:
        decode(save(np.ones((8, 8), dtype), "a.tif"))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("field", ["pixels", "file_bytes", "seconds", "memory_bytes"])
def test_a_limit_that_nothing_can_meet_is_refused(field):
    with pytest.raises(ConfigError, match=field):
        Limits(**{field: 0})


def test_importing_the_camera_imports_no_torch_and_no_foreign_parser():
    code = "import sys, chiasm.images; print('torch' in sys.modules, 'PIL.GifImagePlugin' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_the_astronaut_of_skimage_comes_through(save):
    data = pytest.importorskip("skimage.data")
    astronaut = data.astronaut()
    assert np.array_equal(decode(save(astronaut, "a.png")).pixels, astronaut)
    near = decode(save(astronaut, "a.jpg", quality=95)).pixels
    assert np.abs(near.astype(int) - astronaut).mean() < 3


def test_a_path_may_be_text(save, photo):
    assert isinstance(Path, type)
    assert decode(str(save(photo, "a.png"))).size == (48, 64)
