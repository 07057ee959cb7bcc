"""What is written when a store grows: nothing of what is there, little beside what is new, and few files."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from chiasm.store import open_store
from chiasm.store.local import commits, growth

SMALL = 4096  # bytes a commit may cost beside its rows


def files_below(folder):
    """Every file below a folder but Lance's hint: path -> (size, time of change, number)."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "latest_version_hint.json":
            facts = path.stat()
            found[path.relative_to(folder).as_posix()] = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return found


def is_data(name):
    return "/data/" in f"/{name}"


class Written:
    """Counts the bytes of every new data file, whether it stays or not."""

    def __init__(self, path):
        self._path = path
        self._seen = {}
        self.bytes = 0
        self.look()
        self.bytes = 0

    def look(self):
        for name, facts in files_below(self._path).items():
            if is_data(name) and name not in self._seen:
                self._seen[name] = facts
                self.bytes += facts[0]


def test_a_second_space_writes_no_byte_of_the_first_and_little_more_than_its_own(path, made):
    pictures, size = 1000, 25
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        for first in range(0, pictures, size):
            store.put([made.record(number, sizes=(300, 600)) for number in range(first, first + size)])
        store.declare(made.TOKENS)
        first_tables = [*store._now.commit.levels, "pictures", "sources", "errors"]
        before = {name: files_below(path / name) for name in first_tables}
        referenced = {name: commits.datasets.used_files(store._now.table(name).dataset) for name in first_tables}
        written, puts, own = Written(path / "levels"), 0, 0
        for first in range(0, pictures, size):
            records = [made.tokens(number) for number in range(first, first + size)]
            own += sum(len(one.coded.data) for r in records for one in r.spaces[made.TOKENS.name].values())
            store.put(records)
            written.look()
            puts += 1
        for name in first_tables:  # old manifests may go; nothing is written, and every data file stays
            after = files_below(path / name)
            assert after.items() <= before[name].items()
            assert {file for file in before[name] if is_data(file)} <= after.keys()
        now = store._now
        assert {n: commits.datasets.used_files(now.table(n).dataset) for n in first_tables} == referenced
        new = [name for name in now.commit.levels if name not in first_tables]
        alive = sum(
            (path / n / f).stat().st_size for n in new for f in commits.datasets.used_files(now.table(n).dataset)
        )
        assert len(new) == 2
        # the bytes of the tables as they are at the end, a little for each commit, and once more for merging
        assert written.bytes <= 1.1 * alive + SMALL * puts * len(new) + alive
        assert written.bytes > own
        assert all(len(now.table(name).dataset.get_fragments()) == 9 for name in new)  # 40 commits, 32 of them merged
        some = [made.key_of(number) for number in (0, 500, 999)]
        assert [set(r.spaces) for r in store.get_many(some)] == [{"ns-1", made.TOKENS.name}] * 3
    assert open_store(path).verify().rows == pictures


def test_what_is_no_longer_needed_goes_after_the_grace_of_readers(path, made, monkeypatch):
    monkeypatch.setattr(growth, "FAN", 8)
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        for number in range(12):
            store.put([made.record(number)])
        data = path / "pictures" / "data"
        assert len(store._now.table("pictures").dataset.get_fragments()) == 5
        assert len(list(data.iterdir())) == 13  # 8 that were merged wait for readers
        monkeypatch.setattr(commits, "GRACE", 0.0)
        for number in range(12, 15):
            store.put([made.record(number)])
        assert len(list(data.iterdir())) == len(store._now.table("pictures").dataset.get_fragments()) == 8
        store.put([made.record(15)])  # eight more are merged
        for number in range(16, 23):
            store.put([made.record(number)])
        assert len(list(data.iterdir())) == len(store._now.table("pictures").dataset.get_fragments()) == 9
        store.put([made.record(23, uris=[])])
        assert len(store._now.commit.retired) <= 8 * 4
        assert list(store.scan()) == [made.record(n) for n in range(23)] + [made.record(23, uris=[])]
        assert store.verify().orphans == ()


def test_a_reader_of_removed_files_looks_again(path, made, monkeypatch):
    monkeypatch.setattr(commits, "GRACE", 0.0)
    monkeypatch.setattr(growth, "FAN", 8)
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        for number in range(6):
            store.put([made.record(number)])
        reader, opened = open_store(path), open_store(path)
        for number in range(6, 20):
            store.put([made.record(number)])
        assert reader.get(made.key_of(3)) == made.record(3)
        assert opened.made([made.key_of(3)], "ns-1")
        assert made.key_of(19) in reader or reader.refresh()


