"""Making, opening, locking, compacting."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from chiasm.errors import StoreError
from chiasm.store import open_store


def test_no_store_here_is_an_error_and_makes_nothing(path):
    with pytest.raises(StoreError, match="no store here"):
        open_store(path)
    assert not path.exists()
    with pytest.raises(StoreError, match=r"'r', 'r\+' or 'w'"):
        open_store(path, "rw")


def test_a_folder_of_other_things_is_not_taken_over(path, made):
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"holds 'holiday.jpg'; choose an empty or new folder"):
        open_store(path, "w")
    assert [file.name for file in path.iterdir()] == ["holiday.jpg"]


def test_another_format_is_refused(path, fill):
    fill(1, 1)
    for version, said in ((1, "format 1, which was never released; encode again"), (3, "format 3 and this chiasm")):
        (path / "store.json").write_text(f'{{"format": {version}}}')
        with pytest.raises(StoreError, match=said):
            open_store(path)


def test_a_creation_that_was_killed_is_begun_anew(path, made):
    open_store(path, "w").close()
    (path / "store.json").unlink()
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        store.put([made.record(1)])
    assert len(open_store(path)) == 1


def test_a_lost_store_json_beside_images_is_never_overwritten(path, fill, made):
    fill(1, 3)
    (path / "store.json").unlink()
    with pytest.raises(StoreError, match="missing beside committed images"):
        open_store(path, "w")


def test_one_writer_at_a_time_and_readers_need_no_lock(store, path, made):
    store.put([made.record(1)])
    with pytest.raises(StoreError, match=f"process {os.getpid()} is writing"):
        open_store(path, "w")
    with open_store(path) as reader:
        store.put([made.record(2)])
        assert len(reader) == 1  # as it was when opened
        assert made.key_of(2) not in reader
        assert reader.refresh()
        assert not reader.refresh()
        assert reader.get(made.key_of(2)) == made.record(2)
    assert len(open_store(path)) == 2


def test_a_writer_waits_for_another(store, path, made):
    threading.Timer(0.3, store.close).start()
    with open_store(path, "w", wait=30) as second:
        second.put([made.record(1)])
    with open_store(path, "w") as first, pytest.raises(StoreError, match="is writing"):
        open_store(path, "w", wait=0.1)
    assert len(open_store(path)) == 1
    assert first.path == path


def test_a_reader_can_be_pickled_and_a_writer_says_that_it_cannot(store, path, made):
    store.put([made.record(1)])
    with pytest.raises(StoreError, match="cannot be pickled"):
        pickle.dumps(store)
    reader = open_store(path)
    assert pickle.loads(pickle.dumps(reader)).get(made.key_of(1)) == made.record(1)
    code = "import pickle, sys\nstore = pickle.loads(sys.stdin.buffer.read())\nprint(store.get(store.keys()[0]).uris)\n"
    child = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(reader), capture_output=True, check=True)
    assert b"/photos/00001.jpg" in child.stdout


@pytest.mark.filterwarnings("ignore:lance is not fork-safe:UserWarning", "ignore:.*fork:DeprecationWarning")
def test_a_store_can_be_read_after_a_fork_and_not_written(store, path, made):
    store.put([made.record(1)])
    reader = open_store(path)
    child = os.fork()
    if not child:
        done = 1
        try:
            signal.alarm(20)
            done = int(reader.get(made.key_of(1)) != made.record(1))
            try:
                store.put([made.record(2)])
                done += 2
            except StoreError:
                pass
        finally:
            os._exit(done)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.put([made.record(3)])
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


def test_many_commits_leave_few_manifests_and_few_files(path, fill, made):
    fill(40, 2)
    for name in ("pictures", "sources"):
        assert len(list((path / name / "_versions").glob("*.manifest"))) <= 11
        assert len(list((path / name / "_transactions").glob("*.txn"))) <= 12
        assert len(open_store(path)._now.table(name).dataset.get_fragments()) == 9  # 32 became one
    assert len(list((path / "commits").iterdir())) == 8
    assert list(open_store(path).scan()) == [made.record(number) for number in range(80)]


def test_compacting_keeps_every_record_in_few_files(path, fill, made):
    fill(12, 4)
    with open_store(path, "w") as store:
        assert store.compact() > 0
        assert list(store.scan()) == [made.record(number) for number in range(48)]
        store.put([made.record(100)])
        assert store.get(made.key_of(100)) == made.record(100)
    assert len(list((path / "pictures" / "data").iterdir())) == 2
    with open_store(path, "w") as store:
        assert len(store) == 49
        store.compact()
    assert len(open_store(path)) == 49  # quietly: what compaction removed was named by no commit that counts
    with open_store(path, "w") as store:
        store.compact()  # nothing left to gain
        assert store.verify().sound
        assert [store.get(made.key_of(n)) for n in (0, 47, 100)] == [made.record(n) for n in (0, 47, 100)]
        assert store.verify().orphans == ()


def test_an_open_reader_survives_compaction(path, fill, made):
    fill(12, 4)
    reader = open_store(path)
    with open_store(path, "w") as store:
        store.put([made.record(60)])
        store.remove([made.key_of(3)])
        store.compact()
        store.compact()
    assert reader.get(made.key_of(7)) == made.record(7)
    assert reader.made([made.key_of(7)], "ns-1")
    assert made.key_of(3) not in reader
    assert len(reader) == 48
