"""Integers to bytes and back are the same integers, whatever they are, and no floating point on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from chiasm.codecs import entropy
from chiasm.codecs.bands import LARGEST, Symbols, band_shapes, coefficients, quantise
from chiasm.codecs.transform import TransformCodec
from chiasm.errors import PacketError

ODD_SIZES = [(4, 4), (4, 12), (20, 28), (4, 400), (400, 4), (68, 52), (36, 132)]
EXTREME = [11, 12, 15, 16, 23, 24, 39, 40, 71, 72, 135, 136, 263, 264, 519, 520, 1023, 65_000, 66_055]


def equal(a: Symbols, b: Symbols) -> int:
    """Assert that both hold the same integers. Returns how many there are."""
    assert a.keys() == b.keys()
    for name in a:
        assert len(a[name]) == len(b[name])
        for x, y in zip(a[name], b[name], strict=True):
            assert x.dtype == y.dtype == np.int32
            np.testing.assert_array_equal(x, y)
    return sum(x.size for bands in a.values() for x in bands)


def there_and_back(codec, symbols: Symbols, size: tuple[int, int], quality: int) -> int:
    streams = codec.encode(symbols, quality)
    decoded = codec.decode(streams, size, quality)
    assert codec.encode(decoded, quality) == streams
    return equal(decoded, symbols)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    quality=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.2, 1.0, 8.0, 300.0, 30_000.0]),
    density=st.sampled_from([0.01, 0.3, 1.0]),
)
def test_any_integers_come_back(codec, make_symbols, height, width, quality, seed, scale, density):
    size = (4 * height, 4 * width)
    assert there_and_back(codec, make_symbols(size, seed, scale, density), size, quality) > 0


@pytest.mark.parametrize("size", ODD_SIZES)
def test_maps_of_any_shape_come_back(codec, make_symbols, size):
    # rough of both levels, and the smooth components' bands on a plane padded to a multiple of 8
    height, width = size[0] // 4, size[1] // 4
    padded = -(-height // 8) * 8 * -(-width // 8) * 8
    wanted = 2 * height * width + 3 * 4 * height * width + 2 * padded
    assert there_and_back(codec, make_symbols(size, 7), size, 5) == wanted


def test_nothing_but_zeros_takes_a_few_bytes(codec, make_symbols):
    size = (256, 256)
    symbols = make_symbols(size, density=0.0)
    assert there_and_back(codec, symbols, size, 5) == 64 * 64 * 4 + 128 * 128 * 3
    streams = codec.encode(symbols, 5)
    assert {name: len(data) for name, data in streams.items()} == {"context": 6, "detail": 5}


def test_a_single_value_comes_back_wherever_it_is(codec, tables):
    size, tried = (20, 28), 0
    for level in tables.levels:
        for index, shape in enumerate(band_shapes(level, size)):
            for place in ((0, 0, 0, 0), tuple(n - 1 for n in shape), tuple(n // 2 for n in shape)):
                for value in (1, -1, -66_055):
                    symbols = {
                        x.name: [np.zeros(s, np.int32) for s in band_shapes(x, size)] for x in tables.levels
                    }
                    symbols[level.name][index][place] = value
                    there_and_back(codec, symbols, size, 5)
                    tried += 1
    assert tried == 6 * 3 * 3


@pytest.mark.parametrize("value", [*EXTREME, *(-x for x in EXTREME)])
def test_a_map_full_of_one_magnitude_comes_back(codec, tables, value):
    size = (12, 20)
    symbols = {x.name: [np.full(s, value, np.int32) for s in band_shapes(x, size)] for x in tables.levels}
    assert there_and_back(codec, symbols, size, 8) == 15 * 2 + 60 * 3 + 64 * 2


def test_a_magnitude_beyond_the_largest_bucket_is_an_error_and_never_other_bytes(codec, make_symbols):
    assert entropy.LARGEST == 66_055
    for value in (66_056, -66_056, 2**31 - 1):
        symbols = make_symbols((12, 20))
        symbols["detail"][0][0, 0, 0, 0] = value
        with pytest.raises(PacketError, match=f"coefficient of {abs(value)} steps"):
            codec.encode(symbols, 5)


def test_means_that_jump_as_far_as_they_can_come_back(codec, tables):
    size = (132, 196)
    for sign in (1.0, -1.0):
        maps = {x.name: torch.zeros(1, 8, size[0] // x.stride, size[1] // x.stride) for x in tables.levels}
        maps["context"][..., ::16, 8:] = sign * 1e7
        maps["context"][..., 16:, :8] = -sign * 1e7
        symbols = quantise(coefficients(maps, tables), tables, 8)
        largest = max(int(np.abs(x).max()) for bands in symbols.values() for x in bands)
        assert LARGEST // 2 < largest <= LARGEST
        assert there_and_back(codec, symbols, size, 8) > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error(codec, value):
    maps = {"context": torch.zeros(1, 8, 4, 4), "detail": torch.zeros(1, 8, 8, 8)}
    maps["context"][0, 3, 1, 2] = value
    with pytest.raises(PacketError, match="not finite"):
        codec.compress(maps, 5)


def test_context_decodes_without_detail_to_the_very_same(codec, make_symbols):
    size = (36, 52)
    symbols = make_symbols(size, 3)
    both, alone = codec.encode(symbols, 5), codec.encode({"context": symbols["context"]}, 5)
    assert alone == {"context": both["context"]}
    assert equal(codec.decode(alone, size, 5), {"context": symbols["context"]}) > 0
    maps = codec.decompress(both, size, 5)["context"], codec.decompress(alone, size, 5)["context"]
    assert torch.equal(*maps)


def test_detail_without_context_is_an_error_that_says_so(codec, make_symbols):
    size = (12, 20)
    streams = codec.encode(make_symbols(size), 5)
    del streams["context"]
    with pytest.raises(PacketError, match="'detail' is coded on top of 'context', which is missing"):
        codec.decode(streams, size, 5)
    with pytest.raises(PacketError, match="'detail' is coded on top of 'context', which is missing"):
        codec.compress({"detail": torch.zeros(1, 8, 6, 10)}, 5)


def test_an_unknown_level_is_an_error_that_names_the_nearest(codec):
    with pytest.raises(PacketError, match=r"no level 'contxt'; did you mean 'context'\?"):
        codec.decode({"contxt": b""}, (4, 4), 5)


@pytest.mark.parametrize("quality", [0, 9, -1, 255])
def test_a_quality_out_of_range_is_an_error_that_says_the_range(codec, make_symbols, quality):
    features = {"context": torch.zeros(1, 8, 1, 1)}
    for attempt in (
        lambda: codec.compress(features, quality),
        lambda: codec.decode(codec.encode(make_symbols((4, 4)), 5), (4, 4), quality),
        lambda: codec.encode(make_symbols((4, 4)), quality),
    ):
        with pytest.raises(PacketError, match=f"quality {quality} is not between 1"):
            attempt()


class NoTorch(TorchDispatchMode):
    """Inside it, any operation on any tensor is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was called")


