"""Bytes that were written once are read for ever: to exactly their symbols, and back to exactly the bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch

from chiasm.codecs import packet as bitstream
from chiasm.codecs.bands import Symbols
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Packet
from chiasm.features.layout import count, padded, tiles
from chiasm.flow.tiles import PictureCoder

GRID = 4
TOLERANCE = 1e-4


class Tile(NamedTuple):
    index: int
    size: tuple[int, int]
    streams: dict[str, bytes]


@pytest.fixture(scope="module")
def codec(folder: Path) -> TransformCodec:
    return TransformCodec(Tables.read((folder / "tables.bin").read_bytes()))


def tiles_of(packet: Packet) -> Iterator[Tile]:
    size = padded(packet.size, GRID)
    held = {
        name: bitstream.Tiles(stream, name, count(size, packet.tile))
        for name, stream in packet.streams.items()
    }
    for index, window in enumerate(tiles(size, packet.tile)):
        yield Tile(index, window.size, {name: stream[index] for name, stream in held.items()})


def same(symbols: Symbols, expected: dict[str, np.ndarray], prefix: str) -> int:
    """Compare the symbols of one tile with the goldens'. Returns how many bands were equal."""
    for level, bands in symbols.items():
        for band, found in enumerate(bands):
            wanted = expected[f"{prefix}/{level}/{band}"]
            assert found.dtype == wanted.dtype == np.int32
            np.testing.assert_array_equal(found, wanted)
    return sum(map(len, symbols.values()))


def decode_all(
    folder: Path, generator: ModuleType, codec: TransformCodec, expected: dict[str, np.ndarray]
) -> int:
    bands = 0
    for golden in generator.GOLDENS:
        packet, _ = bitstream.read((folder / f"{golden.name}.chm").read_bytes())
        for tile in tiles_of(packet):
            symbols = codec.decode(tile.streams, tile.size, packet.quality)
            bands += same(symbols, expected, f"{golden.name}/{tile.index}")
    return bands


def test_every_golden_decodes_to_exactly_its_symbols(folder, generator, codec, expected):
    bands = decode_all(folder, generator, codec, expected)
    assert bands == sum("features" not in key for key in expected) == 118


def test_every_golden_is_written_again_to_exactly_its_bytes(folder, generator, codec):
    written = 0
    for golden in generator.GOLDENS:
        data = (folder / f"{golden.name}.chm").read_bytes()
        packet, embedded = bitstream.read(data)
        parts: dict[str, list[bytes]] = {name: [] for name in packet.streams}
        for tile in tiles_of(packet):
            symbols = codec.decode(tile.streams, tile.size, packet.quality)
            for name, stream in codec.encode(symbols, packet.quality).items():
                parts[name].append(stream)
        streams = {name: bitstream.seal(held, name) for name, held in parts.items()}
        again = Packet(
            packet.space, packet.codec, packet.quality, packet.tables, packet.size, packet.tile, streams
        )
        assert bitstream.write(again, embedded) == data
        written += 1
    assert written == len(list(folder.glob("*.chm"))) == 9


def test_every_golden_synthesises_its_features_within_the_tolerance(folder, generator, codec, expected):
    coder, compared = PictureCoder(generator.SPEC, lambda x: x, codec), 0
    for golden in generator.GOLDENS:
        packet, _ = bitstream.read((folder / f"{golden.name}.chm").read_bytes())
        for name, x in coder.unpack(packet).items():
            wanted = expected[f"{golden.name}/features/{name}"]
            assert x.dtype == torch.float32
            gap = np.abs(generator.sampled(x.numpy()) - wanted).max()
            assert gap <= TOLERANCE * x.abs().max().item()
            compared += 1
    assert compared == sum("features" in key for key in expected) == 16


def test_goldens_cover_what_the_format_can_hold(folder, generator, expected):
    packets = {g.name: bitstream.read((folder / f"{g.name}.chm").read_bytes()) for g in generator.GOLDENS}
    assert {packet.quality for packet, _ in packets.values()} == {1, 5, 8}
    assert {len(packet.streams) for packet, _ in packets.values()} == {1, 2}
    assert {bool(embedded) for _, embedded in packets.values()} == {True, False}
    assert {count(padded(p.size, GRID), p.tile) for p, _ in packets.values()} == {1, 12}
    magnitudes = {
        int(x) for key, held in expected.items() if "features" not in key for x in np.abs(held).flat
    }
    assert magnitudes >= set(range(8)) | set(generator.EXTREMES)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 300_000


