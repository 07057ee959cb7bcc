"""Whatever the bytes are, the outcome is the features that were packed or a PacketError, and nothing else."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from chiasm.codecs import codec_named
from chiasm.codecs import packet as bitstream
from chiasm.codecs.tables import Tables
from chiasm.contracts import Packet, Parent
from chiasm.errors import PacketError
from chiasm.features.layout import tiles

Files = dict[str, bytes]
Opened = dict[str, list[torch.Tensor]]  # level -> values of its tiles


@pytest.fixture(scope="module")
def files(folder) -> Files:
    found = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.chm"))}
    assert len(found) == 16
    return found


@pytest.fixture(scope="module")
def opened(folder, generator) -> Callable[[bytes], Opened]:
    """What any reader does: the container, the tables that it names, every tile of every level."""
    shipped = Tables.read((folder / "tables.bin").read_bytes())

    def codec_of(name: str, tables: str, embedded: dict[str, bytes]):
        if name != "transform":
            return codec_named(name)
        data = embedded.get(tables) or (shipped.data if tables == shipped.name else b"")
        return codec_named(name, data)

    def run(data: bytes) -> Opened:
        packet, embedded = bitstream.read(data)
        if packet.space != generator.SPEC.name or not set(packet.levels) <= set(generator.SPEC.names):
            raise PacketError(f"a space that is not known: {packet.space}")
        done: dict[tuple[str, int], Parent] = {}
        for name, coded in packet.levels.items():
            codec = codec_of(coded.codec, coded.tables, embedded)
            streams, level = bitstream.Tiles(coded, name), generator.SPEC.level(name)
            size = coded.view.size
            if generator.shape_of(level, size) != coded.shape or codec.parent(name) != coded.parent:
                raise PacketError(f"not the shape and parent of {name}")
            for index, window in enumerate(tiles(size, coded.tile)):
                shape = generator.shape_of(level, window.size)
                parent = done.get((coded.parent, index))
                done[name, index] = codec.decode(name, streams[index], shape, coded.quality, parent)
        return {name: [x.values for (level, _), x in done.items() if level == name] for name in packet.levels}

    return run


def flip(data: bytearray, random: np.random.Generator) -> None:
    for _ in range(random.integers(1, 4)):
        data[random.integers(len(data))] ^= 1 << random.integers(8)


def cut(data: bytearray, random: np.random.Generator) -> None:
    del data[random.integers(len(data)) :]


def insert(data: bytearray, random: np.random.Generator) -> None:
    at = random.integers(len(data) + 1)
    data[at:at] = random.bytes(random.integers(1, 20))


def append(data: bytearray, random: np.random.Generator) -> None:
    data += random.bytes(random.integers(1, 20)) if random.integers(2) else bytes(random.integers(1, 20))


def zero(data: bytearray, random: np.random.Generator) -> None:
    at = random.integers(len(data))
    data[at : at + 16] = bytes(len(data[at : at + 16]))


def move(data: bytearray, random: np.random.Generator) -> None:
    a, b, n = random.integers(len(data)), random.integers(len(data)), random.integers(1, 12)
    data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]


def overwrite(data: bytearray, random: np.random.Generator) -> None:
    at = random.integers(len(data))
    data[at : at + 4] = random.bytes(len(data[at : at + 4]))


MUTATIONS = (flip, cut, insert, append, zero, move, overwrite)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_damaged_file_is_a_packet_error_or_has_not_changed(files, opened, mutation):
    random, outcomes = np.random.default_rng(5), Counter()
    for turn in range(900):
        name = list(files)[turn % len(files)]
        mutated = bytearray(files[name])
        mutation(mutated, random)
        if bytes(mutated) == files[name]:
            outcomes["unchanged"] += 1
            continue
        with pytest.raises(PacketError):
            opened(bytes(mutated))
        outcomes["refused"] += 1
    assert outcomes.total() == 900
    assert outcomes["refused"] > 600


@pytest.mark.parametrize(("name", "size"), [("5x7-q1", 176), ("33x20-plain", 555)])
def test_every_single_byte_of_a_file_is_watched(files, opened, name, size):
    data, refused = files[name], 0
    for at in range(len(data)):
        mutated = bytearray(data)
        mutated[at] ^= 0xFF
        with pytest.raises(PacketError):
            opened(bytes(mutated))
        refused += 1
    assert refused == len(data) == size


def test_every_length_but_the_right_one_is_refused(files, opened):
    data, refused = files["64x48-mixed"], 0
    for length in [*range(0, len(data), 7), len(data) - 1, len(data) + 1]:
        with pytest.raises(PacketError):
            opened((data + b"\0")[:length])
        refused += 1
    assert refused == -(-len(data) // 7) + 2


# An attacker computes the checksums anew.


class Parts:
    """A file taken apart, so that a part may be changed and the whole sealed again."""

    def __init__(self, data: bytes) -> None:
        self.packet, self.tables = bitstream.read(data)
        (length,) = struct.unpack_from("<H", data, 5)
        self.header, self.rest = bytearray(data[7 : 7 + length]), data[11 + length :]
        self.streams = {name: bytearray(coded.data) for name, coded in self.packet.levels.items()}

    def sealed(self) -> bytes:
        """The file with its header as it is now, under a right checksum."""
        head = bitstream.MAGIC + struct.pack("<BH", 2, len(self.header)) + bytes(self.header)
        return head + struct.pack("<I", zlib.crc32(head)) + self.rest

    def rewritten(self) -> bytes:
        """The file with its streams and tables as they are now, and a header made for them."""
        levels = dict(self.packet.levels)
        for name in bitstream._parents_first(levels):
            base = levels[levels[name].parent].crc if levels[name].parent else 0
            levels[name] = replace(levels[name], data=bytes(self.streams[name]), base=base)
        return bitstream.write(replace(self.packet, levels=levels), self.tables)


def survives(attempt: Callable[[], Opened]) -> str:
    """'read' or 'refused'. Any other exception fails the test, as does one that takes long."""
    begin = time.monotonic()
    try:
        maps = attempt()
        outcome = "read" if all(x.dtype == torch.float32 for held in maps.values() for x in held) else "wrong"
    except PacketError:
        outcome = "refused"
    assert time.monotonic() - begin < 20
    return outcome


@pytest.fixture
def frugal() -> Iterator[None]:
    """Fails a test in which this process came to hold 500 MB more than it ever did."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB on Linux


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_forged_streams_are_some_picture_or_a_packet_error(files, opened, mutation):
    random, outcomes = np.random.default_rng(6), Counter()
    names = [name for name in files if "embedded" not in name]
    for turn in range(200):
        parts = Parts(files[names[turn % len(names)]])
        level = list(parts.streams)[random.integers(len(parts.streams))]
        coded, body = parts.packet.levels[level], parts.streams[level]
        if coded.tile and turn % 2:  # what follows the tiles' lengths, so that they stay true
            begin = 4 + 4 * len(bitstream.Tiles(coded, level))
            tail = body[begin:]
            mutation(tail, random)
            parts.streams[level] = body[:begin] + tail
        else:
            mutation(body, random)
        outcomes[survives(lambda parts=parts: opened(parts.rewritten()))] += 1
    assert outcomes["read"] + outcomes["refused"] == 200
    assert outcomes["refused"] > 50


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_forged_headers_are_some_picture_or_a_packet_error(files, opened, mutation):
    random, outcomes = np.random.default_rng(7), Counter()
    for turn in range(300):
        parts = Parts(files[list(files)[turn % len(files)]])
        mutation(parts.header, random)
        outcomes[survives(lambda parts=parts: opened(parts.sealed()))] += 1
    assert outcomes["read"] + outcomes["refused"] == 300
    assert outcomes["refused"] > 150


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_forged_tables_are_some_picture_or_a_packet_error(files, opened, mutation):
    random, outcomes = np.random.default_rng(8), Counter()
    for turn in range(60):
        parts = Parts(files["5x7-q5-embedded"])
        (data,) = parts.tables.values()
        tables = bytearray(data)
        if turn % 2:
            mutation(tables, random)
        else:  # within the arrays, where the header stays true
            tail = tables[2000:]
            mutation(tail, random)
            tables[2000:] = tail
        try:
            name = Tables.read(bytes(tables)).name
        except PacketError:
            outcomes["refused"] += 1
            continue
        parts.tables = {name: bytes(tables)}
        levels = {level: replace(coded, tables=name) for level, coded in parts.packet.levels.items()}
        parts.packet = replace(parts.packet, levels=levels)
        outcomes[survives(lambda parts=parts: opened(parts.rewritten()))] += 1
    assert outcomes["read"] + outcomes["refused"] == 60


