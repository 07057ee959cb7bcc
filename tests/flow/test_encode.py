"""Folders of files into a store: what is counted, skipped, retried and noted."""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.contracts import Level, Space
from chiasm.errors import ConfigError, ModelError, PacketError, ShapeError, StoreError
from chiasm.flow import encode as ingest
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.runtime import Runtime
from chiasm.flow.see import Eye
from chiasm.models import Model
from chiasm.store import open_store


@pytest.fixture
def mixed(save):
    """Three good pictures, one of them three times, and three that are none."""
    good = [save("a.png", seed=1), save("b.png", 21, 50, seed=2), save("sub/c.png", seed=3)]
    (good[0].parent / "copy of a.png").write_bytes(good[0].read_bytes())
    (good[0].parent / "sub" / "a again.png").write_bytes(good[0].read_bytes())
    folder = good[0].parent
    (folder / "broken.png").write_bytes(good[1].read_bytes()[:-300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "letter.png").write_bytes(b"Dear reader, this is not a picture.")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def nothing_to_decode(monkeypatch):
    """From here on a decoded picture is a failure of the test."""

    class Pool(ingest.DecoderPool):
        def decode_all(self, paths):
            assert list(paths) == []
            return iter(())

    monkeypatch.setattr(ingest, "DecoderPool", Pool)


def test_a_mixed_folder_is_counted_stored_and_its_failures_are_in_the_errors_table(writer, mixed):
    told = []
    summary = writer.encode([mixed], report=told.append)
    assert (summary.stored, summary.known, summary.failed) == (3, 2, 3)
    assert Counter(progress.outcome for progress in told) == {"stored": 3, "known": 2, "failed": 3}
    assert sorted(progress.done for progress in told) == list(range(1, 9))
    assert {progress.total for progress in told} == {8}
    failures = {failure.uri.rsplit("/", 1)[-1]: failure.reason for failure in writer.store.failures()}
    assert failures == {"broken.png": "truncated", "empty.jpg": "empty", "letter.png": "not-an-image"}
    assert len(writer.keys()) == len(set(writer.keys())) == 3
    stats = writer.store.stats()
    assert {name: level.bytes for name, level in stats.levels["ns-1"].items()} == dict(summary.level_bytes)
    assert stats.source_bytes == summary.source_bytes > 0


def test_copies_are_stored_once_and_all_their_places_are_noted(writer, mixed):
    writer.encode([mixed], workers=0)
    record = writer.store.get(str(mixed / "a.png"))
    names = sorted(uri.rsplit("/", 1)[-1] for uri in record.uris)
    assert names == ["a again.png", "a.png", "copy of a.png"]
    assert np.array_equal(writer.reconstruct("copy of a.png"), writer.reconstruct("a.png"))


def test_a_second_run_decodes_nothing(writer, mixed, monkeypatch):
    writer.encode([mixed], workers=0)
    nothing_to_decode(monkeypatch)
    again = writer.encode([mixed], workers=0)
    assert (again.stored, again.known, again.failed) == (0, 5, 3)
    assert len(writer.keys()) == 3


def test_a_second_process_decodes_nothing_either(store, mixed, monkeypatch):
    with Pipeline.load("test-space", store=store, writable=True) as first:
        first.encode([mixed], workers=0)
    nothing_to_decode(monkeypatch)
    with Pipeline.load("test-space", store=store, writable=True) as second:
        assert second.encode([mixed], workers=0).known == 5


def test_failures_are_tried_again_only_when_asked_or_when_the_file_changed(writer, mixed, save):
    writer.encode([mixed], workers=0)
    retried = writer.encode([mixed], workers=0, retry=True)
    assert (retried.stored, retried.known, retried.failed) == (0, 5, 3)
    save("letter.png", seed=9)
    mended = writer.encode([mixed], workers=0)
    assert (mended.stored, mended.known, mended.failed) == (1, 5, 2)
    assert len(writer.store.failures()) == 2


def test_a_missing_file_is_a_failure_and_is_found_when_it_comes(writer, save, tmp_path):
    path = tmp_path / "photos" / "late.png"
    assert writer.encode([path], workers=0).failed == 1
    assert [failure.reason for failure in writer.store.failures()] == ["unreadable"]
    save("late.png")
    assert writer.encode([path], workers=0).stored == 1
    assert writer.store.failures() == []


def test_a_changed_file_is_encoded_again_and_is_what_its_path_then_means(writer, save):
    path = save("a.png", seed=1)
    writer.encode([path], workers=0)
    before = writer.reconstruct(str(path))
    save("a.png", 20, 28, seed=2)
    assert writer.encode([path], workers=0).stored == 1
    assert writer.reconstruct(str(path)).shape == (20, 28, 3)
    assert len(writer.keys()) == 2
    assert np.array_equal(writer.reconstruct(writer.keys()[0]), before)


def test_a_touched_file_is_read_but_not_stored_again(writer, save):
    path = save("a.png")
    writer.encode([path], workers=0)
    os.utime(path, (1, 1))
    again = writer.encode([path], workers=0)
    assert (again.stored, again.known) == (0, 1)
    assert len(writer.keys()) == 1


def test_one_bomb_stops_nothing(writer, save):
    good = [save(f"{number}.png", seed=number) for number in range(4)]
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = bytearray(good[0].read_bytes())
    bomb[12:33] = header + struct.pack(">I", zlib.crc32(header))
    (good[0].parent / "bomb.png").write_bytes(bomb)
    summary = writer.encode([good[0].parent])
    assert (summary.stored, summary.failed) == (4, 1)
    assert [failure.reason for failure in writer.store.failures()] == ["too-large"]


def test_many_copies_are_committed_on_the_way(writer, save, monkeypatch):
    monkeypatch.setattr(ingest, "COMMIT_ROWS", 4)
    first = save("0.png")
    for number in range(1, 13):
        (first.parent / f"{number}.png").write_bytes(first.read_bytes())
    writer.encode([first], workers=0)
    commits = []
    put = writer.store.put
    monkeypatch.setattr(
        writer.store, "put", lambda *given, **named: (commits.append(len(given[2])), put(*given, **named))
    )
    writer.encode([first.parent], workers=0)
    assert sum(commits) == 12
    assert max(commits) <= 4


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"quality": 9}, PacketError, "quality 9"),
        ({"quality": 0}, PacketError, "quality 0"),
        ({"levels": ("contxt",)}, ShapeError, "did you mean 'context'"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_is_done(writer, save, options, error, said):
    with pytest.raises(error, match=said):
        writer.encode([save("a.png")], workers=0, **options)
    assert writer.keys() == []


def test_a_space_of_the_same_name_with_other_levels_is_refused(store, save):
    with open_store(store, "w") as opened:
        opened.declare(Space("ns-1", (Level("context", 32, 4),), 4))
    with (
        Pipeline.load("test-space", store=store, writable=True) as pipeline,
        pytest.raises(StoreError, match="ns-1"),
    ):
        pipeline.encode([save("a.png")], workers=0)


def test_an_encoder_of_mosaics_alone_says_that_it_reads_no_photograph(store, save):
    with Pipeline.load("test-mosaics", store=store, writable=True) as pipeline:
        assert pipeline.encode([save("a.png")], workers=0).failed == 1
        (failure,) = pipeline.store.failures()
    assert "expected a RAW file, got a photograph" in failure.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("denoise", "'denoise' is no encoder, but head: the picture without its noise; encoders are ns-rgb, ns-raw"),
        ("transform@ns-1", "is no encoder"),
        ("ns-rbg", "did you mean 'ns-rgb'"),
        ("onnx:nowhere.onnx", "nowhere.onnx"),
    ],
)
def test_an_encoder_that_cannot_be_had_makes_no_store(store, name, said):
    with pytest.raises(ModelError, match=said):
        Pipeline.load(name, store=store, writable=True)
    assert not store.exists()


