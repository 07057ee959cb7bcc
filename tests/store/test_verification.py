"""verify finds what opening cannot see, and repair loses nothing silently."""

from __future__ import annotations

import pyarrow as pa
import pytest

from chiasm.errors import StoreError
from chiasm.store import StoreWarning, open_store
from chiasm.store.levels import COLUMNS
from chiasm.store.local import commits, datasets
from chiasm.store.local.tables import Table
from chiasm.store.rows import PICTURES

WORD = "unsound"


def check_against(made, numbers):
    """A check that knows what each picture was: what decoding does in real life."""
    known = {made.key_of(number): made.record(number) for number in numbers}

    def check(record):
        return None if record == known[record.key] else WORD

    return check


def folder_of(path, level):
    """The table of a level of ns-1."""
    with open_store(path) as store:
        return store._now.commit.table_of("ns-1", level)


def damage_stream(path, record, level="detail"):
    """Zero one stream in whatever data file holds it."""
    wanted = record.spaces["ns-1"][level].coded.data
    for file in (path / folder_of(path, level) / "data").iterdir():
        data = file.read_bytes()
        at = data.find(wanted)
        if at >= 0:
            file.write_bytes(data[:at] + bytes(len(wanted)) + data[at + len(wanted) :])
            return
    raise AssertionError("no file holds the stream")


def test_a_sound_store_verifies(path, fill, made):
    fill(3, 4)
    with open_store(path) as store:
        report = store.verify(check_against(made, range(12)))
        assert (report.rows, report.sound, report.orphans, report.repaired) == (12, True, (), False)
        with pytest.raises(StoreError, match="mode 'w'"):
            store.verify(repair=True)


def test_a_bad_level_is_taken_out_alone_its_bytes_are_kept_and_the_next_encode_redoes_it(path, fill, made):
    fill(3, 4)
    damage_stream(path, made.record(2))
    check = check_against(made, range(12))
    stats = {"/photos/00002.jpg": (12, 5)}
    key = made.key_of(2)
    with open_store(path, "w") as store:
        store.put([made.record(2)], stats=stats)
        assert list(store.verify(check).bad) == [key]
        with pytest.raises(StoreError, match="its bytes are not those that were stored; run verify with repair"):
            store.get(key)
        with pytest.warns(StoreWarning, match="left out"):
            assert set(next(r for r in store.scan() if r.key == key).spaces["ns-1"]) == {"context"}
        report = store.verify(check, repair=True)
        assert (report.rows, list(report.bad), report.repaired) == (11, [key], True)
        assert set(store.get(key).spaces["ns-1"]) == {"context"}
        (failure,) = store.failures()
        assert (failure.uri, failure.reason) == ("/photos/00002.jpg", "damaged")
        assert store.failed(stats) == set()  # so it is tried without --retry
        assert store.made([key], "ns-1") == {key: {"context": ("ns-rgb@1", "ladder/q3")}}
    with open_store(path, "w") as store:
        assert [f.uri for f in store.failures()] == ["/photos/00002.jpg"]
        store.put([made.record(2)], stats=stats)
        assert store.verify(check).sound
        assert store.failures() == []
        assert [store.get(made.key_of(n)) for n in range(12)] == [made.record(n) for n in range(12)]
    (kept,) = (path / "quarantine").rglob("rows.arrow")
    with pa.ipc.open_file(kept) as file:
        (row,) = file.read_all().to_pylist()
    assert row["key"] == key
    assert row["stream"] == bytes(3000)


def test_a_picture_that_the_check_refuses_goes_with_all_its_levels(path, fill, made):
    fill(2, 3)
    with open_store(path, "w") as store:
        report = store.verify(lambda record: WORD if record.key == made.key_of(4) else None, repair=True)
        assert (report.rows, report.bad) == (5, {made.key_of(4): WORD})
        assert made.key_of(4) not in store
        assert store.stats().levels["ns-1"]["detail"].rows == 5
        assert [(f.uri, f.reason, f.message) for f in store.failures()] == [("/photos/00004.jpg", "damaged", WORD)]
        store.put([made.record(4)])
        assert store.verify(check_against(made, range(6))).sound
        assert store.failures() == []
    kept = {}
    for file in (path / "quarantine").rglob("rows.arrow"):
        with pa.ipc.open_file(file) as rows:
            kept[file.parent.name] = rows.read_all().to_pylist()
    assert len(kept) == 3
    (context,) = (rows for name, rows in kept.items() if "context" in name)
    assert context[0]["stream"] == made.record(4).spaces["ns-1"]["context"].coded.data


FACTS_OF_PICTURES = [name for name in PICTURES.names if name not in ("crc", "added")]
FACTS_OF_LEVELS = [name for name, _ in COLUMNS]
OTHER = {"key": "f" * 64, "shape": [64, 1, 1], "view": [1.0, 1, 1, 1, 0, 0], "capture": '{"sensor": 3}'}


def change_fact(path, table, key, column):
    """Store another value of one fact, as a flipped bit or a forger would, with a journal that agrees."""
    with open_store(path, "w") as store:
        now = store._now
        kind = now.table(table).dataset.schema.field(column).type
        value = OTHER.get(column, "x" if pa.types.is_string(kind) else 17)

        def change(dataset):
            old = Table(path, table, dataset).find("key", [key], dataset.schema.names, row_ids=True)
            row = {**old.drop_columns(["_rowid"]).to_pylist()[0], column: value}
            done = datasets.delete_rows(dataset, old["_rowid"].to_pylist())
            return done.then(datasets.append(done.dataset, pa.Table.from_pylist([row], schema=dataset.schema)))

        commits.apply(now, {table: change}, "damaging")


