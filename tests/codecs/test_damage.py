"""Whatever the bytes are, the outcome is the picture that was packed or a PacketError, and nothing else."""

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

from chiasm.codecs import packet as bitstream
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Features, Packet
from chiasm.errors import PacketError
from chiasm.flow.tiles import PictureCoder

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files(folder) -> Files:
    found = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.chm"))}
    assert len(found) == 9
    return found


@pytest.fixture(scope="module")
def coder(codec, generator) -> PictureCoder:
    return PictureCoder(generator.SPEC, lambda x: {}, codec)


def opened(data: bytes, coder: PictureCoder) -> Features:
    """What any reader does: the container, the tables that it names, every tile."""
    packet, embedded = bitstream.read(data)
    if packet.tables != coder.codec.tables and embedded:
        coder = replace(coder, codec=TransformCodec(Tables.read(embedded)))
    return coder.unpack(packet)


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
def test_a_damaged_file_is_a_packet_error_or_has_not_changed(files, coder, mutation):
    random, outcomes = np.random.default_rng(5), Counter()
    for turn in range(900):
        name = list(files)[turn % len(files)]
        mutated = bytearray(files[name])
        mutation(mutated, random)
        if bytes(mutated) == files[name]:
            outcomes["unchanged"] += 1
            continue
        with pytest.raises(PacketError):
            opened(bytes(mutated), coder)
        outcomes["refused"] += 1
    assert outcomes.total() == 900
    assert outcomes["refused"] > 600


def test_every_single_byte_of_a_file_is_watched(files, coder):
    data, refused = files["5x7-q1"], 0
    for at in range(len(data)):
        mutated = bytearray(data)
        mutated[at] ^= 0xFF
        with pytest.raises(PacketError):
            opened(bytes(mutated), coder)
        refused += 1
    assert refused == len(data) == 163


def test_every_length_but_the_right_one_is_refused(files, coder):
    data, refused = files["5x7-q1"], 0
    for length in [*range(len(data)), len(data) + 1]:
        with pytest.raises(PacketError):
            opened((data + b"\0")[:length], coder)
        refused += 1
    assert refused == len(data) + 1


def test_streams_that_changed_places_are_refused_even_when_they_are_equally_long(coder, files):
    body = b"twelve bytes"
    streams = {name: bitstream.seal([body], name) for name in ("context", "detail")}
    assert len(streams["context"]) == len(streams["detail"])
    swapped = {"context": streams["detail"], "detail": streams["context"]}
    packet, _ = bitstream.read(files["5x7-q1"])
    bitstream.read(bitstream.write(replace(packet, streams=streams)))
    with pytest.raises(PacketError, match="checksum of level 'context'"):
        bitstream.read(bitstream.write(replace(packet, streams=swapped)))


def test_one_tile_too_many_or_too_few_is_refused(coder, files):
    packet, _ = bitstream.read(files["101x70-q5-tile32"])
    tiles = bitstream.Tiles(packet.streams["context"], "context", 12)
    held = [tiles[index] for index in range(12)]
    for wrong in (held[:-1], [*held, held[0]], []):
        streams = {"context": bitstream.seal(wrong, "context")}
        with pytest.raises(PacketError, match=f"has {len(wrong)} tiles where the picture's size asks for 12"):
            coder.unpack(replace(packet, streams=streams))


# An attacker computes the checksums anew.


class Parts:
    """A file taken apart, so that a part may be changed and the whole sealed again."""

    def __init__(self, data: bytes) -> None:
        self.packet, self.tables = bitstream.read(data)
        (length,) = struct.unpack_from("<H", data, 5)
        self.header = bytearray(data[7 : 7 + length])
        self.streams = {name: bytearray(x[4:]) for name, x in self.packet.streams.items()}

    def sealed(self) -> bytes:
        """The file with its streams as they are now, every checksum right and the header as it is now."""
        head = bitstream.MAGIC + struct.pack("<BH", 1, len(self.header)) + bytes(self.header)
        tables = struct.pack("<I", zlib.crc32(self.tables)) + self.tables if self.tables else b""
        return head + struct.pack("<I", zlib.crc32(head)) + tables + b"".join(self._streams().values())

    def rewritten(self) -> bytes:
        """The same with a header made for the streams as they are now."""
        return bitstream.write(replace(self.packet, streams=self._streams()), self.tables)

    def _streams(self) -> dict[str, bytes]:
        found = {}
        for name, body in self.streams.items():
            checksum = zlib.crc32(bytes(body), zlib.crc32(name.encode()))
            found[name] = struct.pack("<I", checksum) + bytes(body)
        return found


