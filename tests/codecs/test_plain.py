"""Plain numbers: what comes back is what the number format holds of a value, whatever the value is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chiasm.codecs import NAMES, codec_named
from chiasm.contracts import Parent
from chiasm.errors import PacketError

PLAIN = ("plain-fp16", "plain-bf16", "plain-int8")
VECTORS = ("vector-fp16", "vector-fp32")
TINY = 1e-45  # the smallest denormal of float32


def wanted(name: str, x: torch.Tensor) -> torch.Tensor:
    """What the page promises, computed without the codec. x: 1 C h w, or 1 D."""
    if "int8" in name:
        scale = (x.abs().amax(dim=(2, 3), keepdim=True).double() / 127).float().clamp_min(np.finfo(np.float32).tiny)
        return (x / scale).round() * scale
    return x.to({"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[name[-4:]]).float()


def there_and_back(name: str, x: torch.Tensor) -> torch.Tensor:
    codec = codec_named(name)
    data, symbols = codec.encode("level", x, 0)
    assert codec.encode("level", x, 0)[0] == data
    found = codec.decode("level", data, tuple(x.shape[1:]), 0)
    np.testing.assert_array_equal(found.symbols, symbols)
    assert found.values.dtype == torch.float32
    assert found.values.shape == x.shape
    return found.values


def test_these_are_all_the_codecs_without_tables():
    assert set(NAMES) == {*PLAIN, *VECTORS, "pixels", "transform"}


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(PLAIN),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([TINY, 1e-40, 1e-7, 1.0, 8000.0]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_maps_come_back_as_the_numbers_that_hold_them(name, shape, seed, scale, share):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *shape, generator=generator) * scale * (torch.rand(1, *shape, generator=generator) < share)
    assert torch.equal(there_and_back(name, x), wanted(name, x))


@pytest.mark.parametrize("name", ["plain-bf16", "plain-int8"])
@pytest.mark.parametrize("value", [1e30, -1e30, 3.38e38, TINY, 0.0, -0.0, 65_520.0])
def test_single_numbers_of_any_size_come_back(name, value):
    for shape in ((1, 1, 1), (3, 1, 1), (2, 5, 7)):
        x = torch.full((1, *shape), value)
        assert torch.equal(there_and_back(name, x), wanted(name, x))


def test_the_largest_number_of_float32_comes_back_finite_from_int8():
    largest = torch.finfo(torch.float32).max
    found = there_and_back("plain-int8", torch.tensor([[[[largest, -largest, 1.0]]]]))
    assert found.isfinite().all()
    assert float(found[0, 0, 0, 0]) == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_the_error_is_within_what_the_docstring_says(name):
    x = torch.randn(1, 16, 20, 20, generator=torch.Generator().manual_seed(1))
    x *= torch.logspace(-3, 3, 16)[:, None, None]
    gap = (there_and_back(name, x) - x).abs()
    bound = {
        "plain-fp16": x.abs() * 2.0**-11 + 2.0**-25,
        "plain-bf16": x.abs() * 2.0**-8,
        "plain-int8": x.abs().amax(dim=(2, 3), keepdim=True) / 253.9,
    }[name]
    assert (gap <= bound).all()
    assert gap.max() > 0


def test_smooth_maps_are_written_as_differences_and_sparse_ones_as_they_are():
    codec, seen = codec_named("plain-int8"), []
    smooth = torch.linspace(0, 3, 2000).sin().reshape(1, 2, 20, 50)
    sparse = (torch.rand(1, 2, 20, 50, generator=torch.Generator().manual_seed(5)) - 0.8).relu()
    for x in (smooth, sparse):
        data, symbols = codec.encode("level", x, 0)
        seen.append(data[8])
        np.testing.assert_array_equal(codec.decode("level", data, (2, 20, 50), 0).symbols, symbols)
    assert seen == [1, 0]
    with pytest.raises(PacketError, match="a scale or step that no encoder writes"):
        codec.decode("level", data[:8] + b"\2" + data[9:], (2, 20, 50), 0)


@pytest.mark.parametrize("name", PLAIN)
def test_constant_channels_cost_next_to_nothing(name):
    x = torch.arange(64.0).reshape(1, 64, 1, 1).expand(1, 64, 32, 32)
    data, _ = codec_named(name).encode("level", x, 0)
    assert len(data) < 2500
    assert torch.equal(there_and_back(name, x), wanted(name, x))


@pytest.mark.parametrize("name", [*PLAIN, *VECTORS])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_an_error(name, value):
    x = torch.zeros((1, 2, 3, 3) if name in PLAIN else (1, 9))
    x.reshape(-1)[4] = value
    with pytest.raises(PacketError, match="not finite; check the encoder's weights"):
        codec_named(name).encode("level", x, 0)


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("plain-fp16", 65_505.0, "plain-bf16"),
        ("plain-bf16", 3.4e38, "plain-int8"),
        ("vector-fp16", -1e30, "vector-fp32"),
    ],
)
def test_what_is_too_large_is_an_error_that_names_a_codec_that_holds_it(name, value, other):
    x = torch.full((1, 2, 1, 1) if name in PLAIN else (1, 2), value)
    with pytest.raises(PacketError, match=f"has nothing beyond .*; choose {other}"):
        codec_named(name).encode("level", x, 0)
    codec_named(other).encode("level", x, 0)


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_its_numbers_and_nothing_else(name):
    x = torch.tensor([[0.1, -2.0, 3e-8, 65_504.0]])
    data, _ = codec_named(name).encode("level", x, 0)
    kind = "<f2" if name.endswith("16") else "<f4"
    np.testing.assert_array_equal(np.frombuffer(data, kind), x[0].numpy().astype(kind))
    assert torch.equal(there_and_back(name, x), wanted(name, x))


@pytest.mark.parametrize("name", [*PLAIN, *VECTORS])
def test_a_wrong_shape_a_quality_and_a_parent_are_errors(name):
    codec = codec_named(name)
    right = (2, 3, 4) if name in PLAIN else (6,)
    data, _ = codec.encode("level", torch.ones(1, *right), 0)
    wrong = [(), (6, 1), (0,), (2, 0, 4), (1, 2, 3, 4), (6,) if name in PLAIN else (2, 3, 4)]
    for shape in wrong:
        with pytest.raises(PacketError, match="got level 'level' of shape"):
            codec.decode("level", data, shape, 0)
        with pytest.raises(PacketError, match="got level 'level' of shape"):
            codec.encode("level", torch.ones(1, *shape), 0)
    with pytest.raises(PacketError, match="has no quality, got 3"):
        codec.encode("level", torch.ones(1, *right), 3)
    with pytest.raises(PacketError, match="has no quality, got 3"):
        codec.decode("level", data, right, 3)
    parent = Parent(torch.ones(1, 1, 1, 1), [])
    with pytest.raises(PacketError, match="codes a level alone"):
        codec.decode("level", data, right, 0, parent)
    assert codec.parent("level") == ""


@pytest.mark.parametrize("name", [*PLAIN, *VECTORS])
def test_every_length_but_the_right_one_and_every_larger_shape_is_refused(name):
    codec, shape = codec_named(name), (3, 4, 5) if name in PLAIN else (60,)
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    data, _ = codec.encode("level", x, 0)
    refused = 0
    for cut in [*range(len(data)), len(data) + 1, len(data) + 100]:
        with pytest.raises(PacketError):
            codec.decode("level", (data + bytes(100))[:cut], shape, 0)
        refused += 1
    for index in range(len(shape)):
        for more in (-1, 1, 1000):
            other = tuple(n + more * (i == index) for i, n in enumerate(shape))
            with pytest.raises(PacketError):
                codec.decode("level", data, other, 0)
            refused += 1
    assert refused == len(data) + 2 + 3 * len(shape)


def test_flipped_bits_are_other_numbers_or_an_error_and_nothing_else():
    random, outcomes = np.random.default_rng(3), {"read": 0, "refused": 0}
    for turn in range(1500):
        name = (*PLAIN, *VECTORS)[turn % 5]
        codec, shape = codec_named(name), (3, 4, 5) if name in PLAIN else (60,)
        data = bytearray(codec.encode("level", torch.from_numpy(random.normal(size=(1, *shape))), 0)[0])
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] ^= 1 << random.integers(8)
        try:
            values = codec.decode("level", bytes(data), shape, 0).values
        except PacketError:
            outcomes["refused"] += 1
        else:
            assert values.isfinite().all()
            assert tuple(values.shape[1:]) == shape
            outcomes["read"] += 1
    assert sum(outcomes.values()) == 1500
    assert min(outcomes.values()) > 100


@pytest.mark.parametrize("name", PLAIN)
def test_a_stream_that_inflates_to_more_than_its_shape_is_refused_before_it_is_held(name):
    import tracemalloc
    import zlib

    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = np.ones(2, "<f4").tobytes() + b"\0" if "int8" in name else b""
    bomb += coder.compress(bytes(200_000_000)) + coder.flush()
    tracemalloc.start()
    with pytest.raises(PacketError, match="does not hold just its"):
        codec_named(name).decode("level", bomb, (2, 2, 2), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_an_unknown_codec_is_an_error_that_names_the_nearest():
    with pytest.raises(PacketError, match=r"no codec called 'plain-fp61'; did you mean 'plain-fp16'\?"):
        codec_named("plain-fp61")
    with pytest.raises(PacketError, match="the codec transform needs the bytes of its tables, got none"):
        codec_named("transform")
    with pytest.raises(PacketError, match="the codec plain-int8 has no tables, got 3 bytes"):
        codec_named("plain-int8", b"abc")
    with pytest.raises(PacketError, match="are not codec tables"):
        codec_named("transform", b"abc")
