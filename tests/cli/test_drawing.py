"""Verbs that draw pictures and make packet files, against a real store."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_reconstruct_draws_every_picture_under_its_own_name(call, store, photos, tmp_path, kind):
    said = call("reconstruct", store, "--out", tmp_path, "--format", kind, "--json")
    assert (said.code, said.summary["written"], said.summary["failed"]) == (0, 3, 0)
    files = sorted(tmp_path.iterdir())
    assert [file.name.rsplit("-", 1)[0] for file in files] == ["beach", "beach", "café ünï"]
    assert {file.suffix for file in files} == {f".{kind}"}
    shapes = {pixels(file).shape for file in files}
    assert shapes == {(48, 64, 3), (50, 37, 3), (33, 70, 3)}
    drawn = next(file for file in files if pixels(file).shape[0] == 48)
    assert np.abs(pixels(drawn) - pixels(photos / "beach.png")).mean() < 8


@pytest.mark.parametrize(
    ("levels", "said"),
    [("detial", "did you mean 'detail'"), ("context,pooled_context", "are drawn from context, detail")],
)
def test_what_is_wrong_with_every_picture_is_said_once(call, store, tmp_path, levels, said):
    mine = shutil.copytree(store, tmp_path / "mine.lance")
    call("derive", mine)
    told = call("reconstruct", mine, "--out", tmp_path / "drawn", "--levels", levels)
    assert (told.code, len(told.err.splitlines()), said in told.err) == (3, 1, True)


def test_context_alone_is_another_picture_of_the_same_size(call, store, tmp_path):
    call("reconstruct", store, "--out", tmp_path / "all")
    call("reconstruct", store, "--out", tmp_path / "some", "--levels", "context")
    names = sorted(file.name for file in (tmp_path / "all").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "some").iterdir())
    for name in names:
        whole, alone = pixels(tmp_path / "all" / name), pixels(tmp_path / "some" / name)
        assert whole.shape == alone.shape
        assert (whole != alone).any()


def test_one_picture_one_file_no_store(call, photos, tmp_path):
    packet, drawn = tmp_path / "beach.chm", tmp_path / "deep" / "beach.PNG"
    assert call("pack", photos / "beach.png", "-o", packet).code == 0
    facts = call("inspect", packet, "--json").summary
    assert facts["space"] == "ns-1"
    assert {(level["codec"], level["quality"]) for level in facts["levels"].values()} == {("transform", 5)}
    assert (facts["height"], facts["width"]) == (48, 64)
    assert facts["bits_per_pixel"] == pytest.approx(8 * packet.stat().st_size / (48 * 64))
    first = [line.split()[0] for line in call("inspect", packet).out.splitlines()]
    assert first.count("context") == first.count("detail") == 1  # a line each
    said = call("unpack", packet, "-o", drawn, "--json")
    assert (said.code, said.summary["height"], said.summary["width"]) == (0, 48, 64)
    assert np.abs(pixels(drawn) - pixels(photos / "beach.png")).mean() < 8


@pytest.mark.parametrize("harm", ["cut", "flipped", "longer", "empty", "other"])
def test_a_damaged_packet_is_3_with_one_sentence_and_no_picture(call, photos, tmp_path, harm):
    packet, drawn = tmp_path / "beach.chm", tmp_path / "beach.png"
    call("pack", photos / "beach.png", "-o", packet)
    data = packet.read_bytes()
    middle = len(data) // 2
    harmed = {
        "cut": data[:-3],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "longer": data + b"x",
        "empty": b"",
        "other": (photos / "beach.png").read_bytes(),
    }
    packet.write_bytes(harmed[harm])
    said = call("unpack", packet, "-o", drawn, "--json")
    assert said.code == 3
    assert said.events[-1]["event"] == "error"
    assert len(said.err.splitlines()) == 1
    assert "beach.chm" in said.err
    assert not drawn.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beach.chm"]


def test_pack_of_a_bad_picture_is_3(call, bad, tmp_path):
    said = call("pack", bad / "truncated.png", "-o", tmp_path / "x.chm")
    assert said.code == 3
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert "Traceback" in call("pack", bad / "truncated.png", "-o", tmp_path / "x.chm", "--debug").err
    assert not (tmp_path / "x.chm").exists()


def test_an_output_never_replaces_what_is_read(call, photos, tmp_path):
    copy = tmp_path / "beach.png"
    copy.write_bytes((photos / "beach.png").read_bytes())
    assert call("pack", copy, "-o", copy).code == 2
    assert copy.read_bytes() == (photos / "beach.png").read_bytes()