@pytest.mark.parametrize(
    "column", [*(f"pictures {name}" for name in FACTS_OF_PICTURES), *(f"detail {name}" for name in FACTS_OF_LEVELS)]
)
def test_any_changed_fact_of_a_row_is_found_and_repaired(path, fill, made, column):
    fill(1, 4)
    table, name = column.split()
    change_fact(path, "pictures" if table == "pictures" else folder_of(path, table), made.key_of(1), name)
    with open_store(path, "w") as store:
        report = store.verify(repair=True)
        assert not report.sound
        assert report.rows >= 3
        assert made.key_of(1) in report.bad or "f" * 64 in report.bad
        store.put([made.record(number) for number in range(4)])
        assert store.verify(check_against(made, range(4))).sound
        assert len(store) == 4


def test_a_row_of_nonsense_never_stops_the_others(path, fill, made):
    fill(1, 5)
    for column, value in (("capture", "[" * 60_000), ("key", "\x1b[2J"), ("height", -1)):
        OTHER[column] = value
        change_fact(path, "pictures", made.key_of({"capture": 0, "key": 1, "height": 2}[column]), column)
    OTHER.update(key="f" * 64, capture='{"sensor": 3}')
    del OTHER["height"]
    with open_store(path, "w") as store:
        with pytest.warns(StoreWarning, match="left out"):
            assert [record.key for record in store.scan()] == [made.key_of(3), made.key_of(4)]
        report = store.verify(repair=True)
        assert (report.rows, len(report.bad)) == (2, 3)
        assert [record.key for record in store.scan()] == [made.key_of(3), made.key_of(4)]
        assert store.verify().sound


def test_rows_that_lance_cannot_read_are_found_one_by_one(path, made):
    """One stream's length is overwritten: Lance fails on that column, and every key is still readable."""
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        store.put([made.record(number) for number in range(4)])
        store.put([made.record(number) for number in range(4, 6)])
        name = store._now.commit.table_of("ns-1", "detail")
        (part,) = store._now.table(name).dataset.get_fragments()[0].data_files()
    file = path / name / "data" / part.path
    data = bytearray(file.read_bytes())
    at = data.find(made.record(1).spaces["ns-1"]["detail"].coded.data)
    data[at - 8 : at] = b"\xff" * 8
    file.write_bytes(data)
    with open_store(path, "w") as store:
        report = store.verify(check_against(made, range(6)), repair=True)
        assert made.key_of(1) in report.bad
        assert not report.unreadable
        assert report.rows >= 2
        store.put([made.record(number) for number in range(6)])
        assert store.verify(check_against(made, range(6))).sound


def test_a_check_that_raises_is_a_reason(path, fill, made):
    fill(1, 2)

    def check(record):
        raise StoreError("cannot be decoded")

    with open_store(path) as store:
        assert set(store.verify(check).bad.values()) == {"cannot be decoded"}


@pytest.mark.parametrize("table", ["pictures", "detail"])
@pytest.mark.parametrize("kind", ["missing", "truncated", "zeroed"])
def test_an_old_data_file_that_breaks_hides_only_its_own_images(path, fill, made, kind, table):
    fill(4, 3)
    name = table if table == "pictures" else folder_of(path, table)
    with open_store(path) as store:
        file = path / name / "data" / store._now.table(name).dataset.get_fragments()[1].data_files()[0].path
    size = file.stat().st_size
    if kind == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: size // 2] if kind == "truncated" else bytes(size))
    rest = [made.record(number) for number in (0, 1, 2, 6, 7, 8, 9, 10, 11)]
    with open_store(path, "w") as store:
        with pytest.warns(StoreWarning, match="1 data files of .* cannot be read"):
            assert store.get(made.key_of(8)) == made.record(8)
        report = store.verify(repair=True)
        assert report.unreadable == {name: 1}
        assert not report.sound
        if table == "pictures":
            assert sorted(report.lost) == [f"/photos/{number:05d}.jpg" for number in (3, 4, 5)]
            assert list(store.scan()) == rest
            assert [f.reason for f in store.failures()] == ["damaged"] * 3
        else:
            assert set(store.made([made.key_of(4)], "ns-1")[made.key_of(4)]) == {"context"}
    with open_store(path, "w") as store:
        store.put([made.record(number) for number in range(12)])
        assert store.verify(check_against(made, range(12))).sound
        assert len(store) == 12
        assert store.failures() == []


def test_damaged_tables_are_named(path, made):
    import hashlib

    data = b"tables"
    name = hashlib.sha256(data).hexdigest()
    with open_store(path, "w") as store:
        store.declare(made.SPACE)
        store.put_table(name, data)
        (path / "tables" / f"{name}.bin").write_bytes(b"tablex")
        assert list(store.verify().tables) == [name]
        with pytest.raises(StoreError, match="SHA-256"):
            store.table(name)
        store.put_table(name, data)
        assert store.verify().sound


def test_orphans_are_reported_and_moved_aside(path, fill):
    fill(2, 2)
    stray = path / "pictures" / "data" / "0101.lance"
    stray.write_bytes(b"half a file")
    with open_store(path, "w") as store:
        assert store.verify().orphans == ("pictures/data/0101.lance",)
        assert stray.exists()
        store.verify(repair=True)
        assert not stray.exists()
        assert [file.read_bytes() for file in (path / "quarantine").rglob("0101.lance")] == [b"half a file"]
        assert store.verify().orphans == ()
