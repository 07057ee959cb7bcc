"""Making, opening, locking, compacting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from chiasm.errors import StoreError
from chiasm.store import open_store


def test_no_store_here_is_an_error_and_makes_nothing(path):
    with pytest.raises(StoreError, match="no store here"):
        open_store(path)
    assert not path.exists()
    with pytest.raises(StoreError, match="pass space= and levels="):
        open_store(path, "w")
    with pytest.raises(StoreError, match="'r' or 'w'"):
        open_store(path, "rw")


def test_a_folder_of_other_things_is_not_taken_over(path, made):
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"holds 'holiday.jpg'; choose an empty or new folder"):
        open_store(path, "w", made.SPACE, made.LEVELS)


def test_another_space_or_a_missing_level_is_an_error_naming_both(path, fill, made):
    fill(1, 2)
    with pytest.raises(StoreError, match="holds space 'ns-1', not 'ns-2'"):
        open_store(path, "w", "ns-2", made.LEVELS)
    with pytest.raises(StoreError, match="columns for context, detail and not for tiny"):
        open_store(path, "w", made.SPACE, ("context", "tiny"))
    with open_store(path, "w", made.SPACE, ("context",)) as store:
        assert store.levels == made.LEVELS


def test_a_level_needs_a_name_that_can_be_a_column(path):
    for levels in (("a b",), ("x", "x"), ()):
        with pytest.raises(StoreError, match=r"column|at least one level"):
            open_store(path, "w", "ns-1", levels)


def test_a_newer_format_is_refused(path, fill):
    fill(1, 1)
    text = (path / "store.json").read_text()
    (path / "store.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="format 2 and this chiasm reads format 1"):
        open_store(path)


def test_a_creation_that_was_killed_is_begun_anew(path, fill, made):
    fill(0, 1)
    (path / "store.json").unlink()
    with open_store(path, "w", made.SPACE, made.LEVELS) as store:
        store.put([made.record(1)])
    assert len(open_store(path)) == 1


def test_a_lost_store_json_beside_images_is_never_overwritten(path, fill, made):
    fill(1, 3)
    (path / "store.json").unlink()
    with pytest.raises(StoreError, match="missing beside committed images"):
        open_store(path, "w", made.SPACE, made.LEVELS)


def test_one_writer_at_a_time_and_readers_need_no_lock(store, path, made):
    store.put([made.record(1)])
    with pytest.raises(StoreError, match=f"process {os.getpid()} is writing"):
        open_store(path, "w")
    with open_store(path) as reader:
        store.put([made.record(2)])
        assert len(reader) == 1  # as it was when opened
    assert len(open_store(path)) == 2


def test_the_lock_of_a_killed_writer_is_free(path, fill, made):
    fill(1, 1)
    code = (
        "import sys, time\n"
        "from chiasm.store import open_store\n"
        "store = open_store(sys.argv[1], 'w')\n"
        "print(1, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"1\n"
        with pytest.raises(StoreError, match=f"process {child.pid} is writing"):
            open_store(path, "w")
        child.send_signal(signal.SIGKILL)
        child.wait()
    with open_store(path, "w") as store:
        store.put([made.record(5)])


def test_a_read_only_store_opens_for_reading(path, fill):
    fill(2, 3)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    with open_store(path) as store:
        assert len(list(store.scan())) == 6
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_many_commits_leave_few_manifests(path, fill, made):
    fill(40, 2)
    for name in ("images.lance", "sources.lance"):
        assert len(list((path / name / "_versions").glob("*.manifest"))) <= 9
        assert len(list((path / name / "_transactions").glob("*.txn"))) <= 10
    assert len(list((path / "commits").iterdir())) == 8
    assert len(open_store(path)) == 80


def test_compacting_keeps_every_record_in_few_files(path, fill, made):
    fill(12, 4)
    with open_store(path, "w") as store:
        assert store.compact() > 0
        assert list(store.scan()) == [made.record(number) for number in range(48)]
        store.put([made.record(100)])
        assert store.get(made.key_of(100)) == made.record(100)
    assert len(list((path / "images.lance" / "data").iterdir())) == 2
    with open_store(path, "w") as store:
        assert len(store) == 49
        store.compact()
    assert len(open_store(path)) == 49  # quietly: what compaction removed was named by no commit that counts
    with open_store(path, "w") as store:
        store.compact()  # nothing left to gain
        assert store.verify().sound
        assert [store.get(made.key_of(n)) for n in (0, 47, 100)] == [made.record(n) for n in (0, 47, 100)]
