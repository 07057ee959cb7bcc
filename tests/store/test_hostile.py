"""A store may come from a stranger: nothing in it reaches a file outside, and nothing is read without end."""

from __future__ import annotations

import json
import os
import shutil
import zlib

import pytest

from chiasm.errors import StoreError
from chiasm.store import StoreWarning, open_store
from chiasm.store.local import journal
from chiasm.store.local.files import inside

LINKS = [
    "writer.lock",
    "store.json",
    "pictures",
    "sources",
    "errors",
    "levels",
    "commits",
    "tables",
    "quarantine",
    "pictures/data",
    "pictures/_versions",
    "sources/_versions",
]


@pytest.fixture
def treasure(tmp_path):
    """A folder of somebody else, whose files must stay as they are."""
    folder = tmp_path / "treasure"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    before = {"letter.txt": b"dear"}
    yield folder
    assert {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", LINKS)
def test_a_link_inside_a_store_is_never_followed(path, fill, made, treasure, name):
    fill(2, 2)
    place = path / name
    target = treasure / "letter.txt" if place.is_file() or place.suffix else treasure
    if place.is_dir():
        shutil.rmtree(place)
    elif place.exists():
        place.unlink()
    place.symlink_to(target)
    for mode in ("w", "r") if name != "writer.lock" else ("w",):
        with pytest.raises(StoreError, match=r"link|wanted inside a store"):
            open_store(path, mode)


def test_data_files_and_level_tables_that_are_links_are_refused(path, fill, treasure):
    fill(2, 2)
    with open_store(path) as store:
        name = store._now.commit.table_of("ns-1", "detail")
    (file, *_) = sorted((path / "pictures" / "data").iterdir())
    moved = path.parent / "moved"
    file.rename(moved)
    file.symlink_to(moved)
    with pytest.warns(StoreWarning, match="symbolic link"):
        assert len(open_store(path)) < 4  # the commits that name it are passed over
    file.unlink()
    moved.rename(file)
    assert len(open_store(path)) == 4
    (path / name).rename(moved)
    (path / name).symlink_to(moved, target_is_directory=True)
    with pytest.raises(StoreError, match="symbolic link"):
        open_store(path)


def test_a_part_file_that_is_a_link_is_removed_and_not_written_through(path, fill, made, treasure):
    fill(1, 2)
    (path / "commits" / f"{4:012d}.json.part").symlink_to(treasure / "letter.txt")
    with open_store(path, "w") as store:
        store.put([made.record(5)])
    assert len(open_store(path)) == 3


def test_a_pipe_is_no_file(path, fill):
    fill(1, 2)
    (path / "writer.lock").unlink()
    os.mkfifo(path / "writer.lock")
    with pytest.raises(StoreError, match="plain file"):
        open_store(path, "w")
    (path / "store.json").unlink()
    os.mkfifo(path / "store.json")
    with pytest.raises(StoreError, match="plain file"):
        open_store(path)


def forge(path, number, change):
    """Write a commit with a sound checksum."""
    file = path / "commits" / f"{number:012d}.json"
    body = json.loads(json.loads(file.read_text())["commit"])
    change(body)
    text = json.dumps(body)
    file.write_text(json.dumps({"crc": zlib.crc32(text.encode()), "commit": text}))


CHANGES = {
    "a mark outside": lambda body: body["marks"].append({"path": "../treasure/letter.txt", "size": 4, "crc": 1}),
    "an absolute mark": lambda body: body["marks"].append({"path": "/etc/passwd", "size": 4, "crc": 1}),
    "a file to remove outside": lambda body: body["retired"].append(
        {"path": "../treasure/letter.txt", "commit": 1, "time": 0.0}
    ),
    "a table outside": lambda body: (
        body["versions"].update({"../treasure": 1}),
        body["rows"].update({"../treasure": 0}),
    ),
    "a level with a path for a name": lambda body: body["spaces"]["ns-1"]["levels"][0].update(name="../../x"),
    "a stride that is a text": lambda body: body["spaces"]["ns-1"]["levels"][0].update(stride="4"),
    "a number below zero": lambda body: body["versions"].update(pictures=-1),
    "no tables": lambda body: body.update(versions={}, rows={}),
    "a list": lambda body: body.update(spaces=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_forged_commit_is_passed_over(path, fill, made, treasure, change):
    fill(3, 2)
    forge(path, 5, CHANGES[change])
    with pytest.warns(StoreWarning, match="commit 5 is torn"):
        store = open_store(path, "w")
    with store:
        assert len(store) == 4
        store.put([made.record(number) for number in range(6)])
        for _ in range(10):
            store.put([made.record(_ + 10)])
    assert len(open_store(path)) == 16


def test_a_commit_or_store_file_without_end_is_not_read(path, fill):
    fill(2, 2)
    with (path / "commits" / f"{4:012d}.json").open("ab") as file:
        file.truncate(5 << 30)
    with pytest.warns(StoreWarning, match="commit 4 is torn"):
        assert len(open_store(path)) == 2
    with (path / "store.json").open("ab") as file:
        file.truncate(5 << 30)
    with pytest.raises(StoreError, match="holds more than 65,536 bytes"):
        open_store(path)


def test_paths_inside_a_store_are_plain(path, fill):
    fill(1, 1)
    refused = ["", "..", "../x", "/etc/passwd", "pictures/../../x", "a/./..", "a\0b", "a\nb", "pictures/\x1b[2J"]
    for name in refused:
        with pytest.raises(StoreError, match="no path inside a store"):
            inside(path, name)
    assert inside(path, "pictures/data").is_dir()
    assert journal.read_commit(path, 3) is not None


def test_deeply_nested_json_is_an_error_and_no_crash(path, fill):
    fill(1, 1)
    (path / "commits" / f"{3:012d}.json").write_text("[" * 100_000)
    with pytest.warns(StoreWarning, match="commit 3 is torn"):
        assert len(open_store(path)) == 0
    (path / "store.json").write_text("[" * 60_000)
    with pytest.raises(StoreError, match=r"store.json"):
        open_store(path)
    (path / "store.json").write_text("[]")
    with pytest.raises(StoreError, match=r"store.json"):
        open_store(path)
