"""The user's own columns, filters, removal, and the union of two stores."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace

import pyarrow as pa
import pytest

from chiasm.contracts import Failure, Level, Space, Stored
from chiasm.errors import StoreError
from chiasm.store import open_store
from chiasm.store.local import commits, growth

COLUMNS = {"split": pa.string(), "rating": pa.float32(), "faces": pa.int64(), "seen": pa.bool_()}


@pytest.fixture
def labelled(store, made):
    """Ten pictures, of which six have labels."""
    store.put([made.record(number) for number in range(10)])
    rows = {made.key_of(n): {"split": "val" if n % 2 else "train", "rating": n / 10, "faces": n} for n in range(6)}
    assert store.label(COLUMNS, rows) == 6
    return store


def test_labels_come_back_with_their_records_and_filter_them(labelled, made, path):
    record = labelled.get(made.key_of(3))
    assert dict(record.columns) == {"split": "val", "rating": pytest.approx(0.3), "faces": 3}
    assert replace(record, columns={}) == made.record(3)
    assert dict(labelled.get(made.key_of(8)).columns) == {}
    assert set(labelled.keys("split = 'val' and rating > 0.2")) == {made.key_of(3), made.key_of(5)}
    assert set(labelled.keys("faces is null")) == {made.key_of(n) for n in (6, 7, 8, 9)}
    assert {r.key for r in labelled.scan({}, where="height = 50")} == {made.key_of(n) for n in (2, 7)}
    assert [r.key for r in labelled.scan(None, where="false")] == []
    assert labelled.columns() == COLUMNS
    assert labelled.stats().columns == {"split": "string", "rating": "float", "faces": "int64", "seen": "bool"}
    assert len(list(open_store(path).scan({}))) == 10
    assert labelled.verify().sound


def test_labels_change_are_cleared_and_reach_pictures_that_come_later(labelled, made):
    labelled.label({}, {made.key_of(3): {"rating": 9.5, "split": None}, made.key_of(9): {"seen": True}})
    assert dict(labelled.get(made.key_of(3)).columns) == {"rating": 9.5, "faces": 3}
    assert dict(labelled.get(made.key_of(9)).columns) == {"seen": True}
    labelled.put([made.record(20), replace(made.record(21), columns={"faces": 7})])
    labelled.label({"Note": pa.string()}, {made.key_of(20): {"Note": "it's 雪"}})
    assert labelled.keys("Note = 'it''s 雪'") == [made.key_of(20)]
    assert labelled.keys("faces = 7") == [made.key_of(21)]
    assert labelled.verify().sound
    labelled.compact()
    assert labelled.keys("faces = 7") == [made.key_of(21)]
    assert len(labelled) == 12


def test_a_label_that_cannot_be_is_refused_and_nothing_is_written(labelled, made):
    number = labelled._now.commit.number
    cases = [
        ({"key": pa.string()}, {}, "not like one of the store's own"),
        ({"Height": pa.int32()}, {}, "not like one of the store's own"),
        ({"_rowid": pa.int32()}, {}, "a column is named with letters"),
        ({"a.b": pa.int32()}, {}, "a column is named with letters"),
        ({"SPLIT": pa.string()}, {}, "differs from 'split' in capitals only"),
        ({"rating": pa.string()}, {}, "holds float and string came"),
        ({}, {made.key_of(1): {"raiting": 3}}, "no column 'raiting'; did you mean 'rating'"),
        ({}, {made.key_of(1): {"faces": "many"}}, "does not fit the type of its column"),
        ({}, {made.key_of(99): {"faces": 1}}, "1 of 1 labelled keys are not stored"),
        ({}, {"99": {"faces": 1}}, "64 lower-case hex digits"),
    ]
    for columns, rows, said in cases:
        with pytest.raises(StoreError, match=said):
            labelled.label(columns, rows)
    assert len(cases) == 10
    assert labelled._now.commit.number == number
    assert labelled.columns() == COLUMNS
    assert labelled.verify().orphans == ()


@pytest.mark.parametrize("where", ["split =", "nowhere = 3", "split > 3 and", "1; drop table", "rating", "'" * 99])
def test_a_filter_that_is_none_is_one_sentence(labelled, where):
    for ask in (labelled.keys, lambda where: list(labelled.scan({}, where=where))):
        with pytest.raises(StoreError, match=r"the filter .* is none: .*the columns are key, ") as said:
            ask(where)
        assert "\n" not in str(said.value)
        assert ".rs:" not in str(said.value)
    with pytest.raises(StoreError, match="at most 10,000 characters"):
        labelled.keys("a" * 20_000)


def test_removed_pictures_are_gone_with_all_that_they_had(labelled, made, path):
    labelled.declare(made.TOKENS)
    labelled.put([made.tokens(number) for number in range(10)])
    assert labelled.remove([made.key_of(3), "00004.jpg", made.key_of(3)]) == 2
    for store in (labelled, open_store(path)):
        assert len(store) == 8
        assert made.key_of(3) not in store
        assert store.made([made.key_of(3)], made.TOKENS.name) == {}
        with pytest.raises(StoreError, match="no image"):
            store.get("00004.jpg")
    with pytest.raises(StoreError, match="no image 'f"):
        labelled.remove(["f" * 64])
    labelled.put([made.record(3)])
    assert labelled.get("00003.jpg") == made.record(3)
    labelled.compact()
    assert labelled.verify().sound
    assert labelled.verify().rows == 9


def test_a_removed_level_is_gone_and_may_come_back(store, made, path):
    store.put([made.record(number) for number in range(6)])
    reader = open_store(path)
    with pytest.raises(StoreError, match="did you mean 'detail'"):
        store.remove_level("ns-1", "detial")
    assert store.remove_level("ns-1", "detail") == 6
    assert store.spaces()["ns-1"].names == ("context",)
    assert set(store.get(made.key_of(1)).spaces["ns-1"]) == {"context"}
    assert reader.get(made.key_of(1)) == made.record(1)  # files stay for a while
    store.declare(made.SPACE)
    store.put([made.record(number, encoder="new") for number in range(3)])
    assert store.get(made.key_of(1)).spaces["ns-1"]["detail"].encoder == "new"
    assert store.stats().levels["ns-1"]["detail"].rows == 3
    folders = len(list((path / "levels").iterdir()))
    assert store.compact() > 6 * 3000
    assert len(list((path / "levels").iterdir())) == folders - 1 == 2
    assert store.verify().sound
    store.remove_level("ns-1", "detail")
    store.remove_level("ns-1", "context")
    assert store.spaces() == {}
    assert store.get(made.key_of(1), {}) == replace(made.record(1), spaces={})


def test_a_level_that_comes_back_after_compacting_is_not_removed_again(store, made, path, monkeypatch):
    store.put([made.record(number) for number in range(6)])
    for grace in (3600.0, 0.0):
        store.remove_level("ns-1", "detail")
        store.compact()
        store.declare(made.SPACE)
        store.put([made.record(1)])
        monkeypatch.setattr(commits, "GRACE", grace)
        store.compact()
        store.put([made.record(2)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with open_store(path) as reader:
                assert set(reader.get(made.key_of(1)).spaces["ns-1"]) == {"context", "detail"}
                assert reader.stats().levels["ns-1"]["detail"].rows == 2
        assert store.verify().sound


def test_another_store_is_merged_with_its_labels_and_what_is_here_stays(labelled, made, tmp_path):
    data = b"codec tables"
    tables = hashlib.sha256(data).hexdigest()
    record = made.record(30)
    context = record.spaces["ns-1"]["context"]
    with open_store(tmp_path / "other.lance", "w") as other:
        other.declare(made.SPACE)
        other.declare(made.TOKENS)
        other.put_table(tables, data)
        other.put([made.record(n, encoder="theirs") for n in range(8, 12)], stats={"/photos/00011.jpg": (5, 5)})
        other.put([made.tokens(n) for n in range(8, 10)])
        coded = Stored("x", replace(context.coded, tables=tables))
        other.put([replace(record, spaces={"ns-1": {"context": coded}})])
        other.put([], [Failure("/bad.jpg", "empty", "no bytes"), Failure("/photos/00001.jpg", "empty", "no bytes")])
        other.label({"faces": pa.int64(), "place": pa.string()}, {made.key_of(11): {"faces": 4, "place": "sea"}})
        other.label({}, {made.key_of(8): {"faces": 99}})
        report = labelled.merge(other)
    assert (report.images, report.levels, report.labelled, report.failures) == (3, 9, 1, 1)
    assert len(labelled) == 13
    assert labelled.get(made.key_of(8)).spaces["ns-1"] == made.record(8).spaces["ns-1"]  # ours
    assert set(labelled.get(made.key_of(8)).spaces) == {"ns-1", made.TOKENS.name}
    assert dict(labelled.get(made.key_of(11)).columns) == {"faces": 4, "place": "sea"}
    assert dict(labelled.get(made.key_of(8)).columns) == {}
    assert labelled.known({"/photos/00011.jpg": (5, 5)}) == {"/photos/00011.jpg": made.key_of(11)}
    assert [one.uri for one in labelled.failures()] == ["/bad.jpg"]
    assert labelled.table(tables) == data
    assert labelled.verify().sound
    with open_store(tmp_path / "other.lance") as other:
        again = labelled.merge(other)
    assert (again.images, again.levels, again.labelled, again.failures) == (0, 0, 0, 0)


def test_a_store_of_another_space_of_that_name_is_not_merged(store, tmp_path):
    with open_store(tmp_path / "other.lance", "w") as other:
        other.declare(Space("ns-1", (Level("context", 8, 4),), 4))
        with pytest.raises(StoreError, match="give the other space another name"):
            store.merge(other)


def test_labels_of_indexed_pictures_are_found_like_others(store, made, monkeypatch):
    monkeypatch.setattr(growth, "FAN", 2)
    monkeypatch.setattr(growth, "CLOSED_ROWS", 8)
    for first in range(0, 24, 4):
        store.put([made.record(number) for number in range(first, first + 4)])
    assert store._now.table("pictures").dataset.describe_indices()
    store.label({"rating": pa.int8()}, {made.key_of(n): {"rating": n} for n in range(0, 24, 3)})
    store.label({"split": pa.string()}, {made.key_of(n): {"split": "val"} for n in range(20)})
    assert set(store.keys("rating >= 12 and split = 'val'")) == {made.key_of(n) for n in (12, 15, 18)}
    for number in range(24):
        columns = ({"rating": number} if number % 3 == 0 else {}) | ({"split": "val"} if number < 20 else {})
        assert store.get(made.key_of(number)) == replace(made.record(number), columns=columns)
    assert len(store.keys()) == len(set(store.keys())) == 24
    assert store.verify().sound
