"""Bytes that were written once are read for ever: to exactly their symbols, and back to exactly the bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch

from chiasm.codecs import codec_named
from chiasm.codecs import packet as bitstream
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Coded, Packet, Parent
from chiasm.features.layout import Window, assemble, tiles

TOLERANCE = 1e-4
BANDS = 108
FEATURES = 32


class Decoded(NamedTuple):
    """One tile of one level. again: the stream that its symbols are written to, None where deflate is free."""

    level: str
    index: int
    window: Window
    data: bytes
    parent: Parent
    symbols: list[np.ndarray]
    again: bytes | None


@pytest.fixture(scope="module")
def packets(folder: Path, generator: ModuleType) -> dict[str, Packet]:
    names = [golden.name for golden in generator.GOLDENS]
    assert sorted(names) == sorted(path.stem for path in folder.glob("*.chm"))
    assert len(names) == 16
    return {name: bitstream.read((folder / f"{name}.chm").read_bytes())[0] for name in names}


@pytest.fixture(scope="module")
def tables(folder: Path) -> bytes:
    return (folder / "tables.bin").read_bytes()


def windows(coded: Coded) -> list[Window]:
    return list(tiles(coded.view.size, coded.tile))


def decoded(packet: Packet, tables: bytes, generator: ModuleType) -> Iterator[Decoded]:
    """Every tile of every level, parents first."""
    before: dict[tuple[str, int], Parent] = {}
    for name, coded in packet.levels.items():
        codec = codec_named(coded.codec, tables if coded.tables else None)
        streams = bitstream.Tiles(coded, name)
        for index, window in enumerate(windows(coded)):
            shape = generator.shape_of(generator.SPEC.level(name), window.size)
            parent = before.get((coded.parent, index))
            found = codec.decode(name, streams[index], shape, coded.quality, parent)
            before[name, index] = found
            symbols, again = found.symbols, None
            if isinstance(codec, TransformCodec):
                again = codec.write(name, symbols, coded.quality, None if parent is None else parent.symbols.bands)
                symbols = symbols.bands + ([symbols.further.integers] if symbols.further else [])
            elif coded.codec.startswith("vector"):
                again = codec.encode(name, found.values, 0)[0]
            symbols = symbols if isinstance(symbols, list) else [symbols]
            yield Decoded(name, index, window, streams[index], found, symbols, again)


def test_every_golden_decodes_to_exactly_its_symbols(packets, tables, generator, expected):
    bands = 0
    for name, packet in packets.items():
        for tile in decoded(packet, tables, generator):
            for band, x in enumerate(tile.symbols):
                wanted = expected[f"{name}/{tile.index}/{tile.level}/{band}"]
                assert x.dtype == wanted.dtype
                np.testing.assert_array_equal(x, wanted)
                bands += 1
    assert bands == sum("features" not in key for key in expected) == BANDS


def test_every_golden_is_written_again_to_exactly_its_bytes(folder, packets, tables, generator):
    written = free = 0
    for name, packet in packets.items():
        data = (folder / f"{name}.chm").read_bytes()
        parts: dict[str, list[bytes]] = {level: [] for level in packet.levels}
        for tile in decoded(packet, tables, generator):
            parts[tile.level].append(tile.data if tile.again is None else tile.again)
            free += tile.again is None
        levels = {
            level: replace(coded, data=bitstream.seal(parts[level], coded.tile))
            for level, coded in packet.levels.items()
        }
        _, embedded = bitstream.read(data)
        assert bitstream.write(replace(packet, levels=levels), embedded) == data
        written += 1
    assert (written, free) == (16, 8)


def test_every_golden_synthesises_its_features_within_the_tolerance(packets, tables, generator, expected):
    compared = 0
    for name, packet in packets.items():
        parts: dict[str, list[tuple[Window, dict[str, torch.Tensor]]]] = {}
        for tile in decoded(packet, tables, generator):
            parts.setdefault(tile.level, []).append((tile.window, {tile.level: tile.parent.values}))
        for level, held in parts.items():
            x = held[0][1][level]
            if len(held) > 1:
                outer = Window(0, 0, *packet.levels[level].view.size)
                x = assemble(outer, held, {level: generator.SPEC.level(level).stride})[level]
            assert x.dtype == torch.float32
            assert tuple(x.shape[1:]) == packet.levels[level].shape
            gap = np.abs(generator.sampled(x.numpy()) - expected[f"{name}/features/{level}"]).max()
            assert gap <= TOLERANCE * x.abs().max().item()
            compared += 1
    assert compared == sum("features" in key for key in expected) == FEATURES


def test_goldens_cover_what_the_format_can_hold(folder, packets, generator, expected):
    levels = [coded for packet in packets.values() for coded in packet.levels.values()]
    embedded = [bitstream.read(path.read_bytes())[1] for path in folder.glob("*.chm")]
    assert {coded.codec for coded in levels} == set(generator.codecs())
    assert {coded.quality for coded in levels} == {0, 1, 2, 3, 4, 5, 6, 7, 8}
    assert {len(packet.levels) for packet in packets.values()} == {1, 2, 3, 5}
    assert {len({coded.codec for coded in packet.levels.values()}) for packet in packets.values()} == {1, 3, 4}
    assert sorted(map(len, embedded)) == [0] * 15 + [1]
    assert {len(windows(coded)) for coded in levels} == {1, 2, 4}
    assert {(coded.view.scale, coded.view.offset) for coded in levels} == {
        ((1.0, 1.0), (0.0, 0.0)),
        (generator.RESIZED.scale, generator.RESIZED.offset),
    }
    ways = {  # how `plain-int8` was written
        packet.levels[name].data[4 * packet.levels[name].shape[0]]
        for packet in packets.values()
        for name in packet.levels
        if packet.levels[name].codec == "plain-int8" and not packet.levels[name].tile
    }
    assert ways == {0, 1}
    magnitudes = {
        int(x) for key, held in expected.items() if held.dtype == np.int32 for x in np.abs(held).flat
    }
    assert magnitudes >= set(range(8)) | set(generator.EXTREMES)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 350_000


def test_the_generator_makes_the_goldens_that_are_in_the_tree(folder, generator, expected, tmp_path):
    generator.generate(tmp_path)
    compared = 0
    for path in tmp_path.iterdir():
        held = [path.read_bytes(), (folder / path.name).read_bytes()] if path.suffix != ".npz" else []
        if path.suffix == ".chm" and ("plain-" in path.stem or "mixed" in path.stem or "pixels" in path.stem):
            made, wanted = (bitstream.read(data)[0] for data in held)
            assert made.levels.keys() == wanted.levels.keys()
            for name, coded in made.levels.items():  # another zlib may deflate to other bytes
                assert replace(coded, data=b"", base=0) == replace(wanted.levels[name], data=b"", base=0)
        elif held:
            assert held[0] == held[1], path.name
        compared += bool(held)
    with np.load(tmp_path / "expected.npz", allow_pickle=False) as made:
        assert set(made) == set(expected)
        for key in made:
            if "features" in key:
                assert np.abs(made[key] - expected[key]).max() <= TOLERANCE * np.abs(expected[key]).max()
            else:
                np.testing.assert_array_equal(made[key], expected[key])
            compared += 1
    assert compared == 17 + len(expected)


def test_an_independent_reader_written_from_the_page_agrees_with_every_golden(
    folder, generator, reader, expected, packets
):
    tables, bands, maps = reader.read_tables((folder / "tables.bin").read_bytes()), 0, 0
    for name, packet in packets.items():
        file = reader.read_file((folder / f"{name}.chm").read_bytes())
        assert (file.space, file.size, list(file.levels)) == (packet.space, packet.size, list(packet.levels))
        assert bool(file.tables) == ("embedded" in name)
        for level, held in file.levels.items():
            coded = packet.levels[level]
            assert held[:7] == (
                *(coded.codec, coded.tables, coded.quality, coded.shape),
                (coded.view.size, coded.view.scale, coded.view.offset), coded.tile, coded.parent,
            )  # fmt: skip
        for level, index, symbols, values in read_by(reader, tables, file, generator):
            for band, x in enumerate(symbols):
                np.testing.assert_array_equal(x, expected[f"{name}/{index}/{level}/{band}"])
                bands += 1
            if len(file.levels[level].tiles) == 1:
                gap = np.abs(generator.sampled(values) - expected[f"{name}/features/{level}"]).max()
                assert gap <= TOLERANCE * np.abs(values).max()
                maps += 1
    assert (bands, maps) == (BANDS, FEATURES - 4)


def read_by(reader, tables, file, generator):
    """level, tile, symbols and values of every tile, by the second reader."""
    before: dict[tuple[str, int], tuple] = {}
    for name, held in file.levels.items():
        size = held.view[0]
        places = list(tiles(size, held.tile))
        for index, (window, data) in enumerate(zip(places, held.tiles, strict=True)):
            shape = generator.shape_of(generator.SPEC.level(name), window.size)
            if held.codec == "transform":
                above, parent = before.get((held.parent, index), (None, None))
                symbols = reader.decode(tables, name, data, shape[1:], held.quality, above)
                values = reader.synthesise(tables, name, symbols, held.quality, parent)
                before[name, index] = symbols[0], values
                yield name, index, symbols[0], values
            else:
                symbols, values = reader.read_numbers(held.codec, data, shape)
                yield name, index, [symbols], values


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_symbols_are_the_same_at_any_thread_count_and_default_dtype_and_under_autocast(
    packets, tables, generator, expected, threads, dtype
):
    before, bands = (torch.get_num_threads(), torch.get_default_dtype()), 0
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            for name in ("64x48-mixed", "64x48-q8-extreme", "33x20-plain"):
                for tile in decoded(packets[name], tables, generator):
                    for band, x in enumerate(tile.symbols):
                        np.testing.assert_array_equal(x, expected[f"{name}/{tile.index}/{tile.level}/{band}"])
                        bands += 1
                    assert tile.parent.values.dtype == torch.float32
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
    assert bands == 9 + 6 + 3


FRESH = """
import hashlib, json, sys
from pathlib import Path
from chiasm.codecs import codec_named, packet as bitstream

