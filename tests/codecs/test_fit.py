"""Tables fitted in closed form find the structure that features have, and pay for themselves in bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from chiasm.codecs import entropy
from chiasm.codecs.fit import CLASSES, Plan, fit, normalised, smoothed
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Features, Level, Parent, Space
from chiasm.features.plane import double

pytest.importorskip("scipy")

SPEC = Space("fitted-1", (Level("context", 6, 4), Level("detail", 6, 2)), 4)
PLAN = Plan(("", "context"), (2, 0), tuple((s, s) for s in (4.0, 3.0, 2.25, 1.7, 1.3, 1.0, 0.75, 0.5)))


def features(seed: int) -> Features:
    """64 x 64 pixels: one smooth component, one lively one, both mixed into six channels; little else."""
    generator = torch.Generator().manual_seed(seed)

    def noise(size: int) -> torch.Tensor:
        return torch.randn(1, 1, size, size, generator=generator)

    smooth = double(double(noise(4))) * 12
    mix = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(9)))[0]
    parts = torch.cat([smooth, noise(16) * 5, noise(16), *(noise(16) * 0.02 for _ in range(3))], 1)
    context = torch.einsum("ck,bkhw->bchw", mix, parts) + 3
    fine = torch.cat([noise(32) * 3 * (noise(32) > 1), *(noise(32) * 0.02 for _ in range(5))], 1)
    return {"context": context, "detail": double(context) + torch.einsum("ck,bkhw->bchw", mix, fine)}


def coded(tables: Tables, picture: Features, quality: int) -> tuple[int, Features]:
    """Bytes of both levels, and the maps that come back."""
    codec = TransformCodec(tables)
    data, symbols = codec.encode("context", picture["context"], quality)
    more, _ = codec.encode("detail", picture["detail"], quality, Parent(picture["context"], symbols))
    context = codec.decode("context", data, tuple(picture["context"].shape[1:]), quality)
    detail = codec.decode("detail", more, tuple(picture["detail"].shape[1:]), quality, context)
    return len(data) + len(more), {"context": context.values, "detail": detail.values}


@pytest.fixture(scope="module")
def fitted() -> Tables:
    return fit([features(seed) for seed in range(4)], SPEC, PLAN)


def test_fitted_tables_keep_what_matters_and_drop_what_is_below_the_steps(fitted):
    context, detail = fitted.levels
    assert (context.components, context.smooth, detail.components, detail.parent) == (3, 1, 1, "context")
    for level in fitted.levels:
        gram = level.basis.T @ level.basis
        np.testing.assert_allclose(gram, np.eye(level.components), atol=1e-5)


def test_fitted_tables_are_tables_that_can_be_read(fitted):
    assert Tables.read(fitted.data).name == fitted.name


def test_fitted_probabilities_take_fewer_bytes_than_even_ones(fitted):
    even = replace(fitted, counts=normalised(np.ones((CLASSES, entropy.SYMBOLS))))
    picture, smaller = features(7), 0
    for quality in range(1, 9):
        sizes = [coded(each, picture, quality)[0] for each in (fitted, even)]
        smaller += sizes[0] < 0.8 * sizes[1]
    assert smaller == 8


def test_finer_qualities_take_more_bytes_and_leave_less_error(fitted):
    picture, bytes_, errors = features(8), [], []
    for quality in range(1, 9):
        size, decoded = coded(fitted, picture, quality)
        bytes_.append(size)
        errors.append(sum((decoded[name] - x).square().mean().item() for name, x in picture.items()))
    assert bytes_ == sorted(bytes_)
    assert errors == sorted(errors, reverse=True)
    assert len(set(bytes_)) == 8


def test_counts_are_normalised_to_positive_integers_of_one_sum():
    counts = smoothed(np.random.default_rng(0).integers(0, 10**9, (CLASSES, entropy.SYMBOLS)) ** 2 % 977)
    rows = normalised(counts)
    assert (rows > 0).all()
    assert (rows.sum(axis=1) == entropy.TOTAL).all()
    assert rows.shape == (64, 20)
