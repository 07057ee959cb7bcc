"""Reading what was stored: features, pictures, levels, packet files."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.codecs import packet as bitstream
from chiasm.encoders.ns import NS
from chiasm.errors import PacketError, ShapeError, StoreError
from chiasm.features.layout import padded
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.tiles import PictureCoder
from chiasm.images import read
from chiasm.store import lance_store, verification

SIZES = [(1, 1), (1, 5000), (5, 7), (47, 33), (4, 4)]


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_features_become_smaller_as_stored_ones_do(writer, save):
    path = save("a.png", 570, 650)
    writer.encode([path], workers=0, quality=6)
    working, factor = writer.working(writer.keys()[0])
    assert factor == 2
    grown = torch.nn.functional.pad(read(path).pixels[None], (0, 2, 0, 2), mode="replicate")
    found = writer.smaller(writer.coded(writer.coder.encode(grown), 6), factor)
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
    packet, embedded = bitstream.read(data)
    assert dict(packet.streams) == dict(writer.store.get(key).packet.streams)
    assert embedded == b""
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


def test_verifying_reads_each_picture_once_and_decodes_what_it_read(writer, save, monkeypatch):
    assert writer.encode([save(f"{seed}.png", seed=seed) for seed in range(3)], workers=0).stored == 3
    rows, packets = [], []

    def read(row, *rest):
        rows.append(row["key"])
        return record_of(row, *rest)

    def check(coder, packet):
        packets.append(packet)
        return decode(coder, packet)

    record_of, decode = verification.record_of, PictureCoder.check
    for place in (verification, lance_store):
        monkeypatch.setattr(place, "record_of", read)
    monkeypatch.setattr(PictureCoder, "check", check)
    assert writer.store.verify(writer.check).sound
    assert rows == writer.keys()
    assert len(packets) == 3


def test_a_record_that_cannot_be_decoded_is_told_why(writer, save):
    writer.encode([save("a.png")], workers=0)
    record = writer.store.get(writer.keys()[0])
    assert writer.check(record) is None
    streams = {**record.packet.streams, "detail": record.packet.streams["detail"][:-1]}
    assert "checksum of level 'detail'" in writer.check(
        replace(record, packet=replace(record.packet, streams=streams))
    )


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
    assert set(summary.stream_bytes) == {"context"}
    assert writer.store.stats().level_bytes["detail"] == 0
    assert set(writer.features(key)) == {"context"}
    assert writer.reconstruct(key).shape == (36, 44, 3)
    for verb in (writer.features, writer.reconstruct):
        with pytest.raises(PacketError, match="level 'detail' is not in this packet, which holds context"):
            verb(key, levels=("detail",))


def test_asking_to_store_detail_brings_the_context_it_is_coded_on(writer, save):
    summary = writer.encode([save("a.png")], workers=0, levels=("detail",))
    assert set(summary.stream_bytes) == {"context", "detail"}
    assert min(summary.stream_bytes.values()) > 0


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
    plain, store, save
):
    other = replace(plain.coder.codec.fitted, steps=plain.coder.codec.fitted.steps * np.float32(1.5))
    maker = replace(plain, coder=replace(plain.coder, codec=replace(plain.coder.codec, fitted=other)))
    path = save("a.png")
    packet, _ = bitstream.read(maker.pack(path))
    wanted = maker.unpack(maker.pack(path))
    assert packet.tables != plain.coder.codec.tables
    with pytest.raises(PacketError, match="needs tables"):
        plain.unpack(bitstream.write(packet))
    assert np.array_equal(plain.unpack(bitstream.write(packet, other.data)), wanted)
    with pytest.raises(PacketError):
        plain.unpack(bitstream.write(packet, replace(other, steps=other.steps * np.float32(2)).data))
    with Pipeline.load("test-space", store=store, writable=True, precision="float32") as writer:
        writer.coder = maker.coder
        writer.encode([path], workers=0)
    with Pipeline.load("test-space", store=store, precision="float32") as reader:
        assert np.array_equal(reader.reconstruct(reader.keys()[0]), wanted)


class Recorder(SimpleNamespace):
    """In the codec's place: keeps the features of each tile."""

    name, tables = "recorder", "none"

    def compress(self, features, quality):
        self.seen.append(features)
        return dict.fromkeys(features, b"tile")


def test_tiles_are_encoded_as_the_whole_picture_is(plain, save, monkeypatch):
    monkeypatch.setattr("chiasm.flow.tiles.TILE", 64)
    path = save("a.png", 150, 131)
    recorder = Recorder(seen=[])
    picture = read_picture(path)
    replace(plain.coder, codec=recorder).pack(picture, 5, NS.names)
    whole = plain.coder.encode(padded_pixels(path))
    assert len(recorder.seen) == 9
    for level in NS.levels:
        tiles = [features[level.name] for features in recorder.seen]
        rows = [torch.cat(tiles[start : start + 3], dim=3) for start in (0, 3, 6)]
        torch.testing.assert_close(torch.cat(rows, dim=2), whole[level.name], rtol=1e-4, atol=1e-3)


def test_tiles_are_drawn_as_the_whole_picture_is(plain, save, monkeypatch):
    monkeypatch.setattr("chiasm.flow.tiles.TILE", 64)
    packet, _ = bitstream.read(plain.pack(save("a.png", 150, 131)))
    assert packet.tile == 64
    features = plain.coder.unpack(packet)
    whole = plain.draw(features)[0, :, :150, :131].clamp(0, 1).mul(255).round()
    drawn = torch.from_numpy(plain.coder.draw(packet, plain.draw)).permute(2, 0, 1)
    assert (drawn.float() - whole).abs().max() <= 1


def test_tiles_of_a_size_that_is_off_the_grid_are_refused(plain, save):
    packet, _ = bitstream.read(plain.pack(save("a.png")))
    with pytest.raises(PacketError, match="grid"):
        plain.coder.unpack(replace(packet, tile=1023))


def read_picture(path):
    from chiasm.images import decode

    return decode(path)


def padded_pixels(path) -> torch.Tensor:
    from chiasm.features.layout import pad

    x = read(path).pixels[None]
    return pad(x, padded(tuple(x.shape[-2:]), 4))