def test_without_a_store_reading_says_how_to_give_one(plain):
    with pytest.raises(StoreError, match="Pipeline.load"):
        plain.keys()


def test_an_unknown_precision_is_an_error_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        Pipeline.load("test-space", precision="bfloat")


def test_one_name_in_two_folders_means_two_pictures(tmp_path, monkeypatch):
    store = tmp_path / "s.lance"
    for folder, colour in (("one", 10), ("two", 200)):
        path = tmp_path / folder / "img" / "0001.bmp.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(path, compress_level=0)
        os.utime(path, ns=(10**18, 10**18))
        monkeypatch.chdir(tmp_path / folder)
        with Pipeline.load("test-space", store=store, writable=True) as pipeline:
            assert pipeline.encode(["img"], workers=0).stored == 1
            assert pipeline.encode(["../" + folder + "/img"], workers=0).known == 1  # the same file by another path
            assert pipeline.store.get(str(path)).uris == (str(path),)
    sizes = {path.stat().st_size for path in tmp_path.rglob("*.png")}
    assert len(sizes) == 1  # equal size and time: only the folder tells them apart


def test_further_levels_are_added_at_another_quality(writer, save):
    path = save("a.png")
    writer.encode([path], workers=0, levels=("context",), quality=3)
    before = writer.store.get(str(path)).spaces["ns-1"]["context"]
    summary = writer.encode([path], workers=0, quality=8)
    assert (summary.stored, summary.known, summary.kept) == (1, 0, 0)
    assert set(summary.level_bytes) == {"detail"}
    levels = writer.store.get(str(path)).spaces["ns-1"]
    assert levels["context"] == before
    assert levels["detail"].coded.quality == 8
    assert set(writer.features(str(path))) == {"context", "detail"}
    again = writer.encode([path], workers=0, quality=8)
    assert (again.stored, again.known, again.kept) == (0, 1, 1)  # context is still of quality 3, and that is said


