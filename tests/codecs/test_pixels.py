"""Pixels: an 8-bit picture comes back to the last bit, and drawings take about as much as a PNG of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chiasm.codecs import codec_named
from chiasm.codecs.pixels import COLOUR, WAYS, _backward, _forward
from chiasm.errors import PacketError

CODEC = codec_named("pixels")


def drawing(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """uint8 H W 3: flat rectangles of a few colours."""
    random = np.random.default_rng(seed)
    x = np.full((*size, 3), 255, np.uint8)
    for _ in range(12):
        top, left = random.integers(size[0]), random.integers(size[1])
        x[top : top + random.integers(2, 40), left : left + random.integers(2, 60)] = random.choice([0, 64, 255], 3)
    return x


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255.0


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["noise", "ramp", "two"]),
)
def test_eight_bit_pictures_come_back_to_the_last_bit(shape, seed, kind):
    random = np.random.default_rng(seed)
    x = {
        "noise": random.integers(0, 256, shape),
        "ramp": np.arange(np.prod(shape)).reshape(shape) % 256,
        "two": random.choice([0, 255], shape),
    }[kind]
    values = torch.from_numpy(x).float()[None] / 255.0
    data, symbols = CODEC.encode("pixels", values)
    found = CODEC.decode("pixels", data, shape)
    assert torch.equal(found.values, values)
    np.testing.assert_array_equal(found.symbols, symbols)
    np.testing.assert_array_equal(symbols, x)


@pytest.mark.parametrize("way", range(8))
def test_every_way_of_writing_is_undone(way):
    x = np.random.default_rng(way).integers(0, 256, (3, 6, 7)).astype(np.uint8)
    np.testing.assert_array_equal(_backward(_forward(x, way), way), x)


def test_pictures_that_a_fitted_space_cannot_hold_are_exact():
    red, green = (255, 0, 0), (0, 255, 0)
    chequered = np.where((np.indices((64, 64)).sum(0) % 2)[..., None], red, green).astype(np.uint8)
    sizes = []
    for x in (np.full((1, 1, 3), red, np.uint8), np.full((64, 64, 3), red, np.uint8), chequered, drawing(1)):
        data, _ = CODEC.encode("pixels", tensor(x))
        assert torch.equal(CODEC.decode("pixels", data, (3, *x.shape[:2])).values, tensor(x))
        sizes.append(len(data))
    assert sizes[0] < 10
    assert max(sizes[1:3]) < 120


def test_drawings_take_about_as_much_as_a_png():
    compared = 0
    for seed in range(6):
        x, png = drawing(seed), io.BytesIO()
        Image.fromarray(x).save(png, "PNG", optimize=True)
        assert len(CODEC.encode("pixels", tensor(x))[0]) < 1.25 * len(png.getvalue())
        compared += 1
    assert compared == 6


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), 1e30])
def test_what_is_not_in_0_to_1_is_an_error(value):
    x = torch.zeros(1, 3, 4, 4)
    x[0, 1, 2, 3] = value
    with pytest.raises(PacketError, match=r"pixels has those in \[0, 1\]; choose plain-fp16"):
        CODEC.encode("pixels", x)


def test_damaged_streams_are_other_pixels_or_an_error():
    random, outcomes = np.random.default_rng(7), {"read": 0, "refused": 0}
    data, _ = CODEC.encode("pixels", tensor(drawing(3)))
    for _ in range(300):
        wrong = bytearray(data)
        wrong[random.integers(len(wrong))] ^= 1 << random.integers(8)
        try:
            x = CODEC.decode("pixels", bytes(wrong), (3, 96, 128)).values
        except PacketError:
            outcomes["refused"] += 1
        else:
            assert 0.0 <= float(x.min()) <= float(x.max()) <= 1.0
            outcomes["read"] += 1
    assert sum(outcomes.values()) == 300
    assert outcomes["refused"] > 100
    with pytest.raises(PacketError, match="a way that no encoder has"):
        CODEC.decode("pixels", b"\x08" + data[1:], (3, 96, 128))
    with pytest.raises(PacketError, match="a way that no encoder has"):
        CODEC.decode("pixels", bytes([COLOUR]) + data[1:], (1, 3 * 96, 128))
    assert all(0 <= way < 8 for way in WAYS)
