"""The encoder as it runs gives what the trained one gives."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from chiasm.encoders.ns import CHANNELS, SpaceEncoder
from chiasm.encoders.ns_inference import InferenceEncoder
from chiasm.errors import ShapeError
from chiasm.features import convolution
from chiasm.images.raw.sensor import CONDITION

SIZES = [(1, 4, 4), (1, 36, 52), (3, 20, 76)]


@pytest.fixture(params=["rgb", "raw"])
def trained(request) -> SpaceEncoder:
    """Small, with random weights everywhere, so that every path counts."""
    torch.manual_seed(0)
    module = SpaceEncoder(request.param, width=8).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.2)
    return module


def given(kind: str, size: tuple[int, int, int]) -> tuple[torch.Tensor, ...]:
    batch, height, width = size
    pixels = torch.rand(batch, CHANNELS[kind], height, width)
    return (pixels,) if kind == "rgb" else (pixels, torch.rand(batch, CONDITION))


def farthest(found, wanted) -> float:
    """The largest difference of any level, as a part of the level's largest magnitude."""
    assert list(found) == list(wanted) == ["context", "detail"]
    for name, x in found.items():
        assert x.dtype == torch.float32
        assert x.shape == wanted[name].shape
    return max(float((found[name] - x).abs().max() / x.abs().max()) for name, x in wanted.items())


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_float32_agrees(trained, size, one_pass, monkeypatch):
    if not one_pass:
        monkeypatch.setattr(convolution, "in_one_pass", lambda dtype: False)
    pixels = given(trained.accepts, size)
    before = [x.clone() for x in pixels]
    with torch.inference_mode():
        assert farthest(InferenceEncoder(trained)(*pixels), trained(*pixels)) < 1e-5
    assert all(map(torch.equal, pixels, before))


@pytest.mark.parametrize("size", SIZES)
def test_bfloat16_is_as_near_to_float32_as_autocast_is(trained, size):
    pixels = given(trained.accepts, size)
    with torch.inference_mode():
        exact = trained(*pixels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            usual = farthest({name: x.float() for name, x in trained(*pixels).items()}, exact)
            found = farthest(InferenceEncoder(trained, torch.bfloat16)(*pixels), exact)
    assert 1e-5 < found < max(1.5 * usual, 0.02)


def test_it_is_made_of_what_the_trained_one_is_now_and_leaves_it_alone(trained):
    weights = copy.deepcopy(trained.state_dict())
    pixels = given(trained.accepts, (1, 16, 16))
    with torch.inference_mode():
        made = InferenceEncoder(trained)
        first = made(*pixels)
        assert all(torch.equal(x, weights[name]) for name, x in trained.state_dict().items())
        trained.context.bias.add_(1.0)
        assert farthest(made(*pixels), first) == 0
        assert farthest(InferenceEncoder(trained)(*pixels), first) > 1e-3


def test_it_crosses_to_another_process(trained):
    made = InferenceEncoder(trained)
    pixels = given(trained.accepts, (1, 16, 16))
    with torch.inference_mode():
        assert farthest(pickle.loads(pickle.dumps(made))(*pixels), made(*pixels)) == 0


def test_nothing_is_known_of_a_sensor_that_is_not_told():
    trained = SpaceEncoder("raw", width=8).eval()
    nn.init.normal_(trained.told.weight)
    mosaic = torch.rand(2, 1, 16, 16)
    with torch.inference_mode():
        assert farthest(InferenceEncoder(trained)(mosaic), trained(mosaic)) < 1e-5


def test_a_wrong_shape_is_the_same_sentence(trained):
    wrong = torch.rand(1, CHANNELS[trained.accepts], 16, 18)
    said = []
    for encoder in (trained, InferenceEncoder(trained)):
        with pytest.raises(ShapeError) as caught:
            encoder(wrong)
        said.append(str(caught.value))
    assert said[0] == said[1]
