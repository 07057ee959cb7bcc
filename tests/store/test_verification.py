"""verify finds what opening cannot see, and repair loses nothing silently."""

from __future__ import annotations

import pyarrow as pa
import pytest

from chiasm.errors import StoreError
from chiasm.store import StoreWarning, open_store

WORD = "unsound"


def check_against(made, numbers):
    """A check that knows what each stream was: what the packet's own CRC does in real life."""
    known = {made.key_of(number): made.record(number) for number in numbers}

    def check(record):
        return None if record.packet == known[record.key].packet else WORD

    return check


def damage_stream(path, record, level="detail"):
    """Zero one stream in whatever data file holds it."""
    for file in (path / "images.lance" / "data").iterdir():
        data = file.read_bytes()
        at = data.find(record.packet.streams[level])
        if at >= 0:
            size = len(record.packet.streams[level])
            file.write_bytes(data[:at] + bytes(size) + data[at + size :])
            return
    raise AssertionError("no file holds the stream")


def test_a_sound_store_verifies(path, fill, made):
    fill(3, 4)
    with open_store(path) as store:
        report = store.verify(check_against(made, range(12)))
        assert (report.rows, report.sound, report.orphans, report.repaired) == (12, True, (), False)
        with pytest.raises(StoreError, match="mode 'w'"):
            store.verify(repair=True)


def test_a_bad_row_becomes_a_failure_its_bytes_are_kept_and_the_next_encode_redoes_it(path, fill, made):
    fill(3, 4)
    damage_stream(path, made.record(2))
    check = check_against(made, range(12))
    stats = {"/photos/00002.jpg": (12, 5)}
    with open_store(path, "w") as store:
        store.note_uris({"/photos/00002.jpg": made.key_of(2)}, stats)
        assert store.verify(check).bad == {made.key_of(2): WORD}
        assert len(store) == 12
        report = store.verify(check, repair=True)
        assert (report.rows, report.bad, report.repaired) == (11, {made.key_of(2): WORD}, True)
        assert made.key_of(2) not in store
        assert [(f.uri, f.reason, f.message) for f in store.failures()] == [
            ("/photos/00002.jpg", "damaged", WORD)
        ]
        assert store.done(stats, "ns-rgb@1") == store.failed(stats) == set()  # so it is tried without --retry
    with open_store(path, "w") as store:
        assert [f.uri for f in store.failures()] == ["/photos/00002.jpg"]
        store.put([made.record(2)], stats=stats)
        assert store.verify(check).sound
        assert store.failures() == []
        assert len(store) == 12
        assert store.get(made.key_of(2)) == made.record(2)
        assert [store.get(made.key_of(n)) for n in range(12)] == [made.record(n) for n in range(12)]
    (kept,) = (path / "quarantine").rglob("rows.arrow")
    with pa.ipc.open_file(kept) as file:
        (row,) = file.read_all().to_pylist()
    assert row["key"] == made.key_of(2)
    assert row["level_context"] == made.record(2).packet.streams["context"]


def test_rows_that_lance_cannot_read_are_found_one_by_one(path, made):
    """One stream's length is overwritten: Lance fails on that column, and every key is still readable."""
    with open_store(path, "w", made.SPACE, made.LEVELS) as store:
        store.put([made.record(number) for number in range(4)])
        store.put([made.record(number) for number in range(4, 6)])
        (part,) = store._sets["images.lance"].get_fragments()[0].data_files()
    file = path / "images.lance" / "data" / part.path
    data = bytearray(file.read_bytes())
    at = data.find(made.record(1).packet.streams["detail"])
    data[at - 8 : at] = b"\xff" * 8
    file.write_bytes(data)
    with open_store(path, "w") as store:
        report = store.verify(check_against(made, range(6)), repair=True)
        assert made.key_of(1) in report.bad
        assert not report.unreadable
        assert report.rows + len(report.bad) == 6
        assert report.rows >= 4
        store.put([made.record(number) for number in range(6)])
        assert store.verify(check_against(made, range(6))).sound


def test_a_check_that_raises_is_a_reason(path, fill, made):
    fill(1, 2)

    def check(record):
        raise StoreError("cannot be decoded")

    with open_store(path) as store:
        assert set(store.verify(check).bad.values()) == {"cannot be decoded"}


@pytest.mark.parametrize("kind", ["missing", "truncated", "zeroed"])
def test_an_old_data_file_that_breaks_hides_only_its_own_images(path, fill, made, kind):
    fill(4, 3)
    with open_store(path) as store:
        file = (
            path
            / "images.lance"
            / "data"
            / store._sets["images.lance"].get_fragments()[1].data_files()[0].path
        )
    size = file.stat().st_size
    if kind == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: size // 2] if kind == "truncated" else bytes(size))
    rest = [made.record(number) for number in (0, 1, 2, 6, 7, 8, 9, 10, 11)]
    with open_store(path, "w") as store:
        with pytest.warns(StoreWarning, match="1 data files cannot be read"):
            assert len(store) == 9
        assert store.get(made.key_of(8)) == made.record(8)
        report = store.verify(repair=True)
        assert report.unreadable == (1,)
        assert sorted(report.lost) == [f"/photos/{number:05d}.jpg" for number in (3, 4, 5)]
        assert list(store.scan()) == rest
        assert [f.reason for f in store.failures()] == ["damaged"] * 3
    with open_store(path, "w") as store:
        store.put([made.record(number) for number in range(12)])
        assert store.verify(check_against(made, range(12))).sound
        assert len(store) == 12
        assert store.failures() == []


def test_damaged_tables_are_named(path, made):
    import hashlib

    data = b"tables"
    name = hashlib.sha256(data).hexdigest()
    with open_store(path, "w", made.SPACE, made.LEVELS) as store:
        store.put_table(name, data)
        (path / "tables" / f"{name}.bin").write_bytes(b"tablex")
        assert list(store.verify().tables) == [name]
        with pytest.raises(StoreError, match="SHA-256"):
            store.table(name)
        store.put_table(name, data)
        assert store.verify().sound


def test_orphans_are_reported_and_moved_aside(path, fill):
    fill(2, 2)
    stray = path / "images.lance" / "data" / "0101.lance"
    stray.write_bytes(b"half a file")
    with open_store(path, "w") as store:
        assert store.verify().orphans == ("images.lance/data/0101.lance",)
        assert stray.exists()
        store.verify(repair=True)
        assert not stray.exists()
        assert [file.read_bytes() for file in (path / "quarantine").rglob("0101.lance")] == [b"half a file"]
        assert store.verify().orphans == ()
