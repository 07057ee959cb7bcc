"""Messages, progress, file names, and what becomes of errors."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from chiasm import durable
from chiasm.cli.outputs import file_names, picture_file
from chiasm.cli.terminal import Terminal, clean, columns, size_words
from chiasm.errors import ImageError


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("screen", "as_json", "shown"), [(Screen(), False, True), (Screen(), True, False), (io.StringIO(), False, False)]
)
def test_a_progress_bar_is_for_people_at_a_terminal(monkeypatch, screen, as_json, shown):
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Terminal(json=as_json).progress("encode", 3) as bar:
        bar.advance(2_000_000)
        bar.advance(count=2)
    assert (bar.done, bar.bytes) == (3, 2_000_000)
    assert "images/s" in bar.speed
    assert "MB/s" in bar.speed
    assert ("images/s" in screen.getvalue()) is shown
    assert bool(screen.getvalue()) is shown


def test_a_file_name_cannot_steer_the_terminal():
    assert clean("a\x1b[2Jb\x07\r\n\té") == "a\\x1b[2Jb\\x07\\x0d\n\té"


def test_columns_and_sizes_are_for_people():
    assert columns([("a", 1), ("long", 200)]) == "a       1\nlong  200"
    assert [size_words(n) for n in (0, 999, 1000, 1_234_567, 5e15)] == [
        "0 bytes",
        "999 bytes",
        "1.00 kB",
        "1.23 MB",
        "5000.00 TB",
    ]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "x.bin"
    durable.write(path, b"one")
    durable.write(path, b"two")
    assert path.read_bytes() == b"two"

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        durable.write(path, b"three")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_file_names_never_collide():
    keys = ["ab" * 32, "ab" * 31 + "cd", "cd" * 32, "ef" * 32, "01" * 32]
    uris = [("a/x.jpg",), ("b/x.png",), ("c/x.jpg",), (), ("é" * 400 + "/..\\evil:\x1b" + "ü" * 300 + ".jpg",)]
    names = file_names(dict(zip(keys, uris, strict=True)), "png")
    assert len({name.lower() for name in names.values()}) == len(keys)
    for name in names.values():
        assert Path(name).name == name
        assert name.isprintable()
        assert not set(name) & set('\\/:*?"<>|')
        assert len(name.encode()) <= 255
    assert names["ef" * 32].startswith("picture-")


def test_a_format_that_cannot_hold_a_picture_is_an_error_that_names_another():
    with pytest.raises(ImageError, match="use png"):
        picture_file(np.zeros((1, 17000, 3), np.uint8), "webp", "wide")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("odd"), 70, "bug in chiasm"),
        (OSError(28, "No space left on device"), 3, "No space left"),
    ],
)
def test_whatever_stops_a_verb_has_its_exit_code(call, monkeypatch, error, code, words):
    def stop():
        raise error

    from chiasm.cli import machine

    monkeypatch.setattr(machine, "_dependencies", stop)
    said = call("doctor", "--json")
    assert said.code == code
    assert words in said.err
    assert ("Traceback" in said.err) is (code == 70)
    assert json.loads(said.out.splitlines()[-1])["event"] == "error"
