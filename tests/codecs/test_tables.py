"""Tables are named by their bytes, the same in every process; bytes that are no tables are a PacketError."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from chiasm.codecs.tables import Tables
from chiasm.errors import PacketError


@pytest.fixture(scope="module")
def data(folder) -> bytes:
    return (folder / "tables.bin").read_bytes()


def with_header(data: bytes, change) -> bytes:
    """The same arrays under a header that `change` has altered."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_equal_tables_are_equal_bytes_however_often_they_are_written(tables, data):
    """safetensors alone writes its metadata in an order that changes from call to call."""
    written = {replace(tables).data for _ in range(20)}
    assert written == {data}
    assert tables.name == hashlib.sha256(data).hexdigest()[:16]


def test_tables_keep_the_name_of_the_bytes_they_were_read_from(data):
    """A later safetensors may lay the same arrays out otherwise; a packet's tables must still be found."""
    other = with_header(data, lambda header: header["__metadata__"].update(space="golden-1"))
    assert other != data
    tables = Tables.read(other)
    assert tables.data == other
    assert tables.name == hashlib.sha256(other).hexdigest()[:16]


def test_changed_tables_have_another_name(tables):
    changed = replace(tables, steps=tables.steps * 2)
    assert changed.name != tables.name
    assert Tables.read(changed.data).name == changed.name


def test_an_unknown_version_of_tables_is_an_error_naming_it(data):
    newer = with_header(data, lambda header: header["__metadata__"].update(format="2"))
    with pytest.raises(PacketError, match="tables have format 2, this chiasm reads 1"):
        Tables.read(newer)


def test_mutated_tables_are_tables_or_a_packet_error(data):
    random, refused, read = np.random.default_rng(4), 0, 0
    length = int.from_bytes(data[:8], "little")
    for turn in range(2000):
        mutated = bytearray(data)
        end = 8 + length if turn % 2 else len(data)  # half of them in the header
        match turn % 5:
            case 0:
                mutated[random.integers(end)] ^= 1 << random.integers(8)
            case 1:
                del mutated[random.integers(end) :]
            case 2:
                at = random.integers(end)
                mutated[at:at] = random.bytes(random.integers(1, 9))
            case 3:
                at = random.integers(end)
                mutated[at : at + 8] = bytes(len(mutated[at : at + 8]))
            case 4:
                at = random.integers(8, end)
                mutated[at : at + 4] = random.bytes(len(mutated[at : at + 4]))
        try:
            Tables.read(bytes(mutated))
            read += 1
        except PacketError:
            refused += 1
    assert read + refused == 2000
    assert refused > 1200


BROKEN = {
    "space": lambda t: replace(t, space=""),
    "steps are positive": lambda t: replace(t, steps=t.steps * 0),
    "steps: float32": lambda t: replace(t, steps=t.steps[:7]),
    "counts are positive": lambda t: replace(t, counts=t.counts * [*[1] * 19, 0]),
    "sum to 2": lambda t: replace(t, counts=t.counts + 1),
    "classes x 20": lambda t: replace(t, counts=t.counts[:, :19]),
    "classes name rows": lambda t: replace(t, counts=t.counts[:60]),
    "uint8 4096": lambda t: replace(t, classes=t.classes[:-1]),
    "its own name": lambda t: replace(t, levels=(t.levels[0], t.levels[0])),
    "a parent comes before": lambda t: replace(t, levels=t.levels[::-1]),
    "twice the stride": lambda t: of_detail(t, stride=4),
    "a depth 0 to 8": lambda t: of_context(t, depth=9),
    "2 steps or more": lambda t: of_context(t, depth=1),
    "smooth components": lambda t: of_context(t, smooth=5),
    "integers": lambda t: of_context(t, smooth=2.0),
    "mean: float32": lambda t: of_context(t, mean=t.levels[0].mean.astype(np.float64)),
    "scale: float32": lambda t: of_context(t, scale=t.levels[0].scale[:7]),
    "scales are positive": lambda t: of_context(t, scale=-t.levels[0].scale),
    "basis: float32": lambda t: of_context(t, basis=t.levels[0].basis[:7]),
    "weights: int32": lambda t: of_context(t, weights=t.levels[0].weights[:, 1:]),
    "weights are 0": lambda t: of_context(t, weights=-1 - t.levels[0].weights),
    "offsets: float32": lambda t: of_context(t, offsets=t.levels[0].offsets[..., :2]),
    "finite": lambda t: of_context(t, offsets=t.levels[0].offsets / np.float32(0)),
}


def of_context(tables: Tables, **changes) -> Tables:
    return replace(tables, levels=(replace(tables.levels[0], **changes), tables.levels[1]))


def of_detail(tables: Tables, **changes) -> Tables:
    return replace(tables, levels=(tables.levels[0], replace(tables.levels[1], **changes)))


@pytest.mark.parametrize("rule", BROKEN)
def test_tables_whose_parts_do_not_fit_are_refused_with_the_rule(tables, rule):
    with np.errstate(all="ignore"):
        broken = BROKEN[rule](tables)
    with pytest.raises(PacketError, match=f"codec tables break the rule .*{rule}"):
        Tables.read(broken.data)