def test_decoding_to_symbols_calls_no_torch_at_all(codec, make_symbols):
    size = (36, 52)
    symbols = make_symbols(size, 5)
    with NoTorch():
        streams = codec.encode(symbols, 5)
        assert equal(codec.decode(streams, size, 5), symbols) > 0
        with pytest.raises(AssertionError, match="was called"):  # the guard itself works
            codec.decompress(streams, size, 5)


def test_compressing_and_synthesis_are_float32_under_autocast_too(codec):
    maps = {"context": torch.linspace(-9, 9, 8 * 63).reshape(1, 8, 7, 9)}
    maps["detail"] = torch.linspace(-9, 9, 8 * 252).sin().reshape(1, 8, 14, 18)
    plain = codec.compress(maps, 8)
    with torch.autocast("cpu", torch.bfloat16):
        cast = codec.compress(maps, 8)
        decoded = codec.decompress(cast, (28, 36), 8)
    assert cast == plain
    wanted = codec.decompress(plain, (28, 36), 8)
    assert len(decoded) == 2
    assert all(torch.equal(x, wanted[name]) and x.dtype == torch.float32 for name, x in decoded.items())


@pytest.fixture(scope="module")
def frugal(tables) -> TransformCodec:
    """A codec to which almost no one is worth its bits."""
    counts = np.ones_like(tables.counts)
    counts[:, 0] = entropy.TOTAL - counts[:, 1:].sum(axis=1)
    return TransformCodec(replace(tables, counts=counts))


def test_a_component_that_is_thinned_to_nothing_leaves_no_flag(frugal, tables):
    size, quality = (64, 80), 5
    bands = {x.name: [torch.zeros(shape) for shape in band_shapes(x, size)] for x in tables.levels}
    step = float(tables.steps[quality - 1, 1])
    bands["detail"][0][0, :, ::3, ::2] = 5 * step
    bands["detail"][0][2, :, 4::16, 5::16] = 0.7 * step
    symbols = quantise(bands, tables, quality)
    assert [bool(x.any()) for x in symbols["detail"][0]] == [True, False, True]
    streams = frugal.encode(symbols, quality, bands)
    assert [bool(x.any()) for x in symbols["detail"][0]] == [True, False, False]
    assert streams["detail"][0] == 0b10000000
    assert equal(frugal.decode(streams, size, quality), symbols) > 0
    assert frugal.encode(symbols, quality) == streams


@pytest.mark.parametrize("scale", [0.2, 0.5, 2.0])
def test_what_was_thinned_is_written_as_if_it_had_been_chosen_so(frugal, tables, scale):
    random, size = np.random.default_rng(0), (36, 52)
    bands = {
        x.name: [torch.from_numpy(random.laplace(0, scale, s)).float() for s in band_shapes(x, size)]
        for x in tables.levels
    }
    symbols = quantise(bands, tables, 5)
    before = [np.count_nonzero(x) for held in symbols.values() for x in held]
    streams = frugal.encode(symbols, 5, bands)
    assert sum(before) > sum(np.count_nonzero(x) for held in symbols.values() for x in held)
    assert equal(frugal.decode(streams, size, 5), symbols) > 0
    assert frugal.encode(symbols, 5) == streams


@pytest.mark.parametrize("quality", range(1, 9))
def test_what_is_decoded_is_near_what_was_coded(codec, tables, quality):
    """For features that the basis spans, the error of a map stays near what steps of this size must make."""
    random = np.random.default_rng(quality)
    size, maps = (36, 52), {}
    for level in tables.levels:
        shape = (level.components, size[0] // level.stride, size[1] // level.stride)
        spanned = np.einsum("ck,khw->chw", level.basis, random.laplace(0, 6, shape)).astype(np.float32)
        maps[level.name] = torch.from_numpy(level.scale[:, None, None] * (spanned + level.mean[:, None, None]))[None]
    maps["detail"] = maps["detail"] + torch.nn.functional.interpolate(
        maps["context"], scale_factor=2.0, mode="bilinear"
    )
    decoded = codec.decompress(codec.compress(maps, quality), size, quality)
    step = float(tables.steps[quality - 1, 0])
    errors = {name: (decoded[name] - x).square().mean().sqrt().item() for name, x in maps.items()}
    assert len(errors) == 2
    assert all(0.02 * step < error < 0.6 * step for error in errors.values())
