"""What is known around a symbol, against its definition place by place; and no sum that wraps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chiasm.codecs import contexts, entropy
from chiasm.codecs.bands import Symbols, band_shapes
from chiasm.codecs.transform import TransformCodec, walk

SHAPES = [(1, 1), (1, 6), (5, 1), (2, 2), (5, 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_are_the_sums_of_the_places_around(shape):
    x = np.random.default_rng(1).integers(0, 100, (3, 2, *shape)).astype(np.int32)
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    compared = 0
    for row, column in np.ndindex(*shape):
        block = wide[..., row : row + 3, column : column + 3]
        cross = block[..., [0, 1, 1, 2], [1, 0, 2, 1]].sum(-1)
        corners = block[..., [0, 0, 2, 2], [0, 2, 0, 2]].sum(-1)
        np.testing.assert_array_equal(contexts.adjacent(x)[..., row, column], cross)
        np.testing.assert_array_equal(contexts.diagonal(x)[..., row, column], corners)
        np.testing.assert_array_equal(contexts.neighbours(x)[..., row, column], cross + corners)
        compared += 1
    assert compared == shape[0] * shape[1]


def test_groups_double_and_cover_every_component_once():
    for components in range(1, 40):
        groups = list(contexts.groups(components))
        assert [k for start, stop in groups for k in range(start, stop)] == list(range(components))
        assert [start for start, _ in groups] == [0, 1, 2, 4, 8, 16, 32][: len(groups)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_passes_visit_every_place_once(shape):
    seen = np.zeros(shape, int)
    for rectangles in contexts.PASSES:
        for where in rectangles:
            seen[where] += 1
    assert (seen == 1).all()


def test_a_prediction_never_reads_what_is_not_decoded_yet(tables):
    """Any change to symbols at or after a step leaves its prediction as it was."""
    size, steps = (9, 13), 0
    random = np.random.default_rng(2)
    level = tables.level("context")
    symbols = [random.integers(-3, 4, s).astype(np.int32) for s in band_shapes(level, size)]
    present = np.ones(sum(map(len, symbols)), bool)
    known = [np.zeros_like(band) for band in symbols]
    walks = (walk(level, held, None, level.weights[4], present) for held in (symbols, known))
    for full, partial in zip(*walks, strict=True):
        for a, b in zip(full.predictions, partial.predictions, strict=True):
            np.testing.assert_array_equal(a, b)
        values = [
            symbols[full.band][(full.components, slice(None), *where)] for where in full.rectangles
        ]
        for where, part in zip(full.rectangles, values, strict=True):
            known[full.band][(full.components, slice(None), *where)] = part
        full.learn(values)
        partial.learn(values)
        steps += 1
    assert steps == 3 * (2 + 2 + 2 + 2 + 2)


def test_predictions_at_the_largest_weights_and_magnitudes_are_those_of_unbounded_integers():
    weights = np.full((3, 4, contexts.FEATURES), 1 << 20, np.int32)
    features = [
        np.full((4, 3, 2, 5), n * 255, np.int32) for n in (1, 8, 9 * 4096 * 3, 4096, 8 * 4096, 2 * 4096, 4, 4)
    ]
    found = contexts.predicted(features, weights, (4, 3, 2, 5))
    wanted = sum(int(x.flat[0]) << 20 for x in features) + (1 << 20)
    assert wanted > 2**40
    assert (found == wanted).all()
    assert (contexts.classes(found, np.arange(4096).astype(np.uint8)) == 255).all()


def test_predictions_are_the_same_in_32_and_64_bits():
    random = np.random.default_rng(3)
    weights = random.integers(0, 2000, (2, 3, 9)).astype(np.int32)
    features = [random.integers(0, 500, (3, 2, 4, 4)).astype(np.int32) for _ in range(8)]
    narrow = contexts.predicted(features, weights, (3, 2, 4, 4))
    features[0][0, 0, 0, 0] = 1 << 23
    weights[:, :, 0] = np.maximum(weights[:, :, 0], 1)
    wide = contexts.predicted(features, weights, (3, 2, 4, 4))
    assert (narrow.dtype, wide.dtype) == (np.int32, np.int64)
    exact = sum(
        weights[:, :, i].astype(object).T[:, :, None, None] * features[i].astype(object) for i in range(8)
    )
    exact = exact + weights[:, :, 8].astype(object).T[:, :, None, None]
    assert (wide == exact).all()


def test_symbols_survive_tables_whose_every_weight_is_the_largest(tables):
    levels = tuple(replace(x, weights=np.full_like(x.weights, 1 << 20)) for x in tables.levels)
    codec, size = TransformCodec(replace(tables, levels=levels)), (36, 52)
    above, compared = None, []
    for level in levels:
        places = (size[0] // level.stride, size[1] // level.stride)
        symbols = [np.full(s, 66_055, np.int32) for s in band_shapes(level, places)]
        decoded = codec.read(level.name, codec.write(level.name, Symbols(symbols), 5, above), places, 5, above).bands
        compared += [np.array_equal(a, b) for a, b in zip(decoded, symbols, strict=True)]
        above = symbols
    assert compared == [True] * 6


def test_buckets_cover_every_magnitude_once():
    sizes = np.arange(entropy.LARGEST + 1)
    symbols = entropy.symbol_of(sizes)
    assert symbols.min() == 0
    assert symbols.max() == entropy.SYMBOLS - 1
    assert (np.diff(symbols) >= 0).all()
    held = np.bincount(symbols)
    assert held.tolist() == [1] * 12 + [2**bits for _, bits in entropy.BUCKETS]
