"""Integers to bytes and back are the same integers, whatever they are, and no floating point on the way."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from chiasm.codecs import codec_named, entropy
from chiasm.codecs.bands import LARGEST, Bands, Symbols, band_shapes, rounded
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Parent
from chiasm.errors import PacketError

Integers = dict[str, Bands]  # of one picture, by level
ODD_SIZES = [(4, 4), (4, 12), (20, 28), (4, 400), (400, 4), (68, 52), (36, 132)]
EXTREME = [11, 12, 15, 16, 23, 24, 39, 40, 71, 72, 135, 136, 263, 264, 519, 520, 1023, 65_000, 66_055]


def equal(a: Integers, b: Integers) -> int:
    """Assert that both hold the same integers. Returns how many there are."""
    assert a.keys() == b.keys()
    for name in a:
        assert len(a[name]) == len(b[name])
        for x, y in zip(a[name], b[name], strict=True):
            assert x.dtype == y.dtype == np.int32
            np.testing.assert_array_equal(x, y)
    return sum(x.size for bands in a.values() for x in bands)


def written(codec, symbols: Integers, quality: int) -> dict[str, bytes]:
    """A stream for each level that is held, in the order of the tables."""
    return {
        name: codec.write(name, Symbols(bands), quality, symbols[codec.parent(name)] if codec.parent(name) else None)
        for name, bands in symbols.items()
    }


def read(codec, streams: dict[str, bytes], size: tuple[int, int], quality: int) -> Integers:
    found: Integers = {}
    for name, data in streams.items():
        stride = codec.fitted.level(name).stride
        above = found[codec.parent(name)] if codec.parent(name) else None
        found[name] = codec.read(name, data, (size[0] // stride, size[1] // stride), quality, above).bands
    return found


def there_and_back(codec, symbols: Integers, size: tuple[int, int], quality: int) -> int:
    streams = written(codec, symbols, quality)
    decoded = read(codec, streams, size, quality)
    assert written(codec, decoded, quality) == streams
    return equal(decoded, symbols)


def encoded(codec, maps: dict[str, torch.Tensor], quality: int) -> dict[str, tuple[bytes, Symbols]]:
    """Both levels of a picture, coded together: detail on the original context."""
    context = codec.encode("context", maps["context"], quality)
    return {
        "context": context,
        "detail": codec.encode("detail", maps["detail"], quality, Parent(maps["context"], context[1])),
    }


def decoded(codec, coded: dict[str, tuple[bytes, Symbols]], maps: dict[str, torch.Tensor], quality: int):
    context = codec.decode("context", coded["context"][0], tuple(maps["context"].shape[1:]), quality)
    detail = codec.decode("detail", coded["detail"][0], tuple(maps["detail"].shape[1:]), quality, context)
    return {"context": context, "detail": detail}


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
    assert {name: len(data) for name, data in written(codec, symbols, 5).items()} == {"context": 6, "detail": 5}


def test_a_single_value_comes_back_wherever_it_is(codec, tables):
    size, tried = (20, 28), 0
    for level in tables.levels:
        for index, shape in enumerate(band_shapes(level, (size[0] // level.stride, size[1] // level.stride))):
            for place in ((0, 0, 0, 0), tuple(n - 1 for n in shape), tuple(n // 2 for n in shape)):
                for value in (1, -1, -66_055):
                    symbols = zeros(tables, size)
                    symbols[level.name][index][place] = value
                    there_and_back(codec, symbols, size, 5)
                    tried += 1
    assert tried == 6 * 3 * 3


def zeros(tables, size: tuple[int, int]) -> Integers:
    return {
        x.name: [np.zeros(s, np.int32) for s in band_shapes(x, (size[0] // x.stride, size[1] // x.stride))]
        for x in tables.levels
    }


@pytest.mark.parametrize("value", [*EXTREME, *(-x for x in EXTREME)])
def test_a_map_full_of_one_magnitude_comes_back(codec, tables, value):
    size = (12, 20)
    symbols = {name: [band + np.int32(value) for band in bands] for name, bands in zeros(tables, size).items()}
    assert there_and_back(codec, symbols, size, 8) == 15 * 2 + 60 * 3 + 64 * 2


def test_a_magnitude_beyond_the_largest_bucket_is_an_error_and_never_other_bytes(codec, make_symbols):
    assert entropy.LARGEST == 66_055
    for value in (66_056, -66_056, 2**31 - 1):
        symbols = make_symbols((12, 20))
        symbols["detail"][0][0, 0, 0, 0] = value
        with pytest.raises(PacketError, match=f"coefficient of {abs(value)} steps"):
            written(codec, symbols, 5)


def test_means_that_jump_as_far_as_they_can_come_back(codec, tables):
    for sign in (1.0, -1.0):
        x = torch.zeros(1, 8, 33, 49)
        x[..., ::16, 8:] = sign * 1e7
        x[..., 16:, :8] = -sign * 1e7
        stream, symbols = codec.encode("context", x, 8)
        assert LARGEST // 2 < max(int(np.abs(band).max()) for band in symbols.bands) <= LARGEST
        assert equal({"": codec.decode("context", stream, (8, 33, 49), 8).symbols.bands}, {"": symbols.bands}) > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error(codec, value):
    x = torch.zeros(1, 8, 4, 4)
    x[0, 3, 1, 2] = value
    with pytest.raises(PacketError, match="not finite"):
        codec.encode("context", x, 5)


def test_a_level_without_its_parent_is_an_error_that_says_so(codec, make_symbols):
    streams = written(codec, make_symbols((12, 20)), 5)
    for attempt in (
        lambda: codec.decode("detail", streams["detail"], (8, 6, 10), 5),
        lambda: codec.read("detail", streams["detail"], (6, 10), 5),
        lambda: codec.encode("detail", torch.zeros(1, 8, 6, 10), 5),
        lambda: codec.write("detail", Symbols(make_symbols((12, 20))["detail"]), 5),
    ):
        with pytest.raises(PacketError, match="'detail' is coded on top of 'context', which is missing"):
            attempt()


def test_a_parent_of_another_size_is_an_error_that_names_both(codec):
    context = codec.encode("context", torch.zeros(1, 8, 3, 6), 5)
    parent = codec.decode("context", context[0], (8, 3, 6), 5)
    for attempt in (
        lambda: codec.encode("detail", torch.zeros(1, 8, 6, 10), 5, parent),
        lambda: codec.decode("detail", b"", (8, 6, 10), 5, parent),
    ):
        with pytest.raises(PacketError, match=r"'detail' of 6 x 10 .* 3 x 5 of 'context', got 3 x 6"):
            attempt()


def test_a_parent_of_another_codec_or_of_other_tables_is_an_error(codec, tables):
    x = torch.zeros(1, 8, 3, 5)
    plain, tried = codec_named("plain-fp16"), 0
    other = TransformCodec(replace(tables, levels=(replace(tables.levels[0], depth=2), tables.levels[1])))
    for symbols in (plain.encode("context", x)[1], other.encode("context", x, 5)[1], "text", [1, 2]):
        parent = Parent(x, symbols)
        for attempt in (
            lambda parent=parent: codec.encode("detail", torch.zeros(1, 8, 6, 10), 5, parent),
            lambda parent=parent: codec.decode("detail", b"", (8, 6, 10), 5, parent),
        ):
            with pytest.raises(PacketError, match=r"on top of 'context' as transform@f85d.* otherwise; encode both"):
                attempt()
            tried += 1
    assert tried == 8


@pytest.mark.parametrize("shape", [(7, 4, 4), (8, 16), (8,), (8, 0, 4), (8, 4, 4, 1)])
def test_a_map_of_another_shape_than_the_tables_is_an_error(codec, shape):
    with pytest.raises(PacketError, match="is a map of 8 channels, got one of shape"):
        codec.decode("context", b"", shape, 5)
    with pytest.raises(PacketError, match="is a map of 8 channels, got one of shape"):
        codec.encode("context", torch.zeros(1, *shape), 5)


def test_an_unknown_level_is_an_error_that_names_the_nearest(codec):
    for attempt in (
        lambda: codec.decode("contxt", b"", (8, 1, 1), 5),
        lambda: codec.encode("contxt", torch.zeros(1, 8, 1, 1), 5),
        lambda: codec.parent("contxt"),
    ):
        with pytest.raises(PacketError, match=r"no level 'contxt'; did you mean 'context'\?"):
            attempt()


@pytest.mark.parametrize("quality", [0, 9, -1, 255])
def test_a_quality_out_of_range_is_an_error_that_says_the_range(codec, quality):
    x = torch.zeros(1, 8, 1, 1)
    stream, symbols = codec.encode("context", x, 5)
    for attempt in (
        lambda: codec.encode("context", x, quality),
        lambda: codec.decode("context", stream, (8, 1, 1), quality),
        lambda: codec.write("context", symbols, quality),
        lambda: codec.restore("context", symbols, quality),
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
        streams = written(codec, symbols, 5)
        assert equal(read(codec, streams, size, 5), symbols) > 0
        with pytest.raises(AssertionError, match="was called"):  # the guard itself works
            codec.restore("context", Symbols(symbols["context"]), 5)


@pytest.fixture
def waves() -> dict[str, torch.Tensor]:
    context = torch.linspace(-9, 9, 8 * 63).reshape(1, 8, 7, 9)
    return {"context": context, "detail": torch.linspace(-9, 9, 8 * 252).sin().reshape(1, 8, 14, 18)}


def test_encoding_and_synthesis_are_float32_under_autocast_too(codec, waves):
    plain = encoded(codec, waves, 8)
    with torch.autocast("cpu", torch.bfloat16):
        cast = encoded(codec, waves, 8)
        back = decoded(codec, cast, waves, 8)
    assert {name: x[0] for name, x in cast.items()} == {name: x[0] for name, x in plain.items()}
    wanted = decoded(codec, plain, waves, 8)
    assert len(back) == 2
    for name, x in back.items():
        assert torch.equal(x.values, wanted[name].values)
        assert x.values.dtype == torch.float32


def test_a_batch_is_coded_to_the_bytes_of_its_pictures(codec, waves):
    batch = {name: torch.cat([x, x.flip(-1), -x]) for name, x in waves.items()}
    context = codec.encode_batch("context", batch["context"], 6)
    parent = Parent(batch["context"], [symbols for _, symbols in context])
    detail = codec.encode_batch("detail", batch["detail"], 6, parent)
    for index in range(3):
        alone = encoded(codec, {name: x[index : index + 1] for name, x in batch.items()}, 6)
        assert (context[index][0], detail[index][0]) == (alone["context"][0], alone["detail"][0])
    assert len(context) == len(detail) == len({data for data, _ in context}) == 3


def test_maps_of_inference_mode_may_have_parents_outside_of_it(codec, waves):
    wanted = encoded(codec, waves, 6)["detail"][0]
    with torch.inference_mode():
        inside = {name: x + 0 for name, x in waves.items()}
    assert encoded(codec, inside, 6)["detail"][0] == wanted
    for maps in ({**waves, "detail": inside["detail"]}, {**waves, "context": inside["context"]}):
        assert encoded(codec, maps, 6)["detail"][0] == wanted


def test_a_child_may_be_coded_on_a_parent_that_was_stored_before_at_another_quality(codec, waves):
    """On the decoded map it misses nothing that the parent lost; on the original one it does."""
    stream, _ = codec.encode("context", waves["context"], 1)
    stored = codec.decode("context", stream, (8, 7, 9), 1)
    errors = []
    for parent in (stored, Parent(waves["context"], stored.symbols)):
        data, _ = codec.encode("detail", waves["detail"], 8, parent)
        found = codec.decode("detail", data, (8, 14, 18), 8, stored)
        errors.append(float((found.values - waves["detail"]).square().mean()))
    assert errors[0] < errors[1]


def test_a_codec_can_be_sent_to_another_process(codec, waves):
    coded = encoded(codec, waves, 5)
    again = pickle.loads(pickle.dumps(codec))
    assert again.tables == codec.tables
    assert encoded(again, waves, 5)["detail"][0] == coded["detail"][0]


@pytest.fixture(scope="module")
def frugal(tables) -> TransformCodec:
    """A codec to which almost no one is worth its bits."""
    counts = np.ones_like(tables.counts)
    counts[:, 0] = entropy.TOTAL - counts[:, 1:].sum(axis=1)
    return TransformCodec(replace(tables, counts=counts))


def thinned(codec, name: str, bands: list[torch.Tensor], quality: int, above: Bands | None) -> tuple[bytes, Bands, int]:
    """Bands K n h w to a stream and symbols as an encoder chooses them; also how many were not zero before."""
    sizes = codec.in_steps(name, bands, quality)
    integers = rounded(sizes, codec.fitted.level(name))
    symbols = [band.numpy() for band in integers]
    before = sum(map(np.count_nonzero, symbols))
    return codec.write(name, Symbols(symbols), quality, above, codec.worth(name, sizes)), symbols, before


def test_a_component_that_is_thinned_to_nothing_leaves_no_flag(frugal, tables):
    quality, above = 5, zeros(tables, (64, 80))["context"]
    bands = [torch.zeros(3, 1, 32, 40)]
    step = tables.step("detail", quality)
    bands[0][0, :, ::3, ::2] = 5 * step
    bands[0][2, :, 4::16, 5::16] = 0.7 * step
    stream, symbols, before = thinned(frugal, "detail", bands, quality, above)
    assert before == 11 * 20 + 2 * 3
    assert [bool(x.any()) for x in symbols[0]] == [True, False, False]
    assert stream[0] == 0b10000000
    assert equal({"": frugal.read("detail", stream, (32, 40), quality, above).bands}, {"": symbols}) > 0
    assert frugal.write("detail", Symbols(symbols), quality, above) == stream


@pytest.mark.parametrize("scale", [0.2, 0.5, 2.0])
def test_what_was_thinned_is_written_as_if_it_had_been_chosen_so(frugal, tables, scale):
    random, level = np.random.default_rng(0), tables.level("context")
    bands = [torch.from_numpy(random.laplace(0, scale, s)).float() for s in band_shapes(level, (9, 13))]
    stream, symbols, before = thinned(frugal, "context", bands, 5, None)
    assert before > sum(map(np.count_nonzero, symbols))
    assert equal({"": frugal.read("context", stream, (9, 13), 5).bands}, {"": symbols}) > 0
    assert frugal.write("context", Symbols(symbols), 5) == stream


def test_what_another_device_says_of_ones_compares_as_their_sizes_do(codec, monkeypatch):
    thresholds = codec.thresholds
    sizes = torch.from_numpy(np.stack([thresholds, np.nextafter(thresholds, 0), -thresholds, thresholds + 1]))
    here = codec.worth("detail", [sizes])
    monkeypatch.setattr(torch.Tensor, "device", torch.device("meta"))  # as if it lay elsewhere
    monkeypatch.setattr(torch.Tensor, "to", lambda x, kind: x.type(kind) if isinstance(kind, torch.dtype) else x)
    there = codec.worth("detail", [sizes])
    monkeypatch.undo()
    assert (here.sizes[0].dtype, there.sizes[0].dtype) == (np.float32, np.int16)
    wanted = here.sizes[0][..., None] < here.thresholds
    np.testing.assert_array_equal(there.sizes[0][..., None] < there.thresholds, wanted)
    assert 0 < wanted.sum() < wanted.size == 4 * 64 * 64


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
    back = decoded(codec, encoded(codec, maps, quality), maps, quality)
    step = float(tables.steps[quality - 1, 0])
    errors = {name: (back[name].values - x).square().mean().sqrt().item() for name, x in maps.items()}
    assert len(errors) == 2
    assert all(0.02 * step < error < 0.6 * step for error in errors.values())