def test_tiers_merge_rarely_and_never_what_is_closed():
    """One row a commit: each row is rewritten at most three times, whatever the number of commits."""

    class Fragment:
        def __init__(self, rows, size=10):
            self.metadata = type(
                "Data", (), {"physical_rows": rows, "files": [type("File", (), {"file_size_bytes": size})]}
            )

    tail, copied, rows = [], 0, 40_000
    for _ in range(rows):
        tail.append(Fragment(1))
        while merged := growth.to_merge(tail):
            total = sum(one.metadata.physical_rows for one in merged)
            copied += total
            tail[len(tail) - len(merged) :] = [Fragment(total)]
        assert len(tail) <= 3 * 31 + 2
    assert sum(one.metadata.physical_rows for one in tail) == rows
    assert copied <= 3 * rows
    assert growth.is_due(tail)
    large = [Fragment(5, growth.CLOSED_BYTES) for _ in range(40)]
    assert growth.to_merge(large) == []
    assert growth.is_due(large)
    assert not growth.is_due(large[:3])


def test_an_index_answers_like_no_index(path, made, monkeypatch):
    """With small limits everything is merged and indexed again and again; each look-up gives what was put."""
    monkeypatch.setattr(growth, "FAN", 4)
    monkeypatch.setattr(growth, "CLOSED_ROWS", 16)
    monkeypatch.setattr(growth, "SEGMENTS", 2)
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        for number in range(0, 60, 2):
            store.put([made.record(number), made.record(number + 1)], stats={f"/photos/{number:05}.jpg": (number, 1)})
        table = store._now.table("pictures").dataset
        assert len(growth.tail_of(table)) < len(table.get_fragments())
        assert all(len(index.segments) <= 2 for index in table.describe_indices())
        store.put([made.record(n, encoder="other") for n in range(0, 60, 7)], replace=True)
        store.remove([made.key_of(n) for n in range(0, 60, 10)])
        wanted = [n for n in range(60) if n % 10]
        for number in wanted:
            record = made.record(number, encoder="ns-rgb@1" if number % 7 else "other")
            assert (
                store.get(f"{number:05}.jpg", {"ns-1": ["context"]}).spaces["ns-1"]["context"]
                == (record.spaces["ns-1"]["context"])
            )
        assert len(store) == len(wanted) == len(store.keys())
        assert set(store.made([made.key_of(n) for n in range(60)], "ns-1")) == {made.key_of(n) for n in wanted}
        assert store.known({"/photos/00002.jpg": (2, 1)}) == {"/photos/00002.jpg": made.key_of(2)}
        assert store.known({"/photos/00010.jpg": (10, 1)}) == {}
        assert store.verify().sound
        store.compact()
        assert store.verify().sound
        assert store.verify().orphans == ()
        assert store.get("00059.jpg").uris == ("/photos/00059.jpg",)
    assert len(open_store(path)) == len(wanted)


def test_a_commit_lists_no_folder_of_data(path, fill, made, monkeypatch):
    """What a put costs does not grow with the number of files: it never lists a folder of data."""
    fill(3, 2)
    listed = []
    with open_store(path, "w") as store:
        scan, listing = os.scandir, os.listdir
        monkeypatch.setattr(os, "scandir", lambda p=".": (listed.append(str(p)), scan(p))[1])
        monkeypatch.setattr(os, "listdir", lambda p=".": (listed.append(str(p)), listing(p))[1])
        store.put([made.record(99)])
        monkeypatch.undo()
    assert listed
    assert not [folder for folder in listed if folder.endswith(("/data", "_deletions", "_indices"))]


@pytest.mark.parametrize("replacing", [False, True])
def test_replacing_is_one_commit(path, fill, made, replacing):
    fill(2, 3)
    with open_store(path, "w") as store:
        before = store._now.commit.number
        store.put([made.record(1, encoder="new")], replace=replacing)
        assert store._now.commit.number == before + replacing
        wanted = made.record(1, encoder="new" if replacing else "ns-rgb@1")
        assert store.get(made.key_of(1)) == replace(wanted, uris=("/photos/00001.jpg",))
