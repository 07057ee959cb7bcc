"""Laws of everything that is a `contracts.Codec`, on the levels that the package codes with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from chiasm import models
from chiasm.codecs import NAMES, codec_named
from chiasm.codecs.bands import Symbols
from chiasm.contracts import Codec, Level, Parent, Size, Space
from chiasm.encoders.ns import NS
from chiasm.errors import ChiasmError, PacketError

OTHER = Space("vit-small", (Level("block5", 6, 14), Level("cls", 6, 0)), 14)
SIZES = ((1, 1), (1, 9), (6, 2), (13, 7))  # of the coarsest level of the space


def cases() -> Iterator[tuple[Space, Level, Codec]]:
    """Every level of two spaces with every codec that the package chooses for it, or a user may name."""
    for space in (NS, OTHER):
        for level in space.levels:
            names = [name for name in NAMES if name.startswith("vector") != bool(level.stride)]
            for name in names:
                if name.startswith("vector"):
                    yield space, level, codec_named(name)
                elif name != "transform" or space is NS:
                    yield space, level, models.codec_of(space, level.name, name)


CASES = list(cases())


def values(codec: Codec, space: Space, level: Level, size: Size, seed: int = 0) -> torch.Tensor:
    factor = max(each.stride for each in space.levels) // level.stride if level.stride else 1
    places = [n * factor for n in size] if level.stride else []
    x = 4 * torch.randn(1, level.channels, *places, generator=torch.Generator().manual_seed(seed))
    return x.sigmoid() if codec.name == "pixels" else x


def coded(codec: Codec, space: Space, level: Level, size: Size, quality: int) -> tuple[bytes, Parent, Parent]:
    """The stream of a level, what decoding gives, and what was encoded with the symbols of that."""
    parents: list[Parent] = []
    if above := codec.parent(level.name):
        _, parent, _ = coded(codec, space, space.level(above), size, quality)
        parents.append(parent)
    x = values(codec, space, level, size)
    given = x.clone()
    data, symbols = codec.encode(level.name, x, quality, *parents)
    assert torch.equal(x, given), "it writes into its input"
    assert codec.encode(level.name, x, quality, *parents)[0] == data
    return data, codec.decode(level.name, data, tuple(x.shape[1:]), quality, *parents), Parent(x, symbols)


def loose_parent(codec: Codec, space: Space, level: Level) -> list[Parent]:
    """The values that a level is coded on top of, without symbols."""
    above = codec.parent(level.name)
    return [Parent(values(codec, space, space.level(above), (3, 4)), None)] if above else []


def same(a: object, b: object) -> bool:
    if isinstance(a, Symbols) and isinstance(b, Symbols):
        return all(np.array_equal(x, y) for x, y in zip(a.bands, b.bands, strict=True))
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].name}-{case[1].name}-{case[2].name}")
def case(request) -> tuple[Space, Level, Codec]:
    return request.param


def test_every_codec_codes_a_level_here():
    assert {codec.name for _, _, codec in CASES} == set(NAMES)
    assert {(codec.name, codec.parent(level.name)) for _, level, codec in CASES} >= {("transform", "context")}
    assert len(CASES) >= 15


def test_maps_of_any_size_come_back_with_exact_symbols(case):
    space, level, codec = case
    for quality in {0} if not codec.qualities else {1, codec.qualities}:
        for size in SIZES:
            data, found, given = coded(codec, space, level, size, quality)
            assert isinstance(data, bytes)
            assert same(found.symbols, given.symbols)
            assert (found.values.dtype, found.values.shape) == (torch.float32, given.values.shape)
            assert bool(found.values.isfinite().all())


def test_what_is_not_finite_is_refused(case):
    space, level, codec = case
    parents = loose_parent(codec, space, level)
    for wrong in (float("nan"), float("inf"), float("-inf")):
        x = values(codec, space, level, (3, 4))
        x.view(-1)[-1] = wrong
        with pytest.raises(ChiasmError, match=r"holds? .*(not finite|nan|inf)"):
            codec.encode(level.name, x, codec.qualities, *parents)


def test_a_quality_that_a_codec_does_not_have_is_refused(case):
    space, level, codec = case
    x = values(codec, space, level, (3, 4))
    parents = loose_parent(codec, space, level)
    for quality in (codec.qualities + 1, -1, *((0,) if codec.qualities else ())):
        with pytest.raises(PacketError, match="quality"):
            codec.encode(level.name, x, quality, *parents)
