"""Whatever the bytes are, the outcome is a Picture or an ImageError with the right word."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm.errors import ImageError
from chiasm.images import DecoderPool, Limits, Picture, decode
from chiasm.images.isolation.worker import attempt

KINDS = {
    "jpeg": ("JPEG", {"quality": 80}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {}),
}


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    name, options = KINDS[kind]
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, name, **options)
    return data.getvalue()


def refusal(path: Path, limits: Limits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(path, limits or Limits())
    return caught.value


def png_head(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    parts = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_an_error_that_names_the_file(tmp_path, photo, kind):
    whole = encoded(photo, kind)
    path = tmp_path / "holiday.img"
    path.write_bytes(whole)
    pixels = decode(path).pixels
    reasons = Counter[str]()
    cuts = sorted(
        {*np.linspace(12, len(whole) - 1, 120).astype(int).tolist(), *range(len(whole) - 30, len(whole))}
    )
    for cut in cuts:
        path.write_bytes(whole[:cut])
        outcome = attempt(decode, path, Limits())
        if isinstance(outcome, ImageError):
            assert "holiday.img" in str(outcome)
            reasons[outcome.reason] += 1
        else:  # only the end mark is missing
            assert np.array_equal(outcome.pixels, pixels)
            assert cut > len(whole) - 30
            reasons["complete"] += 1
    assert sum(reasons.values()) == len(cuts) >= 60
    assert set(reasons) <= {"truncated", "complete"}
    assert reasons["truncated"] >= len(cuts) - 30


def test_thousands_of_flipped_bits_give_pictures_or_errors_and_nothing_else(tmp_path):
    y, x = np.mgrid[0:24, 0:24]
    small = np.stack([10 * x, 10 * y, 5 * (x + y)], -1).astype(np.uint8)
    rng = np.random.default_rng(1)
    paths = []
    for kind in KINDS:
        whole = encoded(small, kind)
        for number in range(300):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 400 if number % 2 else len(data)), rng.integers(1, 5)):
                data[at] = rng.integers(0, 256)
            paths.append(tmp_path / f"{kind}-{number}")
            paths[-1].write_bytes(data)
    outcomes = Counter[str]()
    with DecoderPool(workers=2, limits=Limits(pixels=2**24, seconds=20)) as pool:
        for path, outcome in pool.decode_all(paths):
            assert isinstance(outcome, (Picture, ImageError))
            assert "the decoder failed" not in str(outcome), path  # `decode` itself raised something else
            outcomes[outcome.reason if isinstance(outcome, ImageError) else "picture"] += 1
    assert sum(outcomes.values()) == len(paths) == 2400
    assert outcomes["picture"] > 400
    assert outcomes["damaged"] + outcomes["truncated"] > 400
    assert outcomes["timeout"] == 0


def test_an_empty_file_is_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert refusal(tmp_path / "a.jpg").reason == "empty"


def test_a_pixel_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_head(60_000, 60_000))
    began = time.process_time()
    error = refusal(path)
    assert time.process_time() - began < 0.5
    assert error.reason == "too-large"
    assert "60000 x 60000" in str(error)
    with DecoderPool(workers=1, limits=Limits(memory_bytes=2**26)) as pool:  # 64 MiB would not hold it
        outcomes = list(pool.decode_all([path]))
    assert [(o.reason, str(o)) for _, o in outcomes] == [("too-large", str(error))]


def test_bombs_of_other_formats_are_refused_from_their_headers(tmp_path):
    jpeg = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "jpeg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    tiff = io.BytesIO()
    Image.new("L", (8, 8)).save(tiff, "TIFF")
    tiff = bytearray(tiff.getvalue())
    start = struct.unpack("<I", tiff[4:8])[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack("<H", tiff[start : start + 2])[0], 12):
        if struct.unpack("<H", tiff[entry : entry + 2])[0] in (256, 257):
            tiff[entry : entry + 12] = tiff[entry : entry + 2] + struct.pack("<HII", 4, 1, 100_000)
    for name, data in {"a.jpg": jpeg, "a.tif": tiff}.items():
        (tmp_path / name).write_bytes(data)
        error = refusal(tmp_path / name)
        assert (error.reason, "pixels" in str(error)) == ("too-large", True), error


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixel_limit_counts_for_each_format(tmp_path, photo, kind):
    path = tmp_path / "a"
    path.write_bytes(encoded(photo, kind))
    assert decode(path, Limits(pixels=48 * 64)).size == (48, 64)
    assert refusal(path, Limits(pixels=48 * 64 - 1)).reason == "too-large"


def test_a_file_above_the_byte_limit_is_refused_unread(save, photo, tmp_path):
    path = save(photo, "a.png")
    size = path.stat().st_size
    assert decode(path, Limits(file_bytes=size)).source_bytes == size
    error = refusal(path, Limits(file_bytes=size - 1))
    assert error.reason == "too-large"
    assert str(size) in str(error)
    sparse = tmp_path / "sparse.jpg"
    with sparse.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing
    assert refusal(sparse).reason == "too-large"


def test_a_limit_of_pillows_in_the_users_process_is_left_alone(save, photo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(save(photo, "a.png")).size == (48, 64)
    assert decode(save(photo, "a.jpg")).size == (48, 64)
    assert refusal(save(photo, "a.webp")).reason == "too-large"  # Pillow checks these two inside
    assert refusal(save(photo, "a.tif")).reason == "too-large"
    assert Image.MAX_IMAGE_PIXELS == 100


def test_no_warning_filter_is_left_behind_by_threads(tmp_path, photo):
    path = tmp_path / "a"
    path.write_bytes(encoded(photo, "jpeg"))
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode(path) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    "content", [b"hello, this is text", b"<svg></svg>", bytes(1000), b"\xff", b"RIFF\0\0\0\0WAVEfmt "]
)
def test_what_is_no_picture_is_said_not_to_be_one(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path / "a.jpg").reason == "not-an-image"


def test_random_bytes_are_no_picture_even_after_the_right_beginning(tmp_path):
    rng = np.random.default_rng(2)
    heads = [
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0",
        b"RIFF\x40\0\0\0WEBPVP8 ",
        b"\0\0\0\x14ftypavif",
    ]
    seen = 0
    for head in heads:
        for size in (0, 1, 7, 100, 5000):
            (tmp_path / "a").write_bytes(head + rng.bytes(size))
            wanted = (
                {"not-an-image", "empty"}
                if not head
                else {"truncated", "damaged", "unsupported", "too-large"}
            )
            assert refusal(tmp_path / "a").reason in wanted
            seen += 1
    assert seen == 30


def test_what_cannot_be_opened_is_unreadable(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    names = [
        "missing.jpg",
        "dangling.jpg",
        "loop.jpg",
        "folder.jpg",
        "pipe.jpg",
        "a\0b.jpg",
        "n" * 300,
        "\ud800.jpg",
    ]
    for name in names:
        assert refusal(tmp_path / name).reason == "unreadable", name
    assert refusal(Path("/dev/zero")).reason == "unreadable"
    assert "folder" in str(refusal(tmp_path / "folder.jpg"))
    assert len(names) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_unreadable(save, photo):
    path = save(photo, "a.png")
    path.chmod(0)
    assert refusal(path).reason == "unreadable"


def test_unusual_names_are_read(save, photo):
    names = ["süß 写真 📷.png", "n" * 246 + ".png", "new\nline.png", os.fsdecode(b"latin-\xe9.png"), "-x.png"]
    for name in names:
        picture = decode(save(photo, name))
        assert picture.size == (48, 64)
        picture.uri.encode("utf-8")
    assert len(names) == 5


def test_an_error_is_one_sentence_on_one_line(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    message = str(refusal(tmp_path / "a.jpg"))
    assert message.startswith(str(tmp_path / "a.jpg"))
    assert "\n" not in message


def with_jpeg_size(path: Path, height: int, width: int) -> Path:
    """The same JPEG whose header claims another size."""
    data = bytearray(path.read_bytes())
    at = next(at for at in range(2, len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2))
    data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_not_claim_more_pixels_than_its_bytes_can_hold(save, photo, progressive):
    path = with_jpeg_size(save(photo, "a.jpg", progressive=progressive), 16_000, 16_000)
    with pytest.raises(ImageError, match=r"expected at least \d+ bytes for 16000 x 16000 pixels") as caught:
        decode(path)
    assert caught.value.reason == "truncated"


def test_a_png_may_not_claim_more_pixels_than_its_bytes_can_hold(save, photo):
    path = save(photo, "a.png")
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 16_000, 16_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"expected at least \d+ bytes for 16000 x 16000 pixels"):
        decode(path)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 1}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_emptiest_pictures_hold_what_they_claim(save, mode, options):
    assert decode(save(Image.new(mode, (2000, 1500)), "flat.jpg", **options)).size == (1500, 2000)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_the_emptiest_png_holds_what_it_claims(save, mode):
    assert decode(save(Image.new(mode, (3000, 2000)), "flat.png", optimize=True)).size == (2000, 3000)
