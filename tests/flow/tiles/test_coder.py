"""A picture in tiles is the picture: encoding, decoding and drawing do not depend on where tiles begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chiasm import models
from chiasm.codecs import packet as bitstream
from chiasm.contracts import Features, Packet
from chiasm.encoders.ns import NS
from chiasm.errors import PacketError
from chiasm.features.layout import Window, assemble, count, cut, pad, padded, tiles
from chiasm.features.working import shrink
from chiasm.flow import tiles as module
from chiasm.flow.tiles import PictureCoder

LEVELS = ("context", "detail")
SIZES = [(1, 1), (5, 7), (1, 150), (150, 1), (64, 64), (65, 63), (133, 90)]
STRIDES = {level.name: level.stride for level in NS.levels}


class Recorder:
    """Stands where a codec stands, and keeps the features that it is given."""

    name, tables = "recorder", "0" * 16

    def __init__(self) -> None:
        self.held: list[Mapping[str, torch.Tensor]] = []

    def compress(self, features: Features, quality: int) -> dict[str, bytes]:
        self.held.append(features)
        return dict.fromkeys(features, b"")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [16, 64])
def test_features_of_tiles_are_those_of_the_whole_picture(encode, make_picture, monkeypatch, size, tile):
    picture, recorder = make_picture(size), Recorder()
    monkeypatch.setattr(module, "TILE", tile)
    packet = PictureCoder(NS, encode, recorder).pack(picture, 5, LEVELS)
    grown = padded(size, NS.grid)
    assert (packet.size, packet.tile) == (size, tile)
    assert len(recorder.held) == count(grown, tile)
    joined = assemble(Window(0, 0, *grown), zip(tiles(grown, tile), recorder.held, strict=True), STRIDES)
    whole = encode(pad(picture.frame().pixels, grown)[None])
    assert joined.keys() == whole.keys() == set(LEVELS)
    for name, x in whole.items():
        assert (joined[name] - x).abs().max() <= 1e-5 * max(1.0, x.abs().max().item())


@pytest.mark.parametrize("size", [(37, 70), (133, 90)])
def test_a_picture_packed_in_tiles_unpacks_close_to_one_packed_whole(coder, make_picture, monkeypatch, size):
    picture = make_picture(size)
    original = coder.encode(pad(picture.frame().pixels, padded(size, NS.grid))[None])
    errors: dict[int, dict[str, float]] = {}
    for tile in (1024, 64, 32):
        monkeypatch.setattr(module, "TILE", tile)
        packet = coder.pack(picture, 6, LEVELS)
        decoded = coder.unpack(packet)
        assert packet.tile == tile
        errors[tile] = {
            name: (decoded[name] - x).square().mean().sqrt().item() for name, x in original.items()
        }
    for name in LEVELS:
        for tile in (64, 32):
            assert errors[tile][name] == pytest.approx(errors[1024][name], rel=0.2)
        assert errors[1024][name] < 0.5


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 150), (133, 90)])
@pytest.mark.parametrize("levels", [LEVELS, ("context",)])
def test_a_picture_drawn_tile_by_tile_is_the_one_drawn_whole(
    coder, head, make_picture, monkeypatch, size, levels
):
    monkeypatch.setattr(module, "TILE", 48)
    packet = coder.pack(make_picture(size), 6, LEVELS)
    features = coder.unpack(packet, levels)
    assert set(features) == set(levels)
    with torch.inference_mode():
        drawn = coder.draw(packet, head, levels)
        whole = (
            head(features)[0, :, : size[0], : size[1]].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
        )
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - whole).max() <= 1


@pytest.mark.parametrize(("size", "factor"), [((5, 7), 2), ((133, 90), 2), ((133, 90), 4), ((90, 200), 8)])
@pytest.mark.parametrize("tile", [64, 1024])
def test_a_small_picture_is_that_of_its_context_whatever_the_tiles(
    coder, head, make_picture, monkeypatch, size, factor, tile
):
    monkeypatch.setattr(module, "TILE", tile)
    packet, seen = coder.pack(make_picture(size), 6, LEVELS), []
    halve = torch.inference_mode()(head.halved)
    found = replace(coder, encode=lambda x: seen.append(x) or coder.encode(x)).shrunk(packet, factor, halve)
    half = halve(coder.unpack(packet, ("context",)))
    unit = padded(size, NS.grid * factor)
    wanted = F.avg_pool2d(pad(half, (unit[0] // 2, unit[1] // 2)), factor // 2).clamp(0, 1)
    torch.testing.assert_close(seen[0], wanted, atol=1e-4, rtol=0)
    assert found["detail"].shape[-2:] == (unit[0] // factor // 2, unit[1] // factor // 2)
    assert coder.shrunk(packet, 1, halve).keys() == {"context", "detail"}


@pytest.mark.parametrize("factor", [2, 4])
def test_a_small_picture_looks_like_the_large_one(factor):
    """With the shipped weights: the low band has no shift, and the colours of the picture."""
    encoder, head = models.encoder("ns-rgb"), models.reconstructor("ns-rgb")
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(160.0), indexing="ij")
    shades = [0.5 + 0.3 * torch.sin(x / 11) * torch.cos(y / 7), (x + y) / 300, 0.2 + 0.6 * ((x // 24 + y // 20) % 2)]
    pixels = torch.stack(shades)[None]
    with torch.inference_mode():
        half = head.halved(encoder(pixels))
    error = (shrink(half, (64, 80), factor) - F.avg_pool2d(pixels, factor)).square().mean()
    assert -10 * torch.log10(error) > 30  # a shift by half a pixel leaves 26 at most
    shifted = F.avg_pool2d(F.pad(pixels, (1, 0, 1, 0), mode="replicate")[..., :-1, :-1], factor)
    assert (shrink(half, (64, 80), factor) - shifted).square().mean() > 2 * error


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_a_small_picture_has_no_frame(shade):
    pixels = torch.full((1, 3, 40, 52), shade)
    with torch.inference_mode():
        half = models.reconstructor("ns-rgb").halved(models.encoder("ns-rgb")(pixels))
    assert (half - shade).abs().max() < 0.1
    for rim in (half[..., 0, 1:-1], half[..., -1, 1:-1], half[..., 1:-1, 0], half[..., 1:-1, -1]):
        assert (rim - shade).abs().mean() < 0.02


def test_a_small_picture_needs_context_alone(coder, head, make_picture):
    halve, picture = torch.inference_mode()(head.halved), make_picture((90, 70))
    both, coarse = (coder.shrunk(coder.pack(picture, 6, levels), 2, halve) for levels in (LEVELS, ("context",)))
    for name, x in both.items():
        assert torch.equal(coarse[name], x)


@pytest.mark.parametrize(
    ("size", "tile"), [((4500, 7100), 1024), ((300, 1000), 1024), ((133, 90), 48), ((90, 133), 16), ((1, 1), 1024)]
)
def test_what_is_held_while_drawing_is_a_tile_and_edges_and_gives_the_very_features(coder, monkeypatch, size, tile):
    grown, margin, decodings = padded(size, NS.grid), 24, Counter()
    whole = {name: torch.rand(1, 1, grown[0] // stride, grown[1] // stride) for name, stride in STRIDES.items()}
    streams = {name: bitstream.seal([b""] * count(grown, tile), name) for name in LEVELS}
    packet = Packet(NS.name, coder.codec.name, 5, coder.codec.tables, size, tile, streams)
    reader = module._TileReader(coder, packet, None)

    def maps(index):
        decodings[index] += 1
        return {name: x.clone() for name, x in cut(whole, STRIDES, reader.windows[index]).items()}

    monkeypatch.setattr(reader, "maps", maps)
    most = 0
    for index, window in enumerate(reader.windows):
        outer = window.grown(margin, grown)
        found = reader.around(index, margin)
        assert all(torch.equal(found[name], x) for name, x in cut(whole, STRIDES, outer).items())
        storages = {x.untyped_storage() for _, held in reader.held for x in held.values()}
        most = max(most, sum(storage.nbytes() for storage in storages))
    pixel = sum(x.nbytes for x in whole.values()) / (grown[0] * grown[1])
    assert most <= pixel * (tile**2 + 4 * margin * grown[1])
    assert decodings.keys() == set(range(len(reader.windows)))
    if tile > margin:  # a tile is decoded once for its upper edge and once for itself
        assert all(decodings[index] <= 1 + (window.top > 0) for index, window in enumerate(reader.windows))


def test_a_check_decodes_every_tile(coder, make_picture, monkeypatch):
    monkeypatch.setattr(module, "TILE", 32)
    packet = coder.pack(make_picture((37, 70)), 5, LEVELS)
    coder.check(packet)
    last = count(padded(packet.size, NS.grid), 32) - 1
    parts = [bitstream.Tiles(packet.streams["detail"], "detail", last + 1)[index] for index in range(last + 1)]
    cut_short = bitstream.seal([*parts[:-1], parts[-1][:-1]], "detail")  # its checksum is right
    with pytest.raises(PacketError):
        coder.check(replace(packet, streams={**packet.streams, "detail": cut_short}))


def test_a_picture_comes_back_looking_like_itself(coder, head, make_picture):
    picture = make_picture((90, 133))
    with torch.inference_mode():
        fine = coder.draw(coder.pack(picture, 8, LEVELS), head)
        coarse = coder.draw(coder.pack(picture, 1, LEVELS), head)
    error = [np.square(x.astype(float) - picture.pixels).mean() for x in (fine, coarse)]
    assert error[0] < error[1]
    assert error[0] < 60


def test_a_packet_of_context_alone_is_the_context_of_a_packet_of_both(coder, make_picture):
    picture = make_picture((37, 70))
    both, alone = coder.pack(picture, 5, LEVELS), coder.pack(picture, 5, ("context",))
    assert alone.streams == {"context": both.streams["context"]}
    assert torch.equal(coder.unpack(alone)["context"], coder.unpack(both)["context"])
    assert torch.equal(coder.unpack(both, ["context"])["context"], coder.unpack(both)["context"])
    assert bitstream.read(bitstream.write(both))[0] == both


def test_detail_without_context_is_an_error_on_both_ways(coder, make_picture):
    picture = make_picture((5, 7))
    with pytest.raises(PacketError, match="coded on top of 'context'"):
        coder.pack(picture, 5, ("detail",))
    with pytest.raises(PacketError, match="coded on top of 'context'"):
        coder.unpack(coder.pack(picture, 5, LEVELS), ["detail"])
    with pytest.raises(PacketError, match="holds no level"):
        coder.unpack(replace(coder.pack(picture, 5, LEVELS), streams={}))


def test_one_picture_in_a_batch_is_the_one_alone(coder, encode, make_picture):
    pictures = [make_picture((37, 70), seed) for seed in range(4)]
    pixels = torch.stack([pad(picture.frame().pixels, (40, 72)) for picture in pictures])
    together, compared = encode(pixels), 0
    for index in range(4):
        for name, x in encode(pixels[index : index + 1]).items():
            gap = (together[name][index : index + 1] - x).abs().max()
            assert gap <= 1e-5 * x.abs().max()
            compared += 1
    assert compared == 8
    many = coder.pack_many(pictures, 6, LEVELS)
    for picture, packet in zip(pictures, many, strict=True):
        alone = coder.pack(picture, 6, LEVELS)
        assert (packet.size, packet.tile, set(packet.streams)) == (alone.size, alone.tile, set(alone.streams))
        for name, x in coder.unpack(alone).items():
            assert (
                coder.unpack(packet)[name] - x
            ).abs().mean() < 1e-3  # a coefficient at a half may differ


def test_pictures_larger_than_a_tile_are_packed_one_by_one(coder, make_picture, monkeypatch):
    monkeypatch.setattr(module, "TILE", 32)
    pictures = [make_picture((37, 70), seed) for seed in range(2)]
    many = coder.pack_many(pictures, 5, LEVELS)
    assert many == [coder.pack(picture, 5, LEVELS) for picture in pictures]
    assert {packet.tile for packet in many} == {32}


def test_symbols_of_a_packet_do_not_depend_on_threads_or_default_dtype(coder, make_picture):
    packet, found = coder.pack(make_picture((133, 90)), 5, LEVELS), []
    size = padded(packet.size, NS.grid)
    streams = {name: bitstream.Tiles(x, name, 1)[0] for name, x in packet.streams.items()}
    before = torch.get_num_threads(), torch.get_default_dtype()
    try:
        for threads, dtype in ((1, torch.float32), (2, torch.float64)):
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            symbols = coder.codec.decode(streams, size, packet.quality)
            found.append([band.tobytes() for bands in symbols.values() for band in bands])
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
    assert found[0] == found[1]
    assert len(found[0]) == 7