def forged(packet: Packet, changes: dict[str, object], monkeypatch) -> bytes:
    """The packet under a header that `write` would refuse to make. changes: to every level, and `picture`, its size."""
    fields = {key: value for key, value in changes.items() if key != "picture"}
    levels = {name: replace(coded, **fields) for name, coded in packet.levels.items()}
    with monkeypatch.context() as patch:
        patch.setattr(bitstream, "check", lambda packet: None)
        return bitstream.write(replace(packet, size=changes.get("picture", packet.size), levels=levels))


EDGES = [(1 << 24, 1 << 24), (1 << 24, 1), (1, 1 << 24), (1 << 14, 1 << 14), (2**32 - 1, 2**32 - 1), (1024, 1025)]


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("size", [*EDGES, (0, 5), (5, 0)])
@pytest.mark.parametrize("tile", [0, 1, 64, 255, 256, 1000, 1024, 2048, 4096, 65_535])
def test_a_header_that_announces_more_than_it_brings_is_refused_before_anything_is_made(
    files, opened, generator, monkeypatch, size, tile
):
    packet, _ = bitstream.read(files["5x7-q8-context"])
    if size == (1024, 1025) and tile in {0, 2048}:
        return  # one tile, which its few bytes may well hold
    if size in {(1 << 24, 1), (1, 1 << 24)} and not tile:
        return  # the same
    view = replace(packet.levels["context"].view, size=size)
    shape = tuple(min(n, 2**32 - 1) for n in generator.shape_of(generator.SPEC.level("context"), size))
    data = forged(packet, {"view": view, "shape": shape, "tile": tile, "picture": size}, monkeypatch)
    begin = time.monotonic()
    with pytest.raises(PacketError):
        opened(data)
    assert time.monotonic() - begin < 2
