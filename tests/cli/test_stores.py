"""Verbs on stores: what inspect says is true, and verify finds what is damaged."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from chiasm.store import open_store


def test_inspect_counts_what_is_there(call, store, bad):
    said = call("inspect", store, "--json", "--images")
    facts = said.summary
    assert (facts["images"], facts["sources"], facts["failures"]) == (3, 4, 3)
    assert facts["pixels"] == 48 * 64 + 50 * 37 + 33 * 70
    assert {event["reason"] for event in said.of("failure")} == {"empty", "not-an-image", "truncated"}
    assert {event["uri"] for event in said.of("failure")} == {str(path) for path in bad.iterdir()}
    images = said.of("image")
    assert len(images) == 3
    assert sum(len(image["uris"]) for image in images) == 4
    for level, found in facts["levels"]["ns-1"].items():
        assert found["rows"] == 3
        assert facts["bits_per_pixel"]["ns-1"][level] == pytest.approx(8 * found["bytes"] / facts["pixels"])


def test_inspect_is_readable(call, store):
    text = call("inspect", store, "--images").out
    assert "space" in text
    assert "ns-1" in text
    assert "bits per pixel" in text
    assert "1 empty" in text
    assert "café ünï.webp" in text


@pytest.mark.parametrize("verb", [["inspect"], ["verify"], ["reconstruct", "--out", "x"]])
def test_a_folder_that_is_no_store_is_3(call, tmp_path, verb):
    said = call(*verb[:1], tmp_path, *verb[1:])
    assert said.code == 3
    assert "there is no store here" in said.err


def test_verify_is_silent_about_a_sound_store(call, store):
    said = call("verify", store, "--json")
    assert (said.code, said.err, said.summary["rows"], said.summary["sound"]) == (0, "", 3, True)


def test_verify_finds_a_flipped_byte_and_repair_makes_room_for_a_second_encode(call, store, photos, tmp_path):
    path = tmp_path / "harmed.lance"
    shutil.copytree(store, path)
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "later.png")
    call("encode", tmp_path / "later.png", "--store", path)  # of the last commit opening itself takes care
    with open_store(path) as opened:
        key = opened.keys()[1]
        stream = opened.get(key).spaces["ns-1"]["detail"].coded.data
    (file,) = [f for f in path.glob("levels/*/data/*") if stream in f.read_bytes()]
    data = bytearray(file.read_bytes())
    data[data.index(stream) + len(stream) // 2] ^= 0x10
    file.write_bytes(data)

    found = call("verify", path, "--json")
    assert (found.code, list(found.summary["bad"])) == (1, [key])
    assert call("reconstruct", path, "--out", tmp_path / "drawn", "--json").summary["failed"] == 1
    assert call("verify", path, "--repair").code == 1
    assert call("verify", path).code == 0
    rows = [4, 3]
    assert [each["rows"] for each in call("inspect", path, "--json").summary["levels"]["ns-1"].values()] == rows
    assert call("encode", photos, "--store", path, "--retry", "--json").summary["stored"] == 1
    rows = [4, 4]
    assert [each["rows"] for each in call("inspect", path, "--json").summary["levels"]["ns-1"].values()] == rows