def survives(attempt: Callable[[], Features]) -> str:
    """'read' or 'refused'. Any other exception fails the test, as does one that takes long."""
    begin = time.monotonic()
    try:
        maps = attempt()
        outcome = "read" if all(x.dtype == torch.float32 for x in maps.values()) else "wrong"
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
def test_forged_streams_are_some_picture_or_a_packet_error(files, coder, mutation):
    random, outcomes = np.random.default_rng(6), Counter()
    names = [name for name in files if "embedded" not in name]
    for turn in range(200):
        parts = Parts(files[names[turn % len(names)]])
        level = list(parts.streams)[random.integers(len(parts.streams))]
        body = parts.streams[level]
        tail = body[8:] if len(parts.streams) == 2 and turn % 2 else body  # what follows the tiles' lengths
        mutation(tail, random)
        parts.streams[level] = body[:8] + tail if tail is not body else tail
        outcomes[survives(lambda parts=parts: opened(parts.rewritten(), coder))] += 1
    assert outcomes["read"] + outcomes["refused"] == 200
    assert outcomes["refused"] > 50


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_forged_headers_are_some_picture_or_a_packet_error(files, coder, mutation):
    random, outcomes = np.random.default_rng(7), Counter()
    for turn in range(300):
        parts = Parts(files[list(files)[turn % len(files)]])
        mutation(parts.header, random)
        outcomes[survives(lambda parts=parts: opened(parts.sealed(), coder))] += 1
    assert outcomes["read"] + outcomes["refused"] == 300
    assert outcomes["refused"] > 200


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_forged_tables_are_some_picture_or_a_packet_error(files, coder, mutation):
    random, outcomes = np.random.default_rng(8), Counter()
    for turn in range(60):
        parts = Parts(files["5x7-q5-embedded"])
        tables = bytearray(parts.tables)
        if turn % 2:
            mutation(tables, random)
        else:  # within the arrays, where the header stays true
            tail = tables[2000:]
            mutation(tail, random)
            tables[2000:] = tail
        parts.tables = bytes(tables)
        try:
            parts.packet = replace(parts.packet, tables=Tables.read(parts.tables).name)
        except PacketError:
            parts.packet = replace(parts.packet, tables="0" * 16)
        outcomes[survives(lambda parts=parts: opened(parts.rewritten(), coder))] += 1
    assert outcomes["read"] + outcomes["refused"] == 60


def forged(packet: Packet, **changes: object) -> bytes:
    """The packet under a header that `write` would refuse to make."""
    header = {"size": packet.size, "tile": packet.tile, "quality": packet.quality, **changes}
    names = b"".join(bytes([len(x)]) + x.encode() for x in (packet.space, packet.codec, packet.tables))
    fixed = struct.pack("<BIIIIB", header["quality"], *header["size"], header["tile"], 0, len(packet.streams))
    levels = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack("<Q", len(x)) for name, x in packet.streams.items()
    )
    head = bitstream.MAGIC + struct.pack("<BH", 1, len(names + fixed + levels)) + names + fixed + levels
    return head + struct.pack("<I", zlib.crc32(head)) + b"".join(packet.streams.values())


HUGE = [
    (1 << 24, 1 << 24),
    (1 << 24, 1),
    (1, 1 << 24),
    (1 << 14, 1 << 14),
    (2**32 - 1, 2**32 - 1),
    (1024, 1025),
]


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("size", [*HUGE, (0, 5), (5, 0)])
@pytest.mark.parametrize("tile", [0, 1, 4, 16, 1000, 1024, 2048, 4096, 1 << 24])
def test_a_header_that_announces_more_than_it_brings_is_refused_before_anything_is_made(
    files, coder, size, tile
):
    packet, _ = bitstream.read(files["5x7-q1"])
    if size == (1024, 1025) and tile == 2048:
        return  # one tile, which its few bytes may well hold
    begin = time.monotonic()
    with pytest.raises(PacketError):
        opened(forged(packet, size=size, tile=tile), coder)
    assert time.monotonic() - begin < 2


