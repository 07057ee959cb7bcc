"""What holds of every codec that has a name, so that the flow need not know which one it has."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from chiasm.codecs import NAMES, codec_named
from chiasm.codecs import packet as bitstream
from chiasm.codecs.bands import Symbols
from chiasm.contracts import Codec, Coded, Packet, View
from chiasm.errors import PacketError

SHAPES = {"transform": (8, 5, 7), "plain": (8, 5, 7), "pixels": (8, 5, 7), "vector": (11,)}


@pytest.fixture(params=NAMES)
def named(request, tables) -> tuple[Codec, str, torch.Tensor, int]:
    """A codec, a level that it codes, values of it, and a quality."""
    name = request.param
    codec = codec_named(name, tables.data if name == "transform" else None)
    x = torch.randn(1, *SHAPES[name.split("-")[0]], generator=torch.Generator().manual_seed(6)) * 3
    return codec, "context", x.sigmoid() if name == "pixels" else x, codec.qualities


def integers(symbols: object) -> list[np.ndarray]:
    if not isinstance(symbols, Symbols):
        return [np.asarray(symbols)]
    more = symbols.further
    return [*symbols.bands, *([] if more is None else [more.directions, more.integers])]


def test_there_are_seven_codecs():
    assert len(set(NAMES)) == len(NAMES) == 7


def test_symbols_come_back_exactly_and_values_are_float32_on_the_device(named):
    codec, level, x, quality = named
    data, symbols = codec.encode(level, x, quality)
    found = codec.decode(level, data, tuple(x.shape[1:]), quality)
    assert isinstance(data, bytes)
    for a, b in zip(integers(found.symbols), integers(symbols), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert (found.values.dtype, found.values.shape, found.values.device.type) == (torch.float32, x.shape, "cpu")
    assert codec.parent(level) == ""


def test_what_was_decoded_is_near_what_was_encoded(named):
    codec, level, x, quality = named
    found = codec.decode(level, codec.encode(level, x, quality)[0], tuple(x.shape[1:]), quality).values
    assert 0 <= float((found - x).abs().max()) < 1.0
    assert float((found - x).square().mean()) < 0.05 * float(x.square().mean())


def test_values_of_any_layout_and_dtype_are_coded_alike_and_left_as_they_were(named):
    codec, level, x, quality = named
    x = x.half().float()  # so that every dtype holds them
    wanted, before = codec.encode(level, x, quality)[0], x.clone()
    assert torch.equal(x, before)
    strided = torch.stack([x, x], -1)[..., 0].requires_grad_()
    for other in (strided, x.double(), x.half()):
        assert codec.encode(level, other, quality)[0] == wanted


def test_tensors_of_inference_mode_are_coded_outside_of_it_and_others_inside(named):
    codec, level, x, quality = named
    wanted = codec.encode(level, x, quality)[0]
    with torch.inference_mode():
        inside = x + 0
        assert codec.encode(level, x, quality)[0] == wanted
        codec.decode(level, wanted, tuple(x.shape[1:]), quality)
    assert codec.encode(level, inside, quality)[0] == wanted


def test_a_codec_can_be_sent_to_another_process(named):
    codec, level, x, quality = named
    codec.encode(level, x, quality)
    again = pickle.loads(pickle.dumps(codec))
    assert (again.name, again.tables, again.qualities) == (codec.name, codec.tables, codec.qualities)
    assert again.encode(level, x, quality)[0] == codec.encode(level, x, quality)[0]


def test_a_level_of_any_codec_goes_through_a_packet(named):
    codec, level, x, quality = named
    data, _ = codec.encode(level, x, quality)
    shape = tuple(x.shape[1:])
    coded = Coded(codec.name, codec.tables, quality, shape, View((20, 28)), data)
    packet, _ = bitstream.read(bitstream.write(Packet("golden-1", (17, 25), {level: coded})))
    back = packet.levels[level]
    assert back == coded
    assert back.codec_id.startswith(codec.name)
    found = codec.decode(level, bitstream.Tiles(back, level)[0], back.shape, back.quality)
    assert torch.equal(found.values, codec.decode(level, data, shape, quality).values)


@pytest.mark.parametrize("cut", ["empty", "half", "longer"])
def test_damaged_bytes_are_a_packet_error(named, cut):
    codec, level, x, quality = named
    data, _ = codec.encode(level, x, quality)
    wrong = {"empty": b"", "half": data[: len(data) // 2], "longer": data + b"\x01\x02"}[cut]
    with pytest.raises(PacketError):
        codec.decode(level, wrong, tuple(x.shape[1:]), quality)
