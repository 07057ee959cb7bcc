"""Whatever a user hands over becomes sources, and every source is decoded in a worker like a file."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm.errors import ConfigError, ImageError, MissingExtraError, ShapeError
from chiasm.images import DecoderPool, Limits, Picture, Source, decode, gather
from chiasm.images.sources import of_path


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decoded(*given: object, workers: int = 1) -> list[tuple[Source, object]]:
    with DecoderPool(workers) as pool:
        return list(pool.decode_all(gather(given).sources))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An address under which the files of tmp_path are."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_pixels_by_every_way_are_the_same_picture(save, photo, workers):
    path = save(photo, "a.png")
    ways = [path, path.read_bytes(), bytearray(encoded(photo, "TIFF")), photo, Image.fromarray(photo, "RGB")]
    ways.append(io.BytesIO(encoded(photo) + b"\0"))  # other bytes, the same pixels
    outcomes = decoded(*ways, workers=workers)
    assert len(outcomes) == len(ways) - 1  # the array and the image have the same pixels, so the same uri
    for source, outcome in outcomes:
        assert isinstance(outcome, Picture)
        assert np.array_equal(outcome.pixels, photo)
        assert outcome.uri == source.uri
        assert source.uri in (str(path), f"memory:{outcome.digest[:12]}")
    assert outcomes[0][1].digest == outcomes[1][1].digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_array_keeps_its_depth_and_another_shape_is_another_picture():
    deep = np.arange(2 * 6 * 3, dtype=np.uint16).reshape(2, 6, 3) * 1000
    (_, kept), (_, turned) = decoded(deep, deep.reshape(6, 2, 3))
    assert kept.pixels.dtype == np.uint16
    assert np.array_equal(kept.pixels, deep)
    assert kept.digest != turned.digest
    deep[0] = 0
    assert kept.pixels[0, 1, 0] == 3000  # a copy


def test_a_pil_image_is_turned_upright_and_laid_over_white(photo):
    clear = Image.fromarray(np.dstack([photo, np.zeros((48, 64), np.uint8)]), "RGBA")
    ((_, white),) = decoded(clear)
    assert (white.pixels == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", exif=exif)
    ((_, turned),) = decoded(Image.open(io.BytesIO(file.getvalue())))
    assert turned.size == (64, 48)
    with pytest.raises(ImageError, match="mode 'F'"):
        gather(Image.new("F", (2, 2)))


def test_bytes_fail_under_their_own_name_and_cost_only_themselves(photo):
    good = encoded(photo)
    outcomes = decoded(b"", b"no picture", good[: len(good) // 2], good, workers=2)
    assert [getattr(outcome, "reason", "picture") for _, outcome in outcomes] == [
        "empty",
        "not-an-image",
        "truncated",
        "picture",
    ]
    for source, outcome in outcomes[:3]:
        assert str(outcome).startswith(f"{source.uri}: ")
        assert "/dev/fd" not in str(outcome)


def test_bytes_that_crash_a_worker_are_an_error(photo, strange):
    with DecoderPool(1, decode=strange.by_name) as pool:
        ((_, outcome),) = pool.decode_all(gather(encoded(photo)).sources)
    assert isinstance(outcome, (Picture, ImageError))
    crashing = Source("memory:segv", path=Path("segv-1.png"))
    with DecoderPool(1, decode=strange.by_name) as pool:
        ((_, outcome),) = pool.decode_all([crashing])
    assert outcome.reason == "crashed"
    assert str(outcome).startswith("memory:segv: ")


def test_uris_are_absolute_or_below_the_root(save, photo, tmp_path, monkeypatch):
    one, two = save(photo, "a/0001.png"), save(photo[:8], "b/0001.png")
    monkeypatch.chdir(tmp_path / "a")
    uris = [source.uri for source in gather(["0001.png", "../b"]).sources]
    assert uris == [str(one), str(two)]
    assert [source.uri for source in gather(["0001.png", two], root=tmp_path / "b").sources] == [str(one), "0001.png"]
    os.utime(two, ns=(1, 1))
    assert gather(two).sources[0].stat == (two.stat().st_size, 1)
    assert gather(photo).sources[0].stat is None
    assert of_path("0001.png").read() == one.read_bytes()


def test_a_source_gives_its_bytes_or_an_error(photo, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # whose reading would wait for ever
    for path in (tmp_path / "none.png", tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(ImageError) as caught:
            of_path(path).read()
        assert caught.value.reason == "unreadable"
    assert gather(photo).sources[0].read() == photo.tobytes()
    (tmp_path / "a.png").write_bytes(b"four")
    with pytest.raises(ImageError, match="at most 3 bytes"):
        of_path(tmp_path / "a.png").read(Limits(file_bytes=3))


def test_folders_count_what_they_pass_over_by_suffix(save, photo, tmp_path):
    save(photo, "x/a.png")
    for name in ("x/IMG_2.HEIC", "b.gif", "x/c.GIF", "README", "d.raw", "d.toml", "e.toml"):
        (tmp_path / name).write_bytes(b"?")
    found = gather([tmp_path, tmp_path / "b.gif"])
    assert [Path(source.uri).name for source in found.sources] == ["d.raw", "a.png", "b.gif"]  # what is named is kept
    assert found.skipped == {"": 1, ".gif": 2, ".heic": 1, ".toml": 1}


def test_patterns_and_lists_on_a_stream(save, photo, tmp_path, monkeypatch):
    paths = [save(photo, name) for name in ("a1.png", "a2.png", "b [1].png", "c/a3.png")]
    names = [Path(source.uri).name for source in gather(str(tmp_path / "**" / "a*.png")).sources]
    assert names == ["a1.png", "a2.png", "a3.png"]
    assert gather(str(paths[2])).sources[0].path == paths[2]  # a file of that very name is no pattern
    with pytest.raises(ConfigError, match="pattern that files match"):
        gather(str(tmp_path / "*.jpg"))
    lines = "\r\n".join(map(str, paths[:2])).encode() + b"\n\n-\n"
    assert [source.path for source in gather("-", lists=io.BytesIO(lines)).sources] == paths[:2]
    odd = tmp_path / "new\nline.png"
    ended = b"\0".join(map(os.fsencode, [odd, *paths[:1]])) + b"\0"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ended)))
    assert [source.path for source in gather("-").sources] == [odd, paths[0]]


def test_the_same_file_by_several_names_comes_once(save, photo, tmp_path):
    path = save(photo, "a.png")
    (tmp_path / "link.png").symlink_to(path)
    assert len(gather([path, tmp_path / "link.png", path.as_uri(), str(path)]).sources) == 1
    assert len(gather([photo, photo.copy()]).sources) == 1


@pytest.mark.parametrize("wrong", [5, None, [3.5], io.StringIO("text")])
def test_other_things_are_refused_by_type(wrong):
    with pytest.raises(ConfigError, match="expected"):
        gather(wrong)


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="H W 3"):
        gather(np.zeros((4, 4), np.uint8))


def test_urls_are_fetched_in_order_and_a_missing_one_is_its_own_error(save, photo, server):
    paths = [save(np.roll(photo, at, 1), f"{at}.png") for at in range(12)]
    urls = [f"{server}/{path.name}" for path in paths]
    outcomes = decoded(*urls[:6], f"{server}/none.png", *urls[6:], paths[0], workers=2)
    assert len(outcomes) == 14
    for (source, outcome), path in zip(outcomes[:6] + outcomes[7:], [*paths, paths[0]], strict=True):
        assert isinstance(outcome, Picture)
        assert outcome.uri == source.uri
        assert np.array_equal(outcome.pixels, decode(path).pixels)
    assert outcomes[6][1].reason == "unreadable"
    assert str(outcomes[6][1]).startswith(f"{server}/none.png: cannot be fetched")


def test_a_url_may_not_have_more_bytes_than_a_file(save, photo, server):
    save(photo, "a.png")
    with DecoderPool(1, Limits(file_bytes=100)) as pool:
        ((_, outcome),) = pool.decode_all(gather(f"{server}/a.png").sources)
    assert outcome.reason == "too-large"


def test_without_fsspec_the_command_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chiasm\[remote\]"'):
        decoded("s3://bucket/a.png")


def test_pages_of_a_tiff_are_pictures_of_one_file(tmp_path, photo):
    path = tmp_path / "pages.tif"
    pages = [Image.fromarray(np.roll(photo, at, 0)[: 40 + at]) for at in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    sources = [Source(str(path), path=path, page=page) for page in range(4)]
    with DecoderPool(1) as pool:
        outcomes = [outcome for _, outcome in pool.decode_all(sources)]
    for at in range(3):
        assert np.array_equal(outcomes[at].pixels, np.asarray(pages[at]))
        assert outcomes[at].digest == outcomes[0].digest
        assert outcomes[at].part == sources[at].part == ("" if at == 0 else f"page={at}")
    assert (outcomes[3].reason, "expected page 3" in str(outcomes[3])) == ("unsupported", True)
    with pytest.raises(ImageError, match="expected a TIFF for page 1"):
        decode(one_picture(tmp_path, photo), page=1)


def one_picture(folder: Path, photo: np.ndarray) -> Path:
    path = folder / "one.png"
    Image.fromarray(photo).save(path)
    return path


def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for given in ("", ["a.png", ""]):
        with pytest.raises(ConfigError, match=r"got an empty one; for this folder give \."):
            gather(given)
    assert len(gather(".").sources) == 1
