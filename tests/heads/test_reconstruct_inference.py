"""The head that draws gives, as it runs, what the trained one gives."""

from __future__ import annotations

import pytest
import torch

from chiasm.encoders.ns import NS
from chiasm.errors import ShapeError
from chiasm.features import convolution
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.heads.reconstruct_inference import InferenceHead

LEVELS = [("context", "detail"), ("context",)]
SIZES = [(1, 1, 1), (1, 9, 13), (3, 5, 19)]  # batch, and the size of `context`


@pytest.fixture(params=[0, 2])
def trained(request) -> ReconstructHead:
    """Small, with random weights everywhere, so that every path counts."""
    torch.manual_seed(0)
    head = ReconstructHead(NS, width=8, depth=request.param).eval().requires_grad_(False)
    for parameter in head.parameters():
        parameter.normal_(std=0.2)
    return head


def given(levels: tuple[str, ...], size: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    batch, height, width = size
    features = {
        "context": torch.randn(batch, 64, height, width),
        "detail": torch.randn(batch, 64, 2 * height, 2 * width),
    }
    return {name: features[name] for name in levels}


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest one, as a part of the largest magnitude."""
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("size", SIZES)
def test_float32_agrees(trained, levels, size, one_pass, monkeypatch):
    if not one_pass:
        monkeypatch.setattr(convolution, "in_one_pass", lambda dtype: False)
    features = given(levels, size)
    before = {name: x.clone() for name, x in features.items()}
    with torch.inference_mode():
        assert difference(InferenceHead(trained)(features), trained(features)) < 1e-5
    assert all(torch.equal(x, before[name]) for name, x in features.items())


@pytest.mark.parametrize("levels", LEVELS)
def test_bfloat16_is_as_near_to_float32_as_autocast_is(trained, levels):
    features = given(levels, (2, 9, 13))
    with torch.inference_mode():
        exact = trained(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            usual = difference(trained(features).float(), exact)
        found = difference(InferenceHead(trained, torch.bfloat16)(features), exact)
    assert 1e-5 < found < max(1.5 * usual, 0.02)


def test_the_half_picture_is_that_of_the_trained_head(trained):
    features = given(("context",), (2, 9, 13))
    assert torch.equal(InferenceHead(trained).halved(features), trained.halved(features))


def test_without_context_it_says_the_same(trained):
    for head in (trained, InferenceHead(trained)):
        with pytest.raises(ShapeError, match="reads level 'context', got detail"):
            head(given(("detail",), (1, 2, 2)))
