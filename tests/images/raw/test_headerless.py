"""Counts without a header, and the description beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chiasm.errors import ImageError
from chiasm.images import DecoderPool, Limits, Mosaic, decode, find

BASE = {"width": 60, "height": 40, "cfa": '"RGGB"', "white": 4095}


def described(folder: Path, data: bytes, **said: object) -> Path:
    lines = [f"{key} = {value}" for key, value in (BASE | said).items() if value is not None]
    (folder / "scene.toml").write_text("\n".join(lines))
    (folder / "scene.raw").write_bytes(data)
    return folder / "scene.raw"


def refusal(path: Path, limits: Limits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(path, limits or Limits())
    return caught.value


@pytest.mark.parametrize(
    ("dtype", "said"),
    [("<u2", {}), ("<u2", {"bits": 12, "order": '"little"'}), (">u2", {"order": '"big"'}), ("u1", {"bits": 8})],
)
def test_counts_land_as_they_are(tmp_path, counts, dtype, said):
    stored = (counts >> 4 if dtype == "u1" else counts).astype(dtype)
    shot = decode(described(tmp_path, stored.tobytes(), **said))
    assert isinstance(shot, Mosaic)
    assert np.array_equal(shot.values, stored)
    assert (shot.source_bytes, shot.uri) == (stored.nbytes, str(tmp_path / "scene.raw"))


def test_all_that_is_said_counts(tmp_path, counts):
    matrix = [[1.6, -0.4, -0.2], [-0.2, 1.5, -0.3], [0.0, -1.0, 3.0]]
    path = described(
        tmp_path,
        counts.tobytes(),
        cfa='"grbg"',
        black=[1, 2, 3, 4],
        gains=[3, 1.5, 2],
        matrix=matrix,
        iso=200,
        camera='"Nikon D90"',
    )
    shot = decode(path)
    assert np.array_equal(shot.values, counts[:, 1:-1])
    assert (shot.black, shot.white) == ((2.0, 1.0, 4.0, 3.0), 4095.0)
    sensor = shot.sensor
    assert sensor.gains == pytest.approx((2.0, 1.0, 4 / 3))
    assert np.allclose(sensor.matrix, np.array(matrix) / np.sum(matrix, 1, keepdims=True))
    assert (sensor.camera, sensor.iso, sensor.pattern) == ("Nikon D90", 200.0, "GRBG")
    assert sensor.shot == pytest.approx(4e-7 * 200)


def test_white_is_what_the_bits_hold_unless_said(tmp_path, counts):
    assert decode(described(tmp_path, counts.tobytes(), bits=14, white=None)).white == 16383
    assert decode(described(tmp_path, counts.tobytes(), black=5)).black == (5.0,) * 4


def test_another_description_is_another_picture(tmp_path, counts):
    digests = {decode(described(tmp_path, counts.tobytes(), black=black)).digest for black in (0, 1, 0)}
    digests |= {decode(described(tmp_path, (counts + 1).tobytes())).digest}
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)


def test_counts_that_begin_like_a_photograph_are_counts(tmp_path, counts):
    counts[0, :2] = np.frombuffer(b"II*\0", np.uint16)
    assert np.array_equal(decode(described(tmp_path, counts.tobytes())).values, counts)


def test_workers_read_them_too(tmp_path, counts):
    path = described(tmp_path, counts.tobytes(), black=9)
    with DecoderPool(1) as pool:
        ((_, shot),) = pool.decode_all([path])
    assert np.array_equal(shot.values, counts)
    assert shot.digest == decode(path).digest


def test_without_a_description_it_is_missed(tmp_path, counts):
    path = described(tmp_path, counts.tobytes())
    (tmp_path / "scene.toml").unlink()
    error = refusal(path)
    assert error.reason == "unsupported"
    assert "scene.toml" in str(error)
    assert find(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"widht": 60}, "did you mean 'width'?"),
        ({"width": None}, "got no 'width'"),
        ({"width": 61}, "expected 4880 bytes (61 x 40 of 2), got 4800"),
        ({"bits": 8}, "expected 2400 bytes"),
        ({"bits": 17}, "bits: expected a whole number from 1 to 16, got 17"),
        ({"height": -1}, "height"),
        ({"height": 40.0}, "height"),
        ({"height": "true"}, "height"),
        ({"black": [1, 2]}, "black: expected 4 finite numbers, got [1, 2]"),
        ({"black": 4095}, "below white"),
        ({"white": '"a"'}, "white"),
        ({"white": "nan"}, "white"),
        ({"gains": [0, 1, 1]}, "gains"),
        ({"matrix": [[1, 0, 0], [0, 1, 0]]}, "matrix"),
        ({"matrix": [[1, 1, 1], [1, 1, 1], [1, 1, 1]]}, "matrix"),
        ({"order": '"middle"'}, "'middle'"),
        ({"cfa": 7}, "cfa"),
        ({"camera": "7"}, "camera"),
        ({"iso": '"high"'}, "iso"),
        ({"width": "]"}, "TOML"),
    ],
)
def test_a_wrong_description_is_said_to_be_so(tmp_path, counts, said, words):
    error = refusal(described(tmp_path, counts.tobytes(), **said))
    assert error.reason == "damaged"
    assert words in str(error)
    assert str(error).startswith(str(tmp_path / "scene.raw"))
    assert "\n" not in str(error)


def test_other_patterns_are_refused(tmp_path, counts):
    error = refusal(described(tmp_path, counts.tobytes(), cfa='"CMYG"'))
    assert (error.reason, "CMYG" in str(error)) == ("unsupported", True)


def test_limits_hold(tmp_path, counts):
    path = described(tmp_path, counts.tobytes())
    assert refusal(path, Limits(pixels=2399)).reason == "too-large"
    assert refusal(path, Limits(file_bytes=4799)).reason == "too-large"
    (tmp_path / "scene.toml").write_bytes(b"#" * 100_000)
    assert refusal(path).reason == "damaged"
    (tmp_path / "scene.toml").write_bytes(b"a = " + b"[" * 50_000)
    assert refusal(path).reason == "damaged"


def test_folders_list_them_beside_their_descriptions_only(tmp_path, counts):
    path = described(tmp_path, counts.tobytes())
    for name in ("alone.raw", "notes.toml", "a.DNG", "b.cr3", "c.NEF", "d.x3f"):
        (tmp_path / name).touch()
    (tmp_path / "UP.RAW").touch()
    (tmp_path / "UP.toml").touch()
    assert [found.name for found in find(tmp_path)] == ["UP.RAW", "a.DNG", "b.cr3", "c.NEF", "d.x3f", path.name]
