"""Reading what was stored: features, pictures, levels, packet files."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import chiasm
from chiasm import models
from chiasm.codecs import packet as packets
from chiasm.codecs.transform import TransformCodec
from chiasm.encoders.ns import NS
from chiasm.errors import ModelError, PacketError, ShapeError, StoreError
from chiasm.features.layout import padded
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.small import at_working_size
from chiasm.flow.tiles import PacketReader
from chiasm.images import read
from chiasm.store import open_store

SIZES = [(1, 1), (1, 5000), (5, 7), (47, 33), (4, 4)]


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_features_become_smaller_as_stored_ones_do(writer, save):
    path = save("a.png", 570, 650)
    writer.encode([path], workers=0, quality=6)
    opened = writer.reader.opened(writer.reader.packet(writer.keys()[0], writer.space), writer.space)
    working, view = at_working_size(opened, writer.redraw)
    assert view.scale == (0.5, 0.5)
    grown = torch.nn.functional.pad(read(path).pixels[None], (0, 2, 0, 2), mode="replicate")
    found = writer.smaller(writer.coded(writer.encode_pixels(grown), 6), 2)
    for name, x in working.items():
        torch.testing.assert_close(found[name], x, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_of_any_size_is_encoded_stored_and_drawn(writer, save, similarity, size):
    path = save("a.png", *size)
    assert writer.encode([path], workers=0, quality=8).stored == 1
    key = writer.keys()[0]
    drawn = writer.reconstruct(key)
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8
    assert similarity(drawn, pixels(path)) > 25
    height, width = padded(size, 4)
    maps = writer.features(key)
    for level in NS.levels:
        assert maps[level.name].shape == (1, 64, height // level.stride, width // level.stride)
        assert maps[level.name].dtype == torch.float32
    assert np.array_equal(writer.unpack(writer.pack(path, quality=8)), drawn)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_precisions_round_trip(store, save, similarity, precision):
    path = save("a.png", 40, 48)
    with Pipeline.load("test-space", store=store, writable=True, precision=precision) as pipeline:
        pipeline.encode([path], quality=8, workers=0)
        assert similarity(pipeline.reconstruct(pipeline.keys()[0]), pixels(path)) > 30
        assert pipeline.features(pipeline.keys()[0])["detail"].dtype == torch.float32


def test_a_finer_quality_costs_more_and_looks_better(plain, save, similarity):
    path = save("a.png", 64, 64)
    files = {quality: plain.pack(path, quality) for quality in (1, 4, 8)}
    sizes = [len(data) for data in files.values()]
    scores = [similarity(plain.unpack(data), pixels(path)) for data in files.values()]
    assert sizes == sorted(sizes)
    assert scores == sorted(scores)


def test_packing_a_file_gives_what_the_store_gives(writer, save):
    path = save("a.png", 41, 30)
    writer.encode([path], workers=0)
    key = writer.keys()[0]
    data = writer.pack(path)
    packet, embedded = packets.read(data)
    assert dict(packet.levels) == {name: each.coded for name, each in writer.store.get(key).spaces["ns-1"].items()}
    assert embedded == {}
    assert np.array_equal(writer.unpack(data), writer.reconstruct(key))
    alone = writer.unpack(data, levels=("context",))
    assert np.array_equal(alone, writer.reconstruct(key, levels=("context",)))


def test_context_alone_draws_a_coarser_picture(writer, save, similarity):
    path = save("a.png", 48, 64)
    writer.encode([path], workers=0, quality=8)
    key = writer.keys()[0]
    full, coarse = writer.reconstruct(key), writer.reconstruct(key, levels=("context",))
    assert coarse.shape == full.shape
    assert 15 < similarity(coarse, pixels(path)) < similarity(full, pixels(path))


def test_verifying_decodes_each_picture_once(writer, save, monkeypatch):
    assert writer.encode([save(f"{seed}.png", seed=seed) for seed in range(3)], workers=0).stored == 3
    decoded, check = [], PacketReader.check
    monkeypatch.setattr(PacketReader, "check", lambda reader: decoded.append(reader.packet.size) or check(reader))
    assert writer.store.verify(writer.check).sound
    assert len(decoded) == 3


def test_a_record_that_cannot_be_decoded_is_told_why(writer, save):
    writer.encode([save("a.png")], workers=0)
    record = writer.store.get(writer.keys()[0])
    assert writer.check(record) is None
    levels = record.spaces["ns-1"]
    short = replace(levels["detail"], coded=replace(levels["detail"].coded, data=levels["detail"].coded.data[:-1]))
    assert "'detail'" in writer.check(replace(record, spaces={"ns-1": {**levels, "detail": short}}))


def test_features_gives_the_levels_asked_for_and_the_same_ones(writer, save):
    writer.encode([save("a.png")], workers=0)
    key = writer.keys()[0]
    both = writer.features(key)
    assert list(both) == ["context", "detail"]
    asked = 0
    for levels in (("context",), ("detail",), ("detail", "context")):
        found = writer.features(key, levels)
        assert set(found) == set(levels)
        assert all(torch.equal(found[name], both[name]) for name in levels)
        asked += 1
    assert asked == 3


def test_a_store_of_context_has_no_byte_of_detail_and_says_so(writer, save):
    summary = writer.encode([save("a.png")], workers=0, levels=("context",))
    key = writer.keys()[0]
    assert set(summary.level_bytes) == {"context"}
    assert writer.store.stats().levels["ns-1"]["detail"].rows == 0
    assert set(writer.features(key)) == {"context"}
    assert writer.reconstruct(key).shape == (36, 44, 3)
    for verb in (writer.features, writer.reconstruct):
        with pytest.raises(StoreError, match=r"'detail' of 'ns-1' is not stored .* --levels detail"):
            verb(key, levels=("detail",))


@pytest.mark.parametrize("size", [(200, 300), (400, 600)])
def test_heads_answer_from_context_alone_at_any_size(writer, save, size):
    path = save("a.png", *size)
    writer.encode([path], workers=0, levels=("context",))
    answers = writer.predict(str(path), ["depth", "edges"])
    assert {answer.values.shape for answer in answers.values()} == {size}


def test_asking_to_store_detail_brings_the_context_it_is_coded_on(writer, save):
    summary = writer.encode([save("a.png")], workers=0, levels=("detail",))
    assert set(summary.level_bytes) == {"context", "detail"}
    assert min(summary.level_bytes.values()) > 0


def test_no_level_and_no_such_space_are_said_at_once(writer, save):
    path = save("beach.png")
    writer.encode([path], workers=0)
    for verb in (writer.features, writer.reconstruct):
        with pytest.raises(ShapeError, match="expected a level or more of 'ns-1', got none; there are context, detail"):
            verb(str(path), ())
    with pytest.raises(StoreError, match="holds no space 'ns-2'; did you mean 'ns-1'"):
        chiasm.open(writer.path, "ns-2")


def test_an_unknown_level_or_picture_is_an_error_with_the_nearest(writer, save):
    path = save("beach.png")
    writer.encode([path], workers=0)
    with pytest.raises(ShapeError, match="did you mean 'detail'"):
        writer.features(writer.keys()[0], levels=("detial",))
    with pytest.raises(StoreError, match="did you mean .*/photos/beach.png"):
        writer.features(str(path).replace("beach", "beech"))


def test_reading_and_refused_writing_leave_every_file_of_the_store_as_it_was(store, save):
    path = save("a.png")
    with Pipeline.load("test-space", store=store, writable=True) as pipeline:
        pipeline.encode([path], workers=0)
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    with Pipeline.load("test-space", store=store) as reader:
        reader.reconstruct(reader.keys()[0])
        reader.features(reader.keys()[0])
        with pytest.raises(StoreError, match="mode 'w'"):
            reader.encode([save("b.png", seed=5)], workers=0)
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before
    assert len(before) >= 5


def test_tables_embedded_in_a_packet_file_or_held_by_a_store_serve_where_the_package_has_others(
    plain, store, save, monkeypatch
):
    shipped = models.codec("ns-1")
    other = TransformCodec(replace(shipped.fitted, steps=shipped.fitted.steps * np.float32(1.5)))
    path = save("a.png")
    with monkeypatch.context() as changed:
        changed.setattr(models, "codec", lambda space: other)
        maker = Pipeline.load("test-space", precision="float32")
        data = maker.pack(path)
        wanted = maker.unpack(data)
        with Pipeline.load("test-space", store=store, writable=True, precision="float32") as writer:
            writer.encode([path], workers=0)
    packet, _ = packets.read(data)
    assert {coded.tables for coded in packet.levels.values()} == {other.tables} != {shipped.tables}
    with pytest.raises(PacketError, match="needs the tables"):
        plain.unpack(packets.write(packet))
    assert np.array_equal(plain.unpack(packets.write(packet, {other.tables: other.fitted.data})), wanted)
    with Pipeline.load("test-space", store=store, precision="float32") as reader:
        assert np.array_equal(reader.reconstruct(reader.keys()[0]), wanted)


@pytest.mark.parametrize("levels", [("detail",), ("context", "detail"), ("detial",)])
def test_a_level_that_a_packet_file_lacks_is_one_sentence(plain, save, levels):
    data = plain.pack(save("a.png"), levels=("context",))
    with pytest.raises(PacketError, match=rf"level '{levels[-1]}' is not in this packet, which holds context;"):
        plain.unpack(data, levels)


def test_tiles_are_drawn_as_the_whole_picture_is(plain, save, monkeypatch):
    monkeypatch.setattr("chiasm.flow.see.TILE", 256)
    opened = plain.opened(plain.pack(save("a.png", 300, 310)))
    assert {coded.tile for coded in opened.packet.levels.values()} == {256}
    whole = plain.drawing(opened.whole(NS.names))[0, :, :300, :310].clamp(0, 1).mul(255).round()
    drawn = torch.from_numpy(plain.drawing.picture(opened)).permute(2, 0, 1)
    assert (drawn.float() - whole).abs().max() <= 1


def test_tiles_of_a_size_that_is_off_the_grid_are_refused(plain, save):
    opened = plain.opened(plain.pack(save("a.png")))
    levels = {name: replace(coded, tile=1023) for name, coded in opened.packet.levels.items()}
    with pytest.raises(PacketError, match="grid"):
        replace(opened, packet=replace(opened.packet, levels=levels)).whole(NS.names)


def test_a_reading_pipeline_can_be_pickled_and_a_writing_one_says_why_not(writer, save):
    path = save("a.png")
    writer.encode([path], workers=0)
    with Pipeline.open(writer.path) as reader:
        wanted = reader.features(str(path))["detail"]
        copy = pickle.loads(pickle.dumps(reader))
        assert torch.equal(copy.features(str(path))["detail"], wanted)
        copy.close()
    with pytest.raises(StoreError, match="read-only pipeline"):
        pickle.dumps(writer)


def test_a_store_opened_without_an_encoder_reads_draws_and_predicts(writer, save):
    path = save("a.png")
    writer.encode([path], workers=0)
    with chiasm.open(writer.path) as reader:
        assert reader.space.name == "ns-1"
        assert reader.reconstruct(str(path)).shape == (36, 44, 3)
        assert reader.predict(str(path), ["depth"])["depth"].values.shape == (36, 44)
        with pytest.raises(ModelError, match="no encoder is loaded"):
            reader.encode([path])


def test_derived_vectors_are_the_means_of_stored_maps(writer, save):
    paths = [save(f"{seed}.png", seed=seed) for seed in range(3)]
    writer.encode(paths, workers=0)
    assert writer.derive() == {"stored": 3, "known": 0, "failed": 0}
    for path in paths:
        found = writer.features(str(path))
        for name in ("context", "detail"):
            mean = found[name].mean(dim=(2, 3))
            torch.testing.assert_close(found[f"pooled_{name}"], mean, rtol=1e-3, atol=1e-3)
    assert writer.derive() == {"stored": 0, "known": 3, "failed": 0}
    with pytest.raises(ShapeError, match="nothing derives level 'pooled_contxt'"):
        writer.derive(("pooled_contxt",))


def test_only_what_is_stored_is_derived_by_default(writer, save):
    writer.encode([save("a.png"), save("b.png", seed=4)], workers=0, levels=("context",))
    assert writer.derive() == {"stored": 2, "known": 0, "failed": 0}
    assert set(writer.features("a.png")) == {"context", "pooled_context"}
    assert writer.derive(("pooled_detail",)) == {"stored": 0, "known": 0, "failed": 2}


def test_what_was_derived_of_a_level_that_is_replaced_is_derived_again(writer, save):
    path = save("a.png", 64, 64)
    writer.encode([path, save("b.png", seed=4)], workers=0, quality=1)
    assert writer.derive() == {"stored": 2, "known": 0, "failed": 0}
    stale = writer.features(str(path), ("pooled_detail",))["pooled_detail"]
    writer.encode([path], workers=0, quality=8, replace=True)
    assert writer.derive() == {"stored": 1, "known": 1, "failed": 0}
    found = writer.features(str(path))
    torch.testing.assert_close(found["pooled_detail"], found["detail"].mean(dim=(2, 3)), rtol=1e-3, atol=1e-3)
    assert not torch.equal(found["pooled_detail"], stale)
    id = writer.store.get(str(path)).spaces["ns-1"]["pooled_detail"].encoder
    assert id.startswith("pooled-mean-1: test-space@")
    assert id.endswith("/q8")
    assert writer.derive(replace=True) == {"stored": 0, "known": 2, "failed": 0}


def test_what_is_derived_depends_on_what_its_source_is_coded_on(writer, save):
    path = save("a.png", 64, 64)
    writer.encode([path], workers=0, quality=8, levels=("context",))
    writer.encode([path], workers=0, quality=2)
    assert writer.derive(("pooled_detail",)) == {"stored": 1, "known": 0, "failed": 0}
    writer.encode([path], workers=0, quality=2, replace=True)  # of detail, all but its context is as before
    assert writer.derive(("pooled_detail",)) == {"stored": 1, "known": 0, "failed": 0}
    found = writer.features(str(path))
    torch.testing.assert_close(found["pooled_detail"], found["detail"].mean(dim=(2, 3)), rtol=1e-3, atol=1e-3)


def test_a_level_counts_as_derived_when_its_commit_is_on_the_disk(writer, save):
    writer.encode([save(f"{seed}.png", seed=seed) for seed in range(3)], workers=0)
    told = []

    def report(derived):
        with open_store(writer.path) as reader:
            assert "pooled_context" in reader.get(derived.key).spaces["ns-1"]
        told.append(derived.outcome)

    writer.derive(("pooled_context",), report=report)
    writer.derive(("pooled_context",), report=report)
    assert told == ["stored"] * 3 + ["known"] * 3