def test_the_generator_makes_the_goldens_that_are_in_the_tree(folder, generator, expected, tmp_path):
    generator.generate(tmp_path)
    compared = 0
    for path in tmp_path.iterdir():
        if path.suffix in {".chm", ".bin"}:
            assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
            compared += 1
    with np.load(tmp_path / "expected.npz", allow_pickle=False) as made:
        assert set(made) == set(expected)
        for key in made:
            if "features" in key:
                gap = np.abs(made[key] - expected[key]).max()
                assert gap <= TOLERANCE * np.abs(expected[key]).max()
            else:
                np.testing.assert_array_equal(made[key], expected[key])
            compared += 1
    assert compared == 10 + len(expected)


def test_an_independent_reader_written_from_the_page_agrees_with_every_golden(
    folder, generator, reader, expected
):
    tables, bands, maps = reader.read_tables((folder / "tables.bin").read_bytes()), 0, 0
    for golden in generator.GOLDENS:
        data = (folder / f"{golden.name}.chm").read_bytes()
        file = reader.read_file(data)
        assert (file.space, file.codec, file.quality, file.size) == (
            "golden-1", "transform", golden.quality, golden.size
        )  # fmt: skip
        assert file.embedded == ((folder / "tables.bin").read_bytes() if golden.embedded else b"")
        size = padded(file.size, GRID)
        for index, window in enumerate(tiles(size, file.tile)):
            streams = {name: held[index] for name, held in file.streams.items()}
            symbols = reader.decode(tables, streams, window.size, file.quality)
            for level, held in symbols.items():
                for band, x in enumerate(held):
                    np.testing.assert_array_equal(x, expected[f"{golden.name}/{index}/{level}/{band}"])
                    bands += 1
            if window.size == size:
                for level, x in reader.synthesise(tables, symbols, window.size, file.quality).items():
                    gap = np.abs(generator.sampled(x) - expected[f"{golden.name}/features/{level}"]).max()
                    assert gap <= TOLERANCE * np.abs(x).max()
                    maps += 1
    assert (bands, maps) == (118, 14)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_symbols_are_the_same_at_any_thread_count_and_default_dtype_and_under_autocast(
    folder, generator, codec, expected, threads, dtype
):
    before = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            assert decode_all(folder, generator, codec, expected) == 118
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])


FRESH = """
import hashlib, json, sys
from pathlib import Path
from chiasm.features.layout import count, padded, tiles
from chiasm.codecs import packet as bitstream
from chiasm.codecs.transform import TransformCodec
from chiasm.codecs.tables import Tables

found = {}
for path in sorted(Path(sys.argv[1]).glob("*.chm")):
    packet, embedded = bitstream.read(path.read_bytes())
    tables = Tables.read(embedded or (path.parent / "tables.bin").read_bytes())
    assert tables.name == packet.tables
    size, digest = padded(packet.size, 4), hashlib.sha256()
    held = {n: bitstream.Tiles(s, n, count(size, packet.tile)) for n, s in packet.streams.items()}
    for index, window in enumerate(tiles(size, packet.tile)):
        streams = {name: tile[index] for name, tile in held.items()}
        for bands in TransformCodec(tables).decode(streams, window.size, packet.quality).values():
            for band in bands:
                digest.update(band.astype("<i4").tobytes())
    found[path.stem] = digest.hexdigest()
print(json.dumps(found))
"""


def test_a_fresh_process_decodes_every_golden_to_the_same_symbols(folder, generator, expected):
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    found, wanted = json.loads(ran.stdout), {}
    for golden in generator.GOLDENS:
        digest = hashlib.sha256()
        for key, x in expected.items():
            if key.startswith(f"{golden.name}/") and "features" not in key:
                digest.update(x.astype("<i4").tobytes())
        wanted[golden.name] = digest.hexdigest()
    assert found == wanted
    assert len(found) == 9