def test_as_many_small_tiles_as_the_largest_picture_has_are_refused_at_once(files, coder):
    packet, _ = bitstream.read(files["5x7-q1"])
    packet = replace(packet, size=(1 << 14, 1 << 14), tile=16)
    with pytest.raises(PacketError, match="has 1 tiles where the picture's size asks for 1048576"):
        coder.unpack(packet)
    with pytest.raises(PacketError, match="has 1 tiles where the picture's size asks for 1048576"):
        coder.draw(packet, lambda features: torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("size", "tile", "wanted"),
    [
        ((1 << 14, 1 + (1 << 14)), 1024, "pixels; expected 1 to 268435456"),
        ((5, 7), 24, "expected a tile of 16 to 2048"),
    ],
)
def test_a_packet_that_no_reader_would_take_is_not_written(files, size, tile, wanted):
    packet, _ = bitstream.read(files["5x7-q1"])
    with pytest.raises(PacketError, match=wanted):
        bitstream.write(replace(packet, size=size, tile=tile))


def test_every_unknown_thing_is_an_error_that_names_it(files, coder):
    packet, _ = bitstream.read(files["5x7-q1"])
    newer = bytearray(files["5x7-q1"])
    newer[4] = 2
    levels = {"colour": bitstream.seal([b""], "colour")}
    attempts = {
        "version 2 is not known here": bytes(newer),
        "space 'ns-9', this pipeline reads 'golden-1'": bitstream.write(replace(packet, space="ns-9")),
        "needs 'wavelet' tables": bitstream.write(replace(packet, codec="wavelet")),
        "tables 0123456789abcdef": bitstream.write(replace(packet, tables="0123456789abcdef")),
        "no level 'colour'": bitstream.write(replace(packet, streams=levels)),
        "quality 9 is not between": bitstream.write(replace(packet, quality=9)),
        "coded on top of 'context'": bitstream.write(
            replace(packet, streams={"detail": packet.streams["detail"]})
        ),
        "not a chiasm packet: it starts with b'\\\\x89PNG'": b"\x89PNG\r\n\x1a\n",
        "not a chiasm packet: it starts with b''": b"",
        "fewer than a header has": b"CHSM",
    }
    for message, data in attempts.items():
        with pytest.raises(PacketError, match=message):
            opened(data, coder)
    assert len(attempts) == 10


def test_a_level_asked_for_that_a_packet_does_not_hold_is_an_error_naming_both(files, coder):
    packet, _ = bitstream.read(files["64x48-q5-context"])
    with pytest.raises(PacketError, match="level 'detail' is not in this packet, which holds context"):
        coder.unpack(packet, ["detail"])


def test_embedded_tables_of_other_levels_than_the_space_has_are_refused(files, coder, generator, tables):
    context = replace(tables.levels[0], stride=8)
    other = replace(tables, levels=(context, replace(tables.levels[1], stride=4)))
    packet, _ = bitstream.read(files["5x7-q1"])
    with pytest.raises(PacketError, match="which are not those of 'golden-1'"):
        opened(bitstream.write(replace(packet, tables=other.name), other.data), coder)


def test_a_description_reads_no_more_than_the_header(files):
    seen = 0
    for name, data in files.items():
        about = bitstream.describe(data)
        packet, embedded = bitstream.read(data)
        assert (about["height"], about["width"]) == packet.size
        assert about["bytes"] == {"all": len(data), **{k: len(x) for k, x in packet.streams.items()}}
        assert about["tables_embedded"] == bool(embedded) == ("embedded" in name)
        assert about["bits_per_pixel"] == pytest.approx(8 * len(data) / packet.size[0] / packet.size[1])
        seen += 1
    assert seen == 9
