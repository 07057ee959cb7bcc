"""A store opens after anything that can happen to its last commit, with every row of the commits before
it.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from chiasm.errors import StoreError
from chiasm.store import StoreWarning, lance_store, open_store
from chiasm.store.local import commits, datasets, journal

WRITER = Path(__file__).with_name("writer.py")


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def cut_one_byte(file):
    os.truncate(file, file.stat().st_size - 1)


def empty(file):
    os.truncate(file, 0)


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def scramble(file):
    file.write_bytes(random.Random(0).randbytes(file.stat().st_size))


def remove(file):
    file.unlink()


DAMAGES = [truncate, cut_one_byte, empty, zero, scramble, remove]
PLACES = ["pictures/data", "pictures/_versions", "sources/data", "sources/_versions", "levels/"]


def last_files(path, place):
    """The files of the last commit in one folder."""
    commit = journal.read_commit(path, journal.numbers(path)[0])
    found = [path / mark.path for mark in commit.marks if mark.path.startswith(place)]
    assert found
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_torn_last_commit_is_recovered_loudly(path, fill, made, damage, place):
    fill(4, 3)
    for file in last_files(path, place):
        damage(file)
    left = sorted(file for file in path.rglob("*") if file.is_file())
    with pytest.warns(StoreWarning, match="commit 6 is torn"):
        reader = open_store(path)
    with reader:
        assert list(reader.scan()) == [made.record(number) for number in range(9)]
    assert sorted(file for file in path.rglob("*") if file.is_file()) == left  # a reader moves nothing
    with pytest.warns(StoreWarning, match="Opened commit 5"):
        store = open_store(path, "w")
    with store:
        assert len(store) == 9
        store.put([made.record(number) for number in range(12)])  # the rerun completes it
        assert list(store.scan()) == [made.record(number) for number in range(12)]
    assert list((path / "quarantine").rglob("*.manifest")) or place.endswith("_versions")
    with open_store(path) as store:  # and nothing is left to warn about
        assert list(store.scan()) == [made.record(number) for number in range(12)]
        assert store.verify().sound


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_torn_journal_entry_is_recovered(path, fill, made, damage):
    fill(3, 2)
    damage(path / "commits" / f"{5:012d}.json")
    # without its entry the commit looks as if its writer was killed just before the moment of commit
    said = "commit 5 is unfinished" if damage is remove else "commit 5 is torn"
    with pytest.warns(StoreWarning, match=said):
        store = open_store(path, "w")
    with store:
        assert len(store) == 4
        store.put([made.record(number) for number in range(6)])
    assert list(open_store(path).scan()) == [made.record(number) for number in range(6)]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_torn_hint_or_transaction_file_harms_nothing(path, fill, made, damage):
    fill(2, 2)
    damage(path / "pictures" / "_versions" / "latest_version_hint.json")
    for file in (path / "pictures" / "_transactions").iterdir():
        damage(file)
    with open_store(path, "w") as store:
        assert len(store) == 4
        store.put([made.record(9)])
        store.compact()
    assert len(open_store(path)) == 5


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["pictures", "errors"])
def test_a_new_empty_store_with_torn_files_still_opens(path, made, damage, name):
    open_store(path, "w").close()
    for file in (path / name / "_versions").glob("*.manifest"):
        damage(file)
    with pytest.warns(StoreWarning, match="no sound commit"):
        store = open_store(path, "w")
    with store:
        store.declare(made.SPACE)
        store.put([made.record(1)])
    assert len(open_store(path)) == 1


def test_a_lost_journal_is_replaced_by_the_newest_versions(path, fill):
    fill(5, 2)
    shutil.rmtree(path / "commits")
    with pytest.warns(StoreWarning, match="newest versions that open"):
        reader = open_store(path)
    with reader:
        assert len(reader) == 10
    (path / "commits").mkdir()
    with pytest.warns(StoreWarning):
        store = open_store(path, "w")
    with store:
        assert len(store) == 10
    with open_store(path, "w") as store:
        assert len(store) == 10


def test_several_torn_commits_fall_back_to_the_newest_sound_one(path, fill, made):
    fill(5, 2)
    for number in (6, 7):
        commit = journal.read_commit(path, number)
        zero(path / next(mark.path for mark in commit.marks if "/data/" in mark.path))
    with (
        pytest.warns(StoreWarning, match=r"commit 7 is torn .*commit 6 is torn"),
        open_store(path, "w") as store,
    ):
        assert len(store) == 6


def test_a_torn_compaction_is_no_loss_when_the_old_files_are_there(path, fill, made, monkeypatch):
    fill(4, 2)
    with monkeypatch.context() as patch, open_store(path, "w") as store:
        patch.setattr(commits, "forget_all_but", lambda now: 0)
        store.compact()
    for file in last_files(path, "pictures/data"):
        zero(file)
    with pytest.warns(StoreWarning):
        store = open_store(path, "w")
    with store:
        assert list(store.scan()) == [made.record(number) for number in range(8)]


@pytest.mark.parametrize("step", ["append", "sync_all", "mark", "write_commit", "fsync"])
@pytest.mark.parametrize("at", [1, 2])
def test_an_error_at_any_step_of_a_put_undoes_it_and_a_later_put_works(path, fill, made, monkeypatch, step, at):
    fill(2, 2)
    calls = 0

    def broken(original):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls >= at:
                raise OSError(28, "No space left on device")
            return original(*args)

        return call

    targets = {
        "append": (datasets, "append"),
        "sync_all": (commits, "sync_all"),
        "mark": (commits, "mark"),
        "write_commit": (journal, "write_commit"),
        "fsync": (os, "fsync"),
    }
    owner, name = targets[step]
    with open_store(path, "w") as store:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken(getattr(owner, name)))
            if (step, at) == ("write_commit", 2):
                store.put([made.record(4)])  # it is called once in a put
            with pytest.raises(StoreError, match=r"needs [\d,]+ bytes and [\d,]+ are free"):
                store.put([made.record(5)])
        done = len(store)
        assert [len(open_store(path)), len(list(store.scan()))] == [done, done]
        store.put([made.record(number) for number in range(8)])
    assert sorted(open_store(path).keys()) == sorted(made.key_of(number) for number in range(8))
    assert open_store(path).verify().orphans == ()


def test_ctrl_c_in_a_put_undoes_it(path, fill, made, monkeypatch):
    fill(1, 2)

    def interrupt(*args):
        raise KeyboardInterrupt

    with open_store(path, "w") as store:
        with monkeypatch.context() as patch:
            patch.setattr(commits, "sync_all", interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.put([made.record(5)])
        store.put([made.record(6)])
    assert len(open_store(path)) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MiB; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("margin", [1 << 20, 0])
def test_a_full_disk_says_so_and_keeps_what_was_committed(small_disk, made, monkeypatch, margin):
    """With the margin the disk is asked first; without it Lance and the journal run into the wall
    themselves.
    """
    monkeypatch.setattr(lance_store, "MARGIN", margin)
    if not margin:
        monkeypatch.setattr(lance_store, "require_space", lambda *args: None)
    path = small_disk / "photos.lance"
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        stored = 0
        said = ""
        while not said and stored < 100:
            try:
                store.put([made.record(stored, sizes=(9_000, 90_000))])
                stored += 1
            except StoreError as error:
                said = str(error)
        assert re.search(r"needs [\d,]+ bytes and [\d,]+ are free.*all that was committed is kept", said)
        assert 5 < stored < 50
        assert len(list(store.scan())) == stored
        with pytest.raises(StoreError, match="free"):
            store.put([made.record(500, sizes=(9_000, 900_000))])
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        store.put([made.record(500, sizes=(9_000, 90_000))])
    with open_store(path) as store:
        assert len(list(store.scan())) == stored + 1
        assert store.verify().orphans == ()


def test_a_file_size_limit_is_a_full_disk(path, made):
    code = (
        "import resource, runpy, sys\n"
        "from chiasm.store import open_store\n"
        "from chiasm.errors import StoreError\n"
        f"made = runpy.run_path({str(WRITER)!r})\n"
        "store = open_store(sys.argv[1], 'w')\n"
        "store.declare(made['SPACE'])\n"
        "store.put([made['record'](1)])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    store.put([made['record'](2, sizes=(9000, 90_000))])\n"
        "except StoreError as error:\n"
        "    print(error)\n"
        "store.put([made['record'](3)])\n"
    )
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "the file may not grow" in child.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert open_store(path).keys() == [made.key_of(1), made.key_of(3)]


def test_killed_writers_lose_nothing_that_was_reported(path, made):
    """Six kills at random moments; the benchmark store_faults.py does two hundred."""
    moments = random.Random(1)
    reported = -1
    for _ in range(6):
        command = [sys.executable, str(WRITER), str(path), str(reported + 1), "1000", "4"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            lines = [child.stdout.readline()]
            assert lines == ["open\n"]
            for _ in range(moments.randint(0, 3)):
                lines.append(child.stdout.readline())
            try:
                child.wait(moments.uniform(0, 0.15))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
            lines += child.stdout.read().splitlines()
        reported = max([reported, *(int(line) for line in lines if line.strip().isdigit())])
        with open_store(path) as store:
            keys = store.keys()
            assert len(keys) == len(set(keys)) == len(list(store.scan()))
            assert {made.key_of(number) for number in range(reported + 1)} <= set(keys)
        reported = max(reported, len(keys) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)  # whether a commit was unfinished is up to the moment
        store = open_store(path, "w")
    with store:
        store.put([made.record(number) for number in range(reported + 9)])
        assert list(store.scan()) == [made.record(number) for number in range(reported + 9)]


def test_the_journal_is_one_line_with_its_own_crc(path, fill):
    fill(1, 2)
    line = json.loads((path / "commits" / f"{3:012d}.json").read_text())
    assert sorted(line) == ["commit", "crc"]
    commit = journal.read_commit(path, 3)
    assert [commit.rows[name] for name in ("pictures", "sources", "errors")] == [2, 2, 0]
    assert sorted(commit.levels.values()) == [("ns-1", "context"), ("ns-1", "detail")]
    assert {mark.path.split("/")[-2] for mark in commit.marks} == {"data", "_versions"}
