"""Features through the codec inside a training step: the codec's own values, the projection's gradient."""

from __future__ import annotations

import pytest
import torch

from chiasm import models
from chiasm.flow.pipeline import Pipeline
from chiasm.training.coding import Coding, qualities, quality_of


@pytest.fixture(scope="module")
def shipped():
    pipeline = Pipeline.load("ns-rgb", precision="float32")
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    picture = torch.stack([0.5 + 0.3 * torch.sin(x / (5 + k)) * torch.cos(y / 7) for k in range(3)])
    noise = 0.1 * torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    encoder = models.encoder("ns-rgb")
    with torch.no_grad():
        parts = encoder.parts(picture[None] + noise)
    return pipeline, encoder, Coding(models.codec("ns-1"), encoder.alignment), parts


@pytest.mark.parametrize("quality", [1, 4, 8])
def test_values_are_those_of_a_packet(shipped, quality):
    pipeline, encoder, coding, parts = shipped
    found = encoder.alignment.features(*coding.parts(*parts, torch.tensor([quality, quality])))
    for index in range(2):
        alone = encoder.alignment.features(*(x[index : index + 1] for x in parts))
        wanted = pipeline.coded(alone, quality)
        for name, x in wanted.items():
            assert torch.allclose(found[name][index : index + 1], x, atol=1e-4), name


def test_quality_0_leaves_a_picture_as_it_is(shipped):
    *_, coding, parts = shipped
    found = coding.parts(*parts, torch.tensor([0, 2]))
    for x, y in zip(parts, found, strict=True):
        assert torch.equal(x[0], y[0])
        assert (x[1] - y[1]).abs().max() > 0.1


def test_components_that_are_not_kept_get_no_gradient(shipped):
    *_, coding, parts = shipped
    level = coding.codec.fitted.levels[0]
    context = parts[0][1:].clone().requires_grad_()
    found, _ = coding.parts(context, parts[1][1:], torch.tensor([3]))
    seen = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * seen).sum().backward()
    basis = torch.from_numpy(level.basis)
    kept = torch.einsum("dk,ck,bchw->bdhw", basis, basis, seen)
    assert torch.allclose(context.grad, kept, atol=1e-4)
    assert not torch.allclose(context.grad, seen, atol=1e-2)


def test_qualities_are_drawn_evenly():
    drawn = qualities(8000, 0.5, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=9)
    assert len(counts) == 9
    assert counts[0] == pytest.approx(4000, rel=0.05)
    assert all(count == pytest.approx(500, rel=0.2) for count in counts[1:].tolist())
    assert quality_of(torch.tensor([0.0, 0.124, 0.126, 0.9999])).tolist() == [1, 1, 2, 8]
