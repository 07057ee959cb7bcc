"""A picture in tiles is the picture: encoding, decoding and drawing do not depend on where tiles begin."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chiasm import models
from chiasm.codecs import packet as packets
from chiasm.contracts import Coded, Packet, View
from chiasm.encoders.ns import NS
from chiasm.errors import PacketError
from chiasm.features.layout import Window, assemble, count, cut, pad, padded, tiles
from chiasm.features.working import shrink
from chiasm.flow import see
from chiasm.flow.draw import Redraw
from chiasm.flow.small import at_working_size
from chiasm.flow.tiles import Walk

LEVELS = ("context", "detail")
SIZES = [(1, 1), (5, 7), (1, 150), (150, 1), (64, 64), (65, 63), (133, 90)]
STRIDES = {level.name: level.stride for level in NS.levels}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [16, 64])
def test_features_of_tiles_are_those_of_the_whole_picture(coder, encode, make_picture, monkeypatch, size, tile):
    picture, grown = make_picture(size), padded(size, NS.grid)
    monkeypatch.setattr(see, "TILE", tile)
    (seen,) = coder.eye.see([picture])
    parts = list(seen.parts)
    tiled = max(grown) > tile
    assert (seen.view, seen.tile) == (View(grown), tile if tiled else 0)
    assert len(parts) == (count(grown, tile) if tiled else 1)
    joined = assemble(Window(0, 0, *grown), zip(tiles(grown, tile), parts, strict=True), STRIDES)
    whole = encode(pad(picture.frame().pixels, grown)[None])
    assert joined.keys() == whole.keys() == set(LEVELS)
    for name, x in whole.items():
        assert (joined[name] - x).abs().max() <= 1e-5 * max(1.0, x.abs().max().item())


@pytest.mark.parametrize("size", [(37, 70), (133, 90)])
def test_a_picture_packed_in_tiles_unpacks_close_to_one_packed_whole(coder, encode, make_picture, monkeypatch, size):
    picture = make_picture(size)
    original = encode(pad(picture.frame().pixels, padded(size, NS.grid))[None])
    errors: dict[int, dict[str, float]] = {}
    for tile in (1024, 64, 32):
        whole = max(size) <= tile
        monkeypatch.setattr(see, "TILE", tile)
        packet = coder.pack(picture, 6, LEVELS)
        decoded = coder.unpack(packet)
        assert {coded.tile for coded in packet.levels.values()} == {0 if whole else tile}
        errors[tile] = {name: (decoded[name] - x).square().mean().sqrt().item() for name, x in original.items()}
    for name in LEVELS:
        for tile in (64, 32):
            assert errors[tile][name] == pytest.approx(errors[1024][name], rel=0.2)
        assert errors[1024][name] < 0.5


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 150), (133, 90)])
@pytest.mark.parametrize("levels", [LEVELS, ("context",)])
def test_a_picture_drawn_tile_by_tile_is_the_one_drawn_whole(coder, drawing, make_picture, monkeypatch, size, levels):
    monkeypatch.setattr(see, "TILE", 48)
    packet = coder.pack(make_picture(size), 6, LEVELS)
    features = coder.unpack(packet, levels)
    assert set(features) == set(levels)
    drawn = drawing.picture(coder.opened(packet), levels)
    whole = drawing(features)[0, :, : size[0], : size[1]].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - whole).max() <= 1


@pytest.mark.parametrize(("size", "factor"), [((5, 7), 2), ((133, 90), 2), ((133, 90), 4), ((90, 200), 8)])
@pytest.mark.parametrize("tile", [64, 1024])
def test_a_small_picture_is_that_of_its_context_whatever_the_tiles(
    coder, encode, drawing, make_picture, monkeypatch, size, factor, tile
):
    monkeypatch.setattr(see, "TILE", tile)
    monkeypatch.setattr("chiasm.flow.small.working_factor", lambda size: factor)
    packet, seen = coder.pack(make_picture(size), 6, LEVELS), []
    redraw = Redraw(drawing, lambda x: seen.append(x) or encode(x))
    found, view = at_working_size(coder.opened(packet), redraw)
    half = drawing.halve(coder.unpack(packet, ("context",)))
    unit = padded(size, NS.grid * factor)
    wanted = F.avg_pool2d(pad(half, (unit[0] // 2, unit[1] // 2)), factor // 2).clamp(0, 1)
    torch.testing.assert_close(seen[0], wanted, atol=1e-4, rtol=0)
    assert view == View((unit[0] // factor, unit[1] // factor), (1 / factor, 1 / factor))
    assert found["detail"].shape[-2:] == (unit[0] // factor // 2, unit[1] // factor // 2)


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


@pytest.mark.parametrize("size", [(90, 70), (600, 90)])
def test_a_small_picture_needs_context_alone(coder, encode, drawing, make_picture, size):
    picture, redraw = make_picture(size), Redraw(drawing, encode)
    both, coarse = (
        at_working_size(coder.opened(coder.pack(picture, 6, levels)), redraw)[0] for levels in (LEVELS, ("context",))
    )
    assert both.keys() == {"context", "detail"}
    for name, x in both.items():
        assert torch.equal(coarse[name], x)


@pytest.mark.parametrize(
    ("size", "tile"), [((4500, 7100), 1024), ((300, 1000), 1024), ((133, 90), 48), ((90, 133), 16), ((1, 1), 1024)]
)
def test_what_is_held_while_drawing_is_a_tile_and_edges_and_gives_the_very_features(coder, monkeypatch, size, tile):
    grown, margin, decodings = padded(size, NS.grid), 24, Counter()
    whole = {name: torch.rand(1, 1, grown[0] // stride, grown[1] // stride) for name, stride in STRIDES.items()}
    levels = {
        name: Coded("transform", "", 5, (64, *(n // STRIDES[name] for n in grown)), View(grown), b"", tile)
        for name in LEVELS
    }
    reader = coder.opened(Packet(NS.name, size, levels))

    def decoded(names, index):
        decodings[index] += 1
        return {name: x.clone() for name, x in cut(whole, STRIDES, reader.windows("context")[index]).items()}

    monkeypatch.setattr(reader, "decoded", decoded)
    most, walk = 0, Walk(reader, LEVELS, margin)
    for window, outer, found in walk:
        assert outer == window.grown(margin, grown)
        assert all(torch.equal(found[name], x) for name, x in cut(whole, STRIDES, outer).items())
        storages = {x.untyped_storage().data_ptr(): x.nbytes for _, held in walk.held.values() for x in held.values()}
        most = max(most, sum(storages.values()))
    windows = reader.windows("context")
    pixel = sum(x.nbytes for x in whole.values()) / (grown[0] * grown[1])
    near = 1 + -(-margin // tile)  # tiles on each side that a margin reaches into
    assert most <= pixel * (3 * near * tile**2 + 4 * (margin + tile * (tile < margin)) * grown[1])
    assert decodings.keys() == set(range(len(windows)))
    if tile > margin:  # a tile is decoded once for its upper edge and once for itself
        assert all(decodings[index] <= 1 + (window.top > 0) for index, window in enumerate(windows))


def test_a_check_decodes_every_tile(coder, make_picture, monkeypatch):
    monkeypatch.setattr(see, "TILE", 32)
    packet = coder.pack(make_picture((37, 70)), 5, LEVELS)
    coder.opened(packet).check()
    last = count(padded(packet.size, NS.grid), 32) - 1
    detail = packet.levels["detail"]
    parts = [packets.Tiles(detail, "detail")[index] for index in range(last + 1)]
    cut_short = packets.seal([*parts[:-1], parts[-1][:-1]], 32)
    with pytest.raises(PacketError):
        coder.opened(replace(packet, levels={**packet.levels, "detail": replace(detail, data=cut_short)})).check()


def test_a_picture_comes_back_looking_like_itself(coder, drawing, make_picture):
    picture = make_picture((90, 133))
    fine, coarse = (drawing.picture(coder.opened(coder.pack(picture, quality, LEVELS))) for quality in (8, 1))
    error = [np.square(x.astype(float) - picture.pixels).mean() for x in (fine, coarse)]
    assert error[0] < error[1]
    assert error[0] < 60


def test_a_packet_of_context_alone_is_the_context_of_a_packet_of_both(coder, make_picture):
    picture = make_picture((37, 70))
    both, alone = coder.pack(picture, 5, LEVELS), coder.pack(picture, 5, ("context",))
    assert alone.levels == {"context": both.levels["context"]}
    assert torch.equal(coder.unpack(alone)["context"], coder.unpack(both)["context"])
    assert torch.equal(coder.unpack(both, ["context"])["context"], coder.unpack(both)["context"])


def test_detail_without_context_is_an_error_on_both_ways(coder, make_picture):
    picture = make_picture((5, 7))
    with pytest.raises(PacketError, match="coded on top of 'context'"):
        coder.pack(picture, 5, ("detail",))
    both = coder.pack(picture, 5, LEVELS)
    with pytest.raises(PacketError, match="'context' is not in this packet"):
        coder.unpack(replace(both, levels={"detail": both.levels["detail"]}))


@pytest.mark.parametrize("tile", [32, 1024])
def test_detail_that_is_added_later_is_coded_on_top_of_what_is_stored(coder, encode, make_picture, monkeypatch, tile):
    """At another quality, too. The error of `context` stays: tables of `detail` have no component for most of it."""
    monkeypatch.setattr(see, "TILE", tile)
    picture = make_picture((37, 70))
    first = coder.pack(picture, 2, ("context",))
    (seen,) = coder.eye.see([picture])
    later = coder_levels(coder, seen, 8, first)
    packet = replace(first, levels={**first.levels, **later})
    found = coder.unpack(packet)["detail"]
    original = encode(pad(picture.frame().pixels, padded(picture.size, NS.grid))[None])["detail"]
    coarse, fine = (coder.unpack(coder.pack(picture, quality, LEVELS))["detail"] for quality in (2, 8))
    error, most, least = ((x - original).square().mean().sqrt() for x in (found, coarse, fine))
    assert least < error < most


def test_detail_does_not_decode_on_top_of_another_context(coder, make_picture):
    first, other = (coder.pack(make_picture((37, 70)), quality, LEVELS) for quality in (5, 6))
    mixed = replace(first, levels={"context": other.levels["context"], "detail": first.levels["detail"]})
    with pytest.raises(PacketError, match="another 'context' than the one that is here"):
        coder.unpack(mixed)


def test_levels_that_are_coded_on_top_of_one_another_are_refused(coder, make_picture):
    packet = coder.pack(make_picture((37, 70)), 5, LEVELS)
    round_ = {
        **packet.levels,
        "context": replace(packet.levels["context"], parent="detail", base=packet.levels["detail"].crc),
    }
    with pytest.raises(PacketError, match="cannot be coded on top"):
        coder.unpack(replace(packet, levels=round_))


def coder_levels(coder, seen, quality, stored):
    from chiasm.flow.tiles import coded_levels

    return coded_levels(NS, seen, coder.choices(quality, ("detail",)), coder.opened(stored))


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
        assert (packet.size, set(packet.levels)) == (alone.size, set(alone.levels))
        for name, x in coder.unpack(alone).items():
            # a coefficient at a half may differ
            assert (coder.unpack(packet)[name] - x).abs().mean() < 1e-3


def test_pictures_larger_than_a_tile_are_packed_one_by_one(coder, make_picture, monkeypatch):
    monkeypatch.setattr(see, "TILE", 32)
    pictures = [make_picture((37, 70), seed) for seed in range(2)]
    many = coder.pack_many(pictures, 5, LEVELS)
    assert many == [coder.pack(picture, 5, LEVELS) for picture in pictures]
    assert {coded.tile for packet in many for coded in packet.levels.values()} == {32}


def test_values_of_a_packet_do_not_depend_on_threads_or_default_dtype(coder, make_picture):
    packet, found = coder.pack(make_picture((133, 90)), 5, LEVELS), []
    before = torch.get_num_threads(), torch.get_default_dtype()
    try:
        for threads, dtype in ((1, torch.float32), (2, torch.float64)):
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            found.append(coder.unpack(packet))
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
    for name in LEVELS:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-5, atol=1e-4)
