"""What a picture has that the tables have not: kept where it is worth its bits, and nothing of it elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from chiasm.codecs import further
from chiasm.codecs.bands import Further, Symbols, band_shapes
from chiasm.errors import PacketError

SHAPE = (8, 24, 32)


def spanned(tables, seed: int = 0) -> torch.Tensor:
    """A `context` 1 8 24 32 of which the tables have everything."""
    level, random = tables.level("context"), np.random.default_rng(seed)
    y = random.laplace(0, 6, (level.components, *SHAPE[1:]))
    x = level.scale[:, None, None] * (np.einsum("ck,khw->chw", level.basis, y) + level.mean[:, None, None])
    return torch.from_numpy(x.astype(np.float32))[None]


def outside(tables, count: int, size: float) -> torch.Tensor:
    """Edges along `count` directions that the tables of `context` do not have, `size` high: 1 8 24 32."""
    level = tables.level("context")
    rest = torch.eye(8).double() - torch.from_numpy(level.basis @ level.basis.T).double()
    directions = torch.linalg.eigh(rest)[1][:, -count:].float()  # C n
    place = torch.zeros(count, *SHAPE[1:])
    for index in range(count):
        place[index, 3 + index :: 5, 2 + index] = size
        place[index, 3 + index :: 5, 3 + index] = -size / 2
    return (torch.from_numpy(level.scale)[:, None, None] * torch.einsum("cn,nhw->chw", directions, place))[None]


def error(codec, x: torch.Tensor, quality: int) -> tuple[float, int, Further | None]:
    data, symbols = codec.encode("context", x, quality)
    back = codec.decode("context", data, SHAPE, quality)
    if symbols.further is not None:
        np.testing.assert_array_equal(back.symbols.further.integers, symbols.further.integers)
        np.testing.assert_array_equal(back.symbols.further.directions, symbols.further.directions)
    scale = torch.from_numpy(codec.fitted.level("context").scale)[:, None, None]
    return float(((back.values - x) / scale).abs().max()), len(data), symbols.further


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("quality", [3, 8])
def test_sharp_edges_in_directions_that_the_tables_do_not_have_are_kept(codec, tables, count, quality):
    x, step = spanned(tables) + outside(tables, count, 40.0), tables.step("context", quality)
    worst, size, more = error(codec, x, quality)
    assert len(more.directions) == count
    assert worst < 4 * step < 20  # as the other components; without them it is 40
    plain = codec.encode("context", spanned(tables), quality)[0]
    assert len(plain) < size < len(plain) + 300 * count


def test_no_more_directions_are_kept_than_the_format_has(codec, tables):
    level = replace(tables.level("context"), basis=tables.level("context").basis[:, :2], smooth=2)
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3)) * 50
    y = torch.einsum("ck,bchw->bkhw", torch.from_numpy(level.basis / level.scale[:, None]), x)
    (more,) = further.found(x, y, level, 1.0)
    assert len(more.directions) == further.MOST == 4


@pytest.mark.parametrize("size", [0.0, 0.2, 1.0])
def test_a_picture_without_such_edges_has_the_stream_that_it_always_had(codec, tables, size):
    x = spanned(tables) + outside(tables, 2, size)
    data, symbols = codec.encode("context", x, 5)
    assert symbols.further is None
    assert data == codec.write("context", Symbols(symbols.bands), 5)


@pytest.mark.parametrize("value", [0, 1, -300, 66_055])
def test_any_integers_come_back(codec, tables, value):
    random = np.random.default_rng(4)
    bands = [np.zeros(shape, np.int32) for shape in band_shapes(tables.level("context"), SHAPE[1:])]
    integers = (random.integers(-2, 3, (3, 1, *SHAPE[1:])) * (random.random((3, 1, *SHAPE[1:])) < 0.2)).astype(np.int32)
    integers[:, :, 1, 1] = value
    symbols = Symbols(bands, Further(np.eye(3, 8, dtype=np.float16), integers))
    data = codec.write("context", symbols, 5)
    found = codec.read("context", data, SHAPE[1:], 5)
    np.testing.assert_array_equal(found.further.integers, integers)
    assert codec.write("context", found, 5) == data


def test_directions_that_no_encoder_writes_are_refused(codec, tables):
    bands = [np.zeros(shape, np.int32) for shape in band_shapes(tables.level("context"), SHAPE[1:])]
    flags = -(-sum(map(len, bands)) // 8)
    integers = np.ones((1, 1, *SHAPE[1:]), np.int32)
    data = codec.write("context", Symbols(bands, Further(np.eye(1, 8, dtype=np.float16), integers)), 5)
    refused = 0
    for count in (0, 5, 255):
        with pytest.raises(PacketError, match=f"announces {count} further components; expected 1 to 4"):
            codec.read("context", data[: flags + 4] + bytes([count]) + data[flags + 5 :], SHAPE[1:], 5)
        refused += 1
    for length in (flags + 4, flags + 5, flags + 20):
        with pytest.raises(PacketError, match="further components; expected 1 to 4"):
            codec.read("context", data[:length], SHAPE[1:], 5)
        refused += 1
    for number in (np.nan, np.inf, 1.5):
        wrong = np.float16(number).tobytes()
        with pytest.raises(PacketError, match="no unit vectors"):
            codec.read("context", data[: flags + 5] + wrong + data[flags + 7 :], SHAPE[1:], 5)
        refused += 1
    assert refused == 9


def test_a_child_is_coded_alike_whatever_its_parent_has_beside_the_tables(codec, tables):
    """What a child expects comes of the bands that the tables have, so the further ones change no byte of it."""
    from chiasm.contracts import Parent

    context = codec.encode("context", spanned(tables) + outside(tables, 1, 40.0), 5)[1]
    assert context.further is not None
    detail, values = torch.zeros(1, 8, 48, 64), spanned(tables)
    streams = {
        codec.encode("detail", detail, 5, Parent(values, held))[0] for held in (context, Symbols(context.bands))
    }
    assert len(streams) == 1