found = {}
for path in sorted(Path(sys.argv[1]).glob("*.chm")):
    packet, embedded = bitstream.read(path.read_bytes())
    digest, before = hashlib.sha256(), {}
    for name, coded in packet.levels.items():
        if coded.codec == "transform" and not coded.tile:
            tables = embedded.get(coded.tables) or (path.parent / "tables.bin").read_bytes()
            codec = codec_named(coded.codec, tables)
            assert codec.tables == coded.tables
            before[name] = codec.decode(name, coded.data, coded.shape, coded.quality, before.get(coded.parent))
            held = before[name].symbols
            for band in held.bands + ([held.further.integers] if held.further else []):
                digest.update(band.astype("<i4").tobytes())
    if before:
        found[path.stem] = digest.hexdigest()
print(json.dumps(found))
"""


def test_a_fresh_process_decodes_every_golden_to_the_same_symbols(folder, packets, expected):
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    found, wanted = json.loads(ran.stdout), {}
    for name in found:
        digest = hashlib.sha256()
        for key, x in expected.items():
            if key.startswith(f"{name}/") and x.dtype == np.int32:
                digest.update(x.astype("<i4").tobytes())
        wanted[name] = digest.hexdigest()
    assert found == wanted
    assert len(found) == 11


def test_payloads_of_the_shipped_tables_are_those_that_were_always_written(folder, shipped, shipped_features):
    """Streams that the first version of the codec made of these features with the same tables, byte for byte."""
    with np.load(folder / "ns-1-payloads.npz", allow_pickle=False) as held:
        golden = {key: held[key].tobytes() for key in held}
    compared = 0
    for quality in (1, 3, 6, 8):
        read = wrote = None
        for name in ("context", "detail"):
            stream, x = golden[f"{quality}/{name}"], shipped_features[name]
            parent = None if wrote is None else Parent(shipped_features["context"], wrote)
            data, symbols = shipped.encode(name, x, quality, parent)
            read = shipped.decode(name, stream, tuple(x.shape[1:]), quality, read)
            above = None if wrote is None else wrote.bands
            assert shipped.write(name, read.symbols, quality, above) == stream  # integers: on every machine
            differ = sum(int((a != b).sum()) for a, b in zip(symbols.bands, read.symbols.bands, strict=True))
            assert symbols.further is read.symbols.further is None
            assert differ <= 2  # another processor may round the transform otherwise
            assert data == stream or differ
            wrote = read.symbols
            compared += 1
    assert compared == len(golden) == 8


@pytest.fixture(scope="module")
def shipped() -> TransformCodec:
    from chiasm import models

    return models.codec("ns-1")


@pytest.fixture(scope="module")
def shipped_features(shipped) -> dict[str, torch.Tensor]:
    """Maps of a picture of 44 x 60 pixels: a smooth part that the wavelet finds, lively components, small ones."""
    maps: dict[str, torch.Tensor] = {}
    for level in shipped.fitted.levels:
        shape = (level.components, 44 // level.stride, 60 // level.stride)
        count = int(np.prod(shape))
        digest = b"".join(hashlib.sha256(f"{level.name} {i}".encode()).digest() for i in range(-(-count // 16)))
        drawn = np.frombuffer(digest, "<u2")[:count].astype(np.float64).reshape(shape) / 65536 - 0.5
        rows, columns = np.arange(shape[1])[:, None] / shape[1], np.arange(shape[2])[None] / shape[2]
        component = np.arange(level.components)[:, None, None]
        y = 400.0 / (1 + component) * (drawn**3 + np.sin(3 * rows) * np.cos(2 * columns + component) / 8)
        spanned = np.einsum("ck,khw->chw", level.basis.astype(np.float64), y)
        x = level.scale[:, None, None] * (spanned + level.mean[:, None, None])
        maps[level.name] = torch.from_numpy(x.astype(np.float32))[None]
        if level.parent:
            above = torch.nn.functional.interpolate(maps[level.parent], scale_factor=2.0, mode="bilinear")
            maps[level.name] += above
    return maps
