"""The container: what is written is read again, and what no reader would take is not written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chiasm.codecs import packet as bitstream
from chiasm.contracts import Coded, Packet, View
from chiasm.errors import PacketError

NATIVE, RESIZED = View((64, 64)), View((224, 224), (3.5, 3.4), (0.0, -1.25))
TABLES = "0123456789abcdef"
CONTEXT = Coded("transform", TABLES, 3, (8, 16, 16), NATIVE, b"context")
DETAIL = Coded("transform", TABLES, 8, (8, 32, 32), NATIVE, b"detail", 0, "context", CONTEXT.crc)
TOKENS = Coded("plain-int8", "", 0, (384, 14, 14), RESIZED, bitstream.seal([b"", b"a", b"bc", b""], 128), 0)
SUMMARY = Coded("vector-fp16", "", 0, (3,), RESIZED, b"sixsix")
PACKET = Packet("ns-1", (61, 63), {"context": CONTEXT, "detail": DETAIL, "tokens": TOKENS, "summary": SUMMARY})


def changed(name: str, **facts: object) -> Packet:
    return replace(PACKET, levels={**PACKET.levels, name: replace(PACKET.levels[name], **facts)})


def test_a_packet_of_levels_of_any_codec_comes_back():
    packet, tables = bitstream.read(bitstream.write(PACKET))
    assert packet == PACKET
    assert tables == {}
    assert list(packet.levels) == ["context", "tokens", "summary", "detail"]  # parents first


def test_levels_come_back_whatever_order_they_were_given_in():
    backwards = replace(PACKET, levels=dict(reversed(PACKET.levels.items())))
    assert bitstream.read(bitstream.write(backwards))[0] == PACKET


def test_a_header_costs_little_for_the_two_levels_of_a_photograph():
    both = replace(PACKET, levels={"context": CONTEXT, "detail": DETAIL})
    assert len(bitstream.write(both)) - len(b"contextdetail") == 125


def test_embedded_tables_are_named_by_their_bytes(tables):
    levels = {name: replace(x, tables=x.tables and tables.name) for name, x in PACKET.levels.items()}
    packet = replace(PACKET, levels=levels)
    data = bitstream.write(packet, {tables.name: tables.data})
    assert bitstream.read(data) == (packet, {tables.name: tables.data})
    assert bitstream.describe(data)["tables_embedded"] == [tables.name]
    with pytest.raises(PacketError, match=f"no level needs the tables '{tables.name}'"):
        bitstream.write(PACKET, {tables.name: tables.data})
    with pytest.raises(PacketError, match=f"the tables {TABLES} do not have that hash"):
        bitstream.write(PACKET, {TABLES: tables.data})
    broken = bytearray(data)
    broken[-200] ^= 1  # within the tables, which no checksum of the header covers
    with pytest.raises(PacketError, match=f"the tables {tables.name} do not have that hash"):
        bitstream.read(bytes(broken))


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", "x..y", "a\nb", "\x00", "a\u202eb", "é" * 33, "x" * 65])
def test_a_name_that_could_be_a_path_or_a_control_character_is_refused(name):
    levels = {**PACKET.levels, name: SUMMARY}
    for packet in (
        replace(PACKET, space=name),
        replace(PACKET, levels=levels),
        changed("summary", codec=name),
        changed("summary", tables=name or "0"),
    ):
        with pytest.raises(PacketError, match=r"is no name of a|names no tables"):
            bitstream.write(packet)


@pytest.mark.parametrize("name", ["timm.resnet18@0a1b", "s p a c e", "x" * 64, "日本", "a.b", "-"])
def test_other_names_are_taken(name):
    packet = replace(PACKET, space=name, levels={**PACKET.levels, name: SUMMARY})
    assert bitstream.read(bitstream.write(packet))[0] == packet


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (replace(PACKET, size=(0, 7)), "a picture of 0 x 7 pixels; expected 1 to 268435456"),
        (replace(PACKET, size=(1 << 14, 1 + (1 << 14))), "pixels; expected 1 to 268435456"),
        (replace(PACKET, size=(1, 1 + (1 << 24))), "pixels; expected 1 to 268435456"),
        (changed("tokens", view=View((0, 224))), "a view of level 'tokens' of 0 x 224"),
        (changed("tokens", view=View((224, 224), (0.0, 1.0))), "seen at scale"),
        (changed("tokens", view=View((224, 224), (1.0, float("nan")))), "seen at scale"),
        (changed("tokens", view=View((224, 224), (1.0, 1.0), (float("inf"), 0.0))), "seen at scale"),
        (changed("context", tile=24), "tiles of 24 pixels; expected a map in tiles of 256 to 2048"),
        (changed("context", tile=192), "tiles of 192 pixels"),
        (changed("context", tile=4096), "tiles of 4096 pixels"),
        (changed("summary", tile=256), "tiles of 256 pixels; expected a map"),
        (changed("tokens", shape=()), r"has shape \(\)"),
        (changed("tokens", shape=(384, 14)), r"has shape \(384, 14\)"),
        (changed("tokens", shape=(384, 225, 14)), "no more places than pixels"),
        (changed("tokens", shape=(384, 0, 14)), "has shape"),
        (changed("tokens", shape=(1 << 14, 224, 224)), "decodes to more than 134217728 numbers at a time"),
        (changed("summary", shape=(1 << 28,)), "decodes to more than 134217728 numbers at a time"),
        (changed("context", quality=256), "quality 256; expected 0 to 255"),
        (changed("context", tables="0123"), "names no tables"),
        (changed("detail", base=5), "coded on top of 'context', whose bytes are not those"),
        (changed("detail", parent="contxt"), "coded on top of 'contxt', which is missing"),
        (changed("context", parent="detail", base=DETAIL.crc), "'context', 'detail' are coded on top of each other"),
        (replace(PACKET, levels={}), "0 levels; expected 1 to 64"),
        (replace(PACKET, levels={str(n): SUMMARY for n in range(65)}), "65 levels; expected 1 to 64"),
    ],
)
def test_a_packet_that_no_reader_would_take_is_not_written_and_not_read(packet, wanted, monkeypatch):
    with pytest.raises(PacketError, match=wanted):
        bitstream.write(packet)
    with pytest.raises(PacketError, match=wanted):
        bitstream.check(packet)
    unsaid = ("quality", "coded on top", "names no tables")  # what the fields of a header cannot say
    if packet.levels.keys() != PACKET.levels.keys() or any(x in wanted for x in unsaid):
        return
    monkeypatch.setattr(bitstream, "check", lambda packet: None)
    data = bitstream.write(packet)
    monkeypatch.undo()
    with pytest.raises(PacketError, match=wanted):
        bitstream.read(data)


def test_there_are_never_many_tiles():
    """The largest number that a view may have, by its shape: a strip, a square, and what lies between."""
    counts = []
    for bits in range(4, 25):
        size = (1 << bits, (1 << 28) >> bits)
        counts.append(-(-size[0] // 256) * -(-size[1] // 256))
    assert len(counts) == 21
    assert max(counts) == 65_536
    stream = (1 << 24).to_bytes(4, "little")  # what a stream announces is compared before it is believed
    coded = replace(CONTEXT, view=View((16, 4000)), tile=256, data=stream)
    with pytest.raises(PacketError, match="has 16777216 tiles where the picture's size asks for 16"):
        bitstream.Tiles(coded, "context")


def test_tiles_are_found_by_their_index():
    parts = [b"", b"first", b"2", b"", b"fourth", b"5"]
    coded = replace(CONTEXT, view=View((513, 300)), tile=256, data=bitstream.seal(parts, 256))
    tiles = bitstream.Tiles(coded, "context")
    assert [tiles[index] for index in range(len(tiles))] == parts
    for wrong in (parts[:-1], [*parts, b""], []):
        with pytest.raises(PacketError, match=f"has {len(wrong)} tiles where the picture's size asks for 6"):
            bitstream.Tiles(replace(coded, data=bitstream.seal(wrong, 256)), "context")
    for data in (coded.data + b"x", coded.data[:-1]):
        with pytest.raises(PacketError, match="tiles of level 'context' end at 41 of"):
            bitstream.Tiles(replace(coded, data=data), "context")
    with pytest.raises(PacketError, match="has 6 tiles where"):
        bitstream.Tiles(replace(coded, data=coded.data[:20]), "context")
    assert bitstream.Tiles(replace(coded, tile=0, data=b"whole"), "context")[0] == b"whole"
    assert bitstream.seal([b"whole"], 0) == b"whole"


def test_every_unknown_thing_is_an_error_that_names_it():
    data = bitstream.write(PACKET)
    newer = bytearray(data)
    newer[4] = 1
    attempts = {
        "version 1 is not known here": bytes(newer),
        "not a chiasm packet: it starts with b'\\\\x89PNG'": b"\x89PNG\r\n\x1a\n",
        "not a chiasm packet: it starts with b''": b"",
        "fewer than a header has": b"CHSM",
        "the header's checksum does not match": data[:50],
        "it was cut or extended": data[:-1],
        "checksum of level 'detail' does not match": data[:-1] + b"x",
    }
    for message, held in attempts.items():
        with pytest.raises(PacketError, match=message):
            bitstream.read(held)
    assert len(attempts) == 7


def test_streams_that_changed_places_are_refused_even_when_they_are_equally_long():
    twin = replace(SUMMARY, data=b"sevens")
    data = bitstream.write(replace(PACKET, levels={"a": SUMMARY, "b": twin}))
    swapped = data[:-12] + data[-6:] + data[-12:-6]
    with pytest.raises(PacketError, match="checksum of level 'a'"):
        bitstream.read(swapped)


def test_a_description_reads_no_more_than_the_header():
    data = bitstream.write(PACKET)
    about = bitstream.describe(data[:-20] + bytes(20))
    assert (about["space"], about["height"], about["width"], about["bytes"]) == ("ns-1", 61, 63, len(data))
    assert about["bits_per_pixel"] == pytest.approx(8 * len(data) / 61 / 63)
    assert {name: x["bytes"] for name, x in about["levels"].items()} == {
        name: len(x.data) for name, x in PACKET.levels.items()
    }
    assert about["levels"]["detail"] == {
        "codec": "transform",
        "tables": TABLES,
        "quality": 8,
        "shape": [8, 32, 32],
        "view": {"size": [64, 64], "scale": (1.0, 1.0), "offset": (0.0, 0.0)},
        "tile": 0,
        "parent": "context",
        "bytes": 6,
    }
