"""What goes into a store comes out of it, level by level and space by space."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import replace

import pytest

from chiasm.contracts import Failure, Level, Space, Stored
from chiasm.errors import StoreError
from chiasm.store import LanceStore, open_store


def with_level(record, level, **changes):
    """The record with other facts of one of its levels in ns-1."""
    stored = record.spaces["ns-1"][level]
    levels = {**record.spaces["ns-1"], level: Stored(stored.encoder, replace(stored.coded, **changes))}
    return replace(record, spaces={"ns-1": levels})


def test_records_come_back_whole_and_in_order(store, made):
    records = [made.record(number) for number in range(20)]
    store.put(records[:7])
    store.put(records[7:])
    assert list(store.scan()) == records
    some = [records[12], records[3], records[12]]
    assert store.get_many([record.key for record in some]) == some
    assert store.keys() == [record.key for record in records]
    assert len(store) == 20
    assert records[5].key in store
    assert made.key_of(99) not in store


def test_a_level_is_read_alone_and_none_reads_the_facts(store, made):
    store.put([made.record(1)])
    assert set(store.get(made.key_of(1), {"ns-1": ["detail"]}).spaces["ns-1"]) == {"detail"}
    assert store.get(made.key_of(1), {}) == replace(made.record(1), spaces={})
    assert [set(found.spaces["ns-1"]) for found in store.scan({"ns-1": ["context"]})] == [{"context"}]
    with pytest.raises(StoreError, match="no level 'contxt' of space 'ns-1'; did you mean 'context'"):
        store.get(made.key_of(1), {"ns-1": ["contxt"]})
    with pytest.raises(StoreError, match="no space 'ns-2'; did you mean 'ns-1'"):
        store.get(made.key_of(1), {"ns-2": ["context"]})


def test_a_level_that_was_not_stored_is_absent_and_an_empty_one_is_not(store, made):
    store.put([made.record(1, sizes=(500,)), made.record(2, sizes=(500, 0))])
    assert set(store.get(made.key_of(1)).spaces["ns-1"]) == {"context"}
    assert store.get(made.key_of(2)).spaces["ns-1"]["detail"].coded.data == b""


def test_a_second_space_and_further_levels_are_added_to_what_is_there(store, made):
    store.put([made.record(number, sizes=(900,)) for number in range(6)])
    store.put([made.record(number) for number in range(4)])  # gains `detail`
    store.declare(made.TOKENS)
    store.put([made.tokens(number) for number in range(2, 8)])
    assert len(store) == 8
    assert set(store.get(made.key_of(5)).spaces["ns-1"]) == {"context"}
    for number in (2, 3):
        both = {**made.record(number).spaces, **made.tokens(number).spaces}
        assert store.get(made.key_of(number)) == replace(made.record(number), spaces=both)
    found = store.made([made.key_of(n) for n in range(9)], made.TOKENS.name)
    assert sorted(found) == sorted(made.key_of(n) for n in range(2, 8))
    assert found[made.key_of(7)] == {"tokens": ("vit@1", "plain"), "summary": ("vit@1", "plain")}
    assert store.made([made.key_of(5)], "ns-1") == {made.key_of(5): {"context": ("ns-rgb@1", "ladder/q3")}}
    assert store.made([made.key_of(5)], "nowhere") == {}


def test_a_stored_level_is_kept_unless_it_is_to_be_replaced(store, made, path):
    old, new = made.record(1), made.record(1, encoder="ns-rgb@2")
    store.put([old, made.record(2)])
    store.put([new])
    assert store.get(old.key) == old
    store.put([replace(new, spaces={"ns-1": {"detail": new.spaces["ns-1"]["detail"]}})], replace=True)
    assert store.get(old.key).spaces["ns-1"]["context"] == old.spaces["ns-1"]["context"]
    assert store.get(old.key).spaces["ns-1"]["detail"] == new.spaces["ns-1"]["detail"]
    assert store.made([old.key], "ns-1")[old.key]["detail"] == ("ns-rgb@2", "ladder/q3")
    assert store.stats().levels["ns-1"]["detail"].rows == 2
    assert open_store(path).verify().sound


def test_two_spaces_of_one_name_are_refused_and_further_levels_are_not(store):
    levels = (Level("context", 64, 4), Level("detail", 64, 2))
    for other, said in (
        (Space("ns-1", levels, 8), "a grid of 4 pixels and this one has 8"),
        (Space("ns-1", (Level("context", 32, 4),), 4), "64 channels at stride 4, and this one has 32 at 4"),
        (Space("ns-1", (Level("detail", 64, 4),), 4), "64 channels at stride 2, and this one has 64 at 4"),
        (Space("a b", levels, 4), "a space is named"),
        (Space("../x", levels, 4), "a space is named"),
        (Space("x", (Level("a/b", 1, 1),), 4), "a level is named"),
        (Space("x", (Level("a", 1, 1), Level("a", 1, 1)), 4), "names a level twice"),
        (Space("x", (Level("a", 0, 1),), 4), "0 channels"),
    ):
        with pytest.raises(StoreError, match=said):
            store.declare(other)
    store.declare(Space("ns-1", (Level("tiny", 16, 16),), 4))
    assert store.spaces() == {"ns-1": Space("ns-1", (*levels, Level("tiny", 16, 16)), 4)}


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_a_vector_is_stored_as_numbers_and_comes_back_bit_for_bit(store, made, dtype):
    store.declare(made.TOKENS)
    records = [made.tokens(number, dtype) for number in range(50)]
    store.put(records)
    assert list(store.scan()) == records
    (table,) = [name for name, of in store._now.commit.levels.items() if of[1] == "summary"]
    kind = store._now.table(table).dataset.schema.field("vector").type
    assert (kind.list_size, kind.value_type.bit_width) == (8, 16 if dtype == "<f2" else 32)
    other = made.tokens(60, "<f4" if dtype == "<f2" else "<f2")
    with pytest.raises(StoreError, match="store the level with one precision"):
        store.put([other])
    short = replace(other.spaces[made.TOKENS.name]["summary"].coded, data=b"12345")
    with pytest.raises(StoreError, match="8 numbers of float16 or float32, got 5 bytes"):
        store.put([replace(other, spaces={made.TOKENS.name: {"summary": Stored("x", short)}})])
    assert len(store) == 50


def test_a_vector_keeps_numbers_that_are_none(store, made):
    store.declare(made.TOKENS)
    record = made.tokens(1)
    odd = struct.pack("<8H", 0x7C00, 0xFC00, 0x7E00, 0x7E01, 0x8000, 1, 0, 0x3C00)
    stored = record.spaces[made.TOKENS.name]["summary"]
    record = replace(record, spaces={made.TOKENS.name: {"summary": Stored("x", replace(stored.coded, data=odd))}})
    store.put([record])
    assert store.get(record.key) == record


def test_the_same_bytes_are_stored_once_and_further_uris_are_noted(store, made):
    store.put([made.record(1, uris=["/a.jpg"])])
    store.put([made.record(1, uris=["/b.jpg"]), made.record(1, uris=["/c.jpg"])])
    store.put([], uris={"/d.jpg": made.key_of(1)})
    store.put([], uris={"/d.jpg": made.key_of(1)})
    assert len(store) == 1
    assert store.get(made.key_of(1)).uris == ("/a.jpg", "/b.jpg", "/c.jpg", "/d.jpg")
    with pytest.raises(StoreError, match="not stored; put its record first"):
        store.put([], uris={"/e.jpg": made.key_of(2)})


def test_known_needs_the_same_file(store, made):
    stats = {"/photos/00001.jpg": (100, 7), "/photos/00002.jpg": (100, 7)}
    store.put([made.record(1), made.record(2)], stats={"/photos/00001.jpg": (100, 7)})
    assert store.known(stats) == {"/photos/00001.jpg": made.key_of(1)}
    assert store.known({"/photos/00001.jpg": (100, 8)}) == {}
    assert store.known({"/photos/00009.jpg": (100, 7), "/photos/\udcff.jpg": (100, 7)}) == {}
    store.put([made.record(2)], stats=stats)  # the same bytes again, now with their stat
    assert store.known(stats) == {f"/photos/0000{number}.jpg": made.key_of(number) for number in (1, 2)}
    store.put([made.record(2)])  # a stat that nobody looked up unsays nothing
    assert len(store.known(stats)) == 2


def test_a_changed_file_at_a_known_uri_is_what_the_uri_means(store, made):
    store.put([made.record(1, uris=["/a.jpg", "/b.jpg"])], stats={"/a.jpg": (1, 1)})
    store.put([made.record(2, uris=["/a.jpg"])], stats={"/a.jpg": (2, 2)})
    assert store.get("/a.jpg").key == made.key_of(2)
    assert store.get(made.key_of(1)).uris == ("/b.jpg",)
    assert store.known({"/a.jpg": (1, 1)}) == {}
    store.put([made.record(1, uris=["/a.jpg"])], stats={"/a.jpg": (3, 3)})  # and back again
    assert store.get("a.jpg").key == made.key_of(1)
    assert store.get(made.key_of(1)).uris == ("/b.jpg", "/a.jpg")
    assert store.get(made.key_of(2)).uris == ()


def test_a_failure_stands_until_a_success_and_again_after_a_later_failure(store, made):
    bad = Failure("/photos/00001.jpg", "truncated", "/photos/00001.jpg ends after 12 bytes")
    stats = {bad.uri: (12, 5)}
    store.put([], [bad], stats=stats)
    assert store.failures() == [bad]
    assert store.failed(stats) == {bad.uri}
    assert store.failed({bad.uri: (13, 5)}) == set()  # the file changed: worth another try
    assert store.known(stats) == {}
    store.put([made.record(1)], stats={bad.uri: (900, 6)})
    assert store.failures() == []
    worse = replace(bad, reason="empty", message="/photos/00001.jpg has no bytes")
    store.put([], [worse])
    assert store.failures() == [worse]
    store.put([made.record(1)])  # the same bytes as before are news after a failure
    assert store.failures() == []


def test_a_key_may_be_a_prefix_a_uri_or_the_end_of_a_path(store, made):
    store.put([made.record(number) for number in range(40)])
    store.put([made.record(50, uris=["/photos/Übung/雪 1.jpg"]), made.record(51, uris=["/other/it's.jpg"])])
    key = made.key_of(7)
    for name in (key, key[:10], "/photos/00007.jpg", "00007.jpg", "photos/00007.jpg"):
        assert store.get(name, {}).key == key
    assert store.get("雪 1.jpg", {}).uris == ("/photos/Übung/雪 1.jpg",)
    assert store.get("it's.jpg", {}).uris == ("/other/it's.jpg",)
    with pytest.raises(StoreError, match="no image 'photos/00077.jpg'; did you mean '/photos/000"):
        store.get("photos/00077.jpg")
    with pytest.raises(StoreError, match="no image 'zzzzzzzz'; there are 42 images"):
        store.get("zzzzzzzz")
    with pytest.raises(StoreError, match="no image"):
        store.get(key[:5])  # too short to be meant
    with pytest.raises(StoreError, match="no image"):
        store.get("' OR true --")


def test_a_name_of_two_pictures_names_the_candidates(store, made):
    store.put([replace(made.record(n, uris=[]), key="abcdef" + f"{n:058x}") for n in (1, 2)])
    store.put([made.record(n, uris=[f"/day {n}/0001.tif"]) for n in (3, 4)])
    with pytest.raises(StoreError, match="'abcdef' means 2 images"):
        store.get("abcdef")
    with pytest.raises(StoreError, match=r"'0001.tif' means 2 images \(/day 3/0001.tif, /day 4/0001.tif\)"):
        store.get("0001.tif")
    assert store.get("day 4/0001.tif").key == made.key_of(4)


def test_an_empty_store_answers(store, made):
    assert len(store) == 0
    assert list(store.scan()) == []
    assert store.keys() == []
    assert store.get_many([]) == []
    assert store.failures() == []
    assert store.known({}) == {}
    assert store.stats().bits_per_pixel == {"ns-1": {"context": 0.0, "detail": 0.0}}
    with pytest.raises(StoreError, match="the store is empty"):
        store.get(made.key_of(1))


def test_what_does_not_belong_is_refused_and_nothing_of_its_batch_stays(store, made):
    good = made.record(1)
    context = good.spaces["ns-1"]["context"]
    cases = [
        (made.record(2, space="ns-2"), "is of space 'ns-2', which the store does not know; call declare first"),
        (replace(good, spaces={"ns-1": {"contxt": context}}), "did you mean 'context'"),
        (with_level(good, "context", tables="ab" * 32), "call put_table first"),
        (with_level(good, "context", shape=(32, 12, 16)), "the shape of a map of 64 channels"),
        (with_level(good, "context", tile=-1), "tile is a whole number"),
        (with_level(good, "context", codec="a\nb"), "the codec reads"),
        (replace(good, key="XYZ"), "64 lower-case hex digits"),
        (replace(good, key="/../../name".ljust(64, "0")), "64 lower-case hex digits"),
        (replace(good, digest=""), "64 lower-case hex digits"),
        (replace(good, columns={"rating": 3}), "call label to add a column first"),
        (replace(good, uris=("a\0b",)), "a uri is"),
        (replace(good, uris=("a\udcff.jpg",)), "a uri is"),
        (replace(good, source_bytes="many"), "source_bytes is a whole number"),
        (replace(good, size=(1.5, 3)), "height is a whole number"),
    ]
    for bad, said in cases:
        with pytest.raises(StoreError, match=said):
            store.put([made.record(5), bad])
    assert len(cases) == 14
    assert len(store) == 0


def test_tables_are_kept_by_their_hash(store, made):
    data = b"codec tables"
    name = hashlib.sha256(data).hexdigest()
    store.put_table(name, data)
    store.put_table(name[:16], data)
    assert store.table(name) == store.table(name[:16]) == data
    store.put([with_level(made.record(1), "context", tables=name)])
    assert store.stats().tables == {name: 1}
    with pytest.raises(StoreError, match="SHA-256"):
        store.put_table("ab" * 32, data)
    with pytest.raises(StoreError, match="no tables"):
        store.table("cd" * 32)
    with pytest.raises(StoreError, match="no tables"):
        store.table("../store")


def test_stats_count_without_reading_streams(store, made):
    records = [made.record(number) for number in range(10)] + [made.record(10, sizes=(100,))]
    store.put(records, [Failure("/x.jpg", "empty", "no bytes")])
    stats = store.stats()
    pixels = sum(record.size[0] * record.size[1] for record in records)
    assert (stats.images, stats.sources, stats.failures, stats.pixels) == (11, 11, 1, pixels)
    context, detail = (stats.levels["ns-1"][name] for name in made.LEVELS)
    assert (context.rows, context.bytes, detail.rows, detail.bytes) == (11, 9100, 10, 30_000)
    assert (context.encoders, detail.codecs) == ({"ns-rgb@1": 11}, {"ladder/q3": 10})
    assert stats.bits_per_pixel["ns-1"]["detail"] == 8 * 30_000 / pixels
    assert stats.source_bytes == 11 * 12_345
    assert stats.sensors == {str(made.SENSOR): 4}


def test_a_put_of_nothing_new_writes_nothing(store, made, path):
    store.put([made.record(1)])
    before = sorted(os.walk(path))
    store.put([made.record(1)])
    store.put([])
    store.declare(made.SPACE)
    assert sorted(os.walk(path)) == before


def test_a_reopened_store_is_the_same(path, fill, made):
    fill(3, 5)
    with open_store(path) as store:
        assert list(store.scan()) == [made.record(number) for number in range(15)]
        with pytest.raises(StoreError, match="mode 'w'"):
            store.put([made.record(1)])


def test_reading_context_costs_the_bytes_of_context(store, path, made):
    store.put([made.record(number, sizes=(5000, 40_000)) for number in range(32)])
    with open_store(path) as reader:
        tables = {of[1]: reader._now.table(name).dataset for name, of in reader._now.commit.levels.items()}
        assert len(list(reader.scan({"ns-1": ["context"]}))) == 32
        assert tables["context"].io_stats_incremental().read_bytes < 32 * 5000 + 60_000
        reader.get(made.key_of(9), {"ns-1": ["context"]})
        assert tables["context"].io_stats_incremental().read_bytes < 60_000
        assert tables["detail"].io_stats_incremental().read_bytes < 10_000


def test_a_closed_store_writes_no_more(store, made):
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.put([made.record(1)])
    assert isinstance(store, LanceStore)