def test_replacing_a_level_renews_what_is_coded_on_top_of_it(writer, save, similarity):
    path = save("a.png", 64, 64)
    writer.encode([path], workers=0, quality=2)
    coarse = writer.reconstruct(str(path))
    summary = writer.encode([path], workers=0, levels=("context",), quality=8, replace=True)
    assert (summary.stored, set(summary.level_bytes)) == (1, {"context", "detail"})
    levels = writer.store.get(str(path)).spaces["ns-1"]
    assert {name: stored.coded.quality for name, stored in levels.items()} == {"context": 8, "detail": 8}
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert similarity(writer.reconstruct(str(path)), pixels) > similarity(coarse, pixels) + 3
    assert writer.encode([path], workers=0, quality=8, replace=True).stored == 0
    assert writer.store.verify(writer.check).sound


def test_another_precision_is_another_encoder_which_replace_alone_lets_in(store, save):
    path = save("a.png")
    ids = []
    for precision, renew, kept in (("float32", False, 0), ("bfloat16", False, 1), ("bfloat16", True, 0)):
        with Pipeline.load("test-space", store=store, writable=True, precision=precision) as pipeline:
            assert pipeline.encode([path], workers=0, replace=renew).kept == kept
            ids.append(pipeline.store.get(str(path)).spaces["ns-1"]["detail"].encoder)
    assert ids[0] == ids[1] != ids[2]


def test_a_picture_counts_as_stored_when_its_commit_is_on_the_disk(writer, save):
    paths = [save(f"{number}.png", seed=number) for number in range(3)]

    def report(progress):
        assert len(open_store(writer.path)) == 3

    assert writer.encode(paths, workers=0, report=report).stored == 3


class Single:
    """An encoder that only one thread may call at a time, as an interpreter of TFLite."""

    def __init__(self, encoder):
        self.encoder, self.busy, self.clashes = encoder, threading.Lock(), 0
        self.space, self.accepts, self.id = encoder.space, encoder.accepts, encoder.id
        self.margin, self.view, self.concurrent = encoder.margin, encoder.view, False
        self.precision = encoder.precision

    def __call__(self, pixels, condition=None):
        if not self.busy.acquire(blocking=False):
            self.clashes += 1
            return self.encoder(pixels, condition)
        time.sleep(0.02)
        found = self.encoder(pixels, condition)
        self.busy.release()
        return found


def test_an_encoder_that_is_not_concurrent_is_called_by_one_thread_at_a_time(writer, save):
    single = Single(writer.eye.encoders["rgb"])
    writer.eye = replace(writer.eye, encoders={"rgb": single})
    paths = [save(f"{number}.png", 300 + 4 * number, 700, seed=number) for number in range(6)]
    assert writer.encode(paths, workers=0).stored == 6
    assert single.clashes == 0


def test_pictures_that_threads_encode_are_stored_under_their_own_keys(writer, save, similarity):
    paths = [save(f"{number}.png", 40 + 4 * (number % 3), 700, seed=number) for number in range(12)]
    paths += [save(f"copy {number}.png", 40 + 4 * (number % 3), 700, seed=number) for number in range(12)]
    summary = writer.encode(paths, workers=0, quality=8)
    assert (summary.stored, summary.known) == (12, 12)
    for path in paths:
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert similarity(writer.reconstruct(str(path)), picture) > 30
    assert writer.store.verify(writer.check).sound
