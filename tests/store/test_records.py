"""What goes into a store comes out of it, level by level, and both stores agree."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest

from chiasm.contracts import Failure
from chiasm.errors import StoreError
from chiasm.store import LanceStore, MemoryStore, open_store


@pytest.fixture(params=["lance", "memory"])
def either(request, path, made):
    """Each law below holds for the store on disk and the one in memory."""
    if request.param == "lance":
        with open_store(path, "w", made.SPACE, made.LEVELS) as store:
            yield store
    else:
        yield MemoryStore(made.SPACE, made.LEVELS)


def test_records_come_back_whole_and_in_order(either, made):
    records = [made.record(number) for number in range(20)]
    either.put(records[:7])
    either.put(records[7:])
    assert list(either.scan()) == records
    assert either.get_many([records[12].key, records[3].key, records[12].key]) == [
        records[12],
        records[3],
        records[12],
    ]
    assert either.keys() == [record.key for record in records]
    assert len(either) == 20
    assert records[5].key in either
    assert made.key_of(99) not in either


def test_a_level_is_read_alone_and_none_reads_the_facts(either, made):
    either.put([made.record(1)])
    assert set(either.get(made.key_of(1), ["detail"]).packet.streams) == {"detail"}
    assert dict(either.get(made.key_of(1), []).packet.streams) == {}
    assert [set(found.packet.streams) for found in either.scan(["context"])] == [{"context"}]
    with pytest.raises(StoreError, match="no level 'contxt'; did you mean 'context'"):
        either.get(made.key_of(1), ["contxt"])


def test_a_level_that_was_not_stored_is_absent_and_an_empty_one_is_not(either, made):
    either.put([made.record(1, sizes=(500,)), made.record(2, sizes=(500, 0))])
    assert set(either.get(made.key_of(1)).packet.streams) == {"context"}
    assert either.get(made.key_of(2)).packet.streams["detail"] == b""


def test_the_same_bytes_are_stored_once_and_further_uris_are_noted(either, made):
    either.put([made.record(1, uris=["/a.jpg"])])
    either.put([made.record(1, uris=["/b.jpg"]), made.record(1, uris=["/c.jpg"])])
    either.note_uris({"/d.jpg": made.key_of(1)})
    either.put([], uris={"/d.jpg": made.key_of(1)})
    assert len(either) == 1
    assert either.get(made.key_of(1)).uris == ("/a.jpg", "/b.jpg", "/c.jpg", "/d.jpg")
    with pytest.raises(StoreError, match="not stored; put its record first"):
        either.note_uris({"/e.jpg": made.key_of(2)})


def test_done_needs_the_same_file_and_the_same_features(either, made):
    stats = {"/photos/00001.jpg": (100, 7), "/photos/00002.jpg": (100, 7)}
    either.put([made.record(1), made.record(2)], stats={"/photos/00001.jpg": (100, 7)})
    assert either.done(stats, "ns-rgb@1") == {"/photos/00001.jpg"}
    assert either.done({"/photos/00001.jpg": (100, 8)}, "ns-rgb@1") == set()
    assert either.done(stats, "ns-rgb@2") == set()
    either.put([made.record(2)], stats=stats)  # the same bytes again, now with their stat
    assert either.done(stats, "ns-rgb@1") == set(stats)


def test_one_file_under_two_feature_ids_is_two_images(either, made):
    stats = {"/photos/00001.jpg": (100, 7)}
    for feature_id in ("ns-rgb@1", "ns-rgb@2"):
        either.put([made.record(1, feature_id=feature_id)], stats=stats)
    assert len(either) == 2
    assert either.done(stats, "ns-rgb@1") == either.done(stats, "ns-rgb@2") == set(stats)
    assert either.get("/photos/00001.jpg").feature_id == "ns-rgb@2"  # the newest


def test_a_failure_stands_until_a_success_and_again_after_a_later_failure(either, made):
    bad = Failure("/photos/00001.jpg", "truncated", "/photos/00001.jpg ends after 12 bytes")
    stats = {bad.uri: (12, 5)}
    either.put([], [bad], stats=stats)
    assert either.failures() == [bad]
    assert either.failed(stats) == {bad.uri}
    assert either.failed({bad.uri: (13, 5)}) == set()  # the file changed: worth another try
    assert either.done(stats, "ns-rgb@1") == set()
    either.put([made.record(1)], stats={bad.uri: (900, 6)})
    assert either.failures() == []
    worse = replace(bad, reason="empty", message="/photos/00001.jpg has no bytes")
    either.put([], [worse])
    assert either.failures() == [worse]
    either.put([made.record(1)])  # the same bytes as before are news after a failure
    assert either.failures() == []


def test_a_key_may_be_a_prefix_a_uri_or_the_end_of_a_path(either, made):
    either.put([made.record(number) for number in range(40)])
    either.put([made.record(50, uris=["/photos/Übung/雪 1.jpg"])])
    key = made.key_of(7)
    for name in (key, key[:10], "/photos/00007.jpg", "00007.jpg", "photos/00007.jpg"):
        assert either.get(name, []).key == key
    assert either.get("雪 1.jpg", []).uris == ("/photos/Übung/雪 1.jpg",)
    with pytest.raises(StoreError, match="no image 'photos/00077.jpg'; did you mean '/photos/000"):
        either.get("photos/00077.jpg")
    with pytest.raises(StoreError, match="no image 'zzzzzzzz'; there are 41 images"):
        either.get("zzzzzzzz")
    with pytest.raises(StoreError, match="no image"):
        either.get(key[:5])  # too short to be meant


def test_an_ambiguous_prefix_names_the_candidates(either, made):
    twins = [replace(made.record(n, uris=[]), key="abcdef" + f"{n:058x}") for n in (1, 2)]
    either.put(twins)
    with pytest.raises(StoreError, match="'abcdef' means 2 images"):
        either.get("abcdef")


def test_an_empty_store_answers(either, made):
    assert len(either) == 0
    assert list(either.scan()) == []
    assert either.keys() == []
    assert either.get_many([]) == []
    assert either.failures() == []
    assert either.stats().bits_per_pixel == {"context": 0.0, "detail": 0.0}
    with pytest.raises(StoreError, match="the store is empty"):
        either.get(made.key_of(1))


def test_what_does_not_belong_is_refused_and_nothing_of_its_batch_stays(either, made):
    good = made.record(1)
    wrong_level = replace(good.packet, streams={"contxt": b"x"})
    for bad, said in (
        (made.record(2, space="ns-2"), "holds space 'ns-1' and the record"),
        (replace(good, packet=wrong_level), "did you mean 'context'"),
        (replace(good, packet=replace(good.packet, tables="ab" * 32)), "call put_table first"),
        (replace(good, key="XYZ"), "64 lower-case hex digits"),
    ):
        with pytest.raises(StoreError, match=said):
            either.put([good, bad])
    assert len(either) == 0


def test_tables_are_kept_by_their_hash(either, made):
    data = b"codec tables"
    name = hashlib.sha256(data).hexdigest()
    either.put_table(name, data)
    either.put_table(name[:16], data)
    assert either.table(name) == either.table(name[:16]) == data
    record = made.record(1)
    either.put([replace(record, packet=replace(record.packet, tables=name))])
    with pytest.raises(StoreError, match="SHA-256"):
        either.put_table("ab" * 32, data)
    with pytest.raises(StoreError, match="no tables"):
        either.table("cd" * 32)


def test_stats_count_without_reading_streams(either, made):
    records = [made.record(number) for number in range(10)] + [made.record(10, sizes=(100,))]
    either.put(records, [Failure("/x.jpg", "empty", "no bytes")])
    stats = either.stats()
    pixels = sum(r.packet.size[0] * r.packet.size[1] for r in records)
    assert (stats.images, stats.sources, stats.failures, stats.pixels) == (11, 11, 1, pixels)
    assert stats.level_bytes == {"context": 9100, "detail": 30_000}
    assert stats.bits_per_pixel["detail"] == 8 * 30_000 / pixels
    assert stats.source_bytes == 11 * 12_345
    assert (stats.spaces, stats.feature_ids, stats.codec_ids) == (
        {"ns-1": 11},
        {"ns-rgb@1": 11},
        {"ladder@3": 11},
    )


def test_a_put_of_nothing_new_writes_nothing(store, made, path):
    store.put([made.record(1)])
    before = sorted(os.walk(path))
    store.put([made.record(1)])
    store.put([])
    assert sorted(os.walk(path)) == before


def test_a_reopened_store_is_the_same(path, fill, made):
    fill(3, 5)
    with open_store(path) as store:
        assert list(store.scan()) == [made.record(number) for number in range(15)]
        with pytest.raises(StoreError, match="mode 'w'"):
            store.put([made.record(1)])


def test_reading_context_reads_none_of_the_detail_bytes(path, made):
    """Every byte of every detail stream is overwritten in the files, and context still comes back as it
    was.
    """
    records = [made.record(number, sizes=(5000, 40_000)) for number in range(32)]
    with open_store(path, "w", made.SPACE, made.LEVELS) as store:
        store.put(records)
        store.put([made.record(99)])  # so that the damaged commit is not the last, which opening checks
    (big,) = [file for file in (path / "images.lance" / "data").iterdir() if file.stat().st_size > 1_000_000]
    data = bytearray(big.read_bytes())
    for record in records:
        at = data.find(record.packet.streams["detail"])
        assert at > 0  # stored plain: entropy coded bytes are not compressed again
        data[at : at + 40_000] = bytes(40_000)
    big.write_bytes(data)
    with open_store(path) as store:
        contexts = [found.packet.streams["context"] for found in store.scan(["context"])][:32]
        assert contexts == [record.packet.streams["context"] for record in records]
        one = store.get(records[5].key, ["context"])
        assert one.packet.streams["context"] == records[5].packet.streams["context"]
        assert store.get(records[5].key).packet.streams["detail"] == bytes(40_000)


def test_reading_context_costs_the_bytes_of_context(path, made):
    records = [made.record(number, sizes=(5000, 40_000)) for number in range(32)]
    with open_store(path, "w", made.SPACE, made.LEVELS) as store:
        store.put(records)
    with open_store(path) as store:
        images = store._sets["images.lance"]
        images.io_stats_incremental()
        assert len(list(store.scan(["context"]))) == 32
        assert images.io_stats_incremental().read_bytes < 32 * 5000 + 40_000
        store.get(records[9].key, ["context"])
        assert images.io_stats_incremental().read_bytes < 40_000


def test_a_closed_store_writes_no_more(store, made):
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.put([made.record(1)])
    assert isinstance(store, LanceStore)