def with_codec(store, codec):
    runtime = Runtime.chosen("cpu", "float32")
    return Pipeline.of(Model("test-space"), store=store, writable=True, codec=codec, runtime=runtime)


def test_a_level_that_another_codec_replaces_renews_what_is_coded_on_top_of_it(store, save):
    path = save("a.png", 64, 64)
    with with_codec(store, "") as pipeline:
        pipeline.encode([path], workers=0)
    with with_codec(store, "plain-fp16") as pipeline:
        pipeline.encode([path], workers=0, levels=("context",), replace=True)
        codecs = {name: each.coded.codec for name, each in pipeline.store.get(str(path)).spaces["ns-1"].items()}
        assert codecs == {"context": "plain-fp16", "detail": "plain-fp16"}
        assert pipeline.store.verify(pipeline.check).sound
        detail = pipeline.store.get(str(path)).spaces["ns-1"]["detail"]
    with with_codec(store, "") as pipeline:  # now nothing lies on top of context, and detail stays as it is
        summary = pipeline.encode([path], workers=0, levels=("context",), replace=True)
        assert set(summary.level_bytes) == {"context"}
        assert pipeline.store.get(str(path)).spaces["ns-1"]["detail"] == detail
        assert pipeline.store.verify(pipeline.check).sound


def test_a_level_on_top_of_one_in_another_codec_says_how_both_come(store, save):
    path = save("a.png", 64, 64)
    with with_codec(store, "plain-int8") as pipeline:
        pipeline.encode([path], workers=0, levels=("context",))
    with with_codec(store, "") as pipeline:
        with pytest.raises(StoreError, match=r"'detail' .* on top of 'context', .* plain-int8; add --replace"):
            pipeline.encode([path], workers=0)
        assert pipeline.encode([path], workers=0, replace=True).stored == 1
        assert pipeline.store.verify(pipeline.check).sound


def test_merging_leaves_out_what_was_coded_on_top_of_another_level_than_ours(store, save, tmp_path):
    paths = [save("a.png", 64, 64, seed=1), save("b.png", 64, 64, seed=2), save("c.png", 64, 64, seed=3)]
    with with_codec(tmp_path / "other.lance", "") as other:
        other.encode(paths, workers=0, quality=8)
    with with_codec(store, "") as pipeline, open_store(tmp_path / "other.lance") as source:
        pipeline.encode(paths[:1], workers=0, levels=("context",), quality=3)
        pipeline.encode(paths[1:2], workers=0, levels=("context",), quality=8)
        report = pipeline.store.merge(source)
        assert (report.images, report.levels, report.left_out) == (1, 3, 1)
        held = {path.name: set(pipeline.features(str(path))) for path in paths}
        assert held == {"a.png": {"context"}, "b.png": {"context", "detail"}, "c.png": {"context", "detail"}}
        assert pipeline.store.verify(pipeline.check).sound


@dataclass(frozen=True)
class Bright:
    """An encoder of one map, whose numbers no codec takes where a picture is white, and that reads no long ones."""

    space = Space("bright", (Level("map", 3, 4),), 4)
    accepts, margin, view, id, concurrent, precision = "rgb", None, "native", "bright@1", True, ""

    def __call__(self, pixels, condition=None):
        if pixels.shape[-1] > 80:
            raise ShapeError("too long")
        return {"map": 1.0 / (1.0 - torch.nn.functional.avg_pool2d(pixels, 4))}


def test_a_picture_that_an_encoder_cannot_take_stops_nothing(store, save, tmp_path):
    paths = [save(f"{seed}.png", seed=seed) for seed in range(3)]
    for name in ("white", "again"):
        Image.new("RGB", (44, 36), "white").save(paths[0].parent / f"{name}.png")
    save("long.png", 36, 84)
    with Pipeline.load("test-space", store=store, writable=True) as pipeline:
        pipeline.eye = Eye({"rgb": Bright()}, pipeline.runtime)
        for stored, known in ((3, 0), (0, 3)):
            summary = pipeline.encode([paths[0].parent], workers=0)
            assert (summary.stored, summary.known, summary.failed) == (stored, known, 3)
        failures = {failure.uri.rsplit("/", 1)[-1]: failure.message for failure in pipeline.store.failures()}
        assert set(failures) == {"white.png", "again.png", "long.png"}
        assert "not finite" in failures["white.png"]
        assert len(pipeline.keys()) == 3
