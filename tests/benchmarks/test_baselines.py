from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks" / "baselines"


def baseline(name):
    spec = spec_from_file_location(f"baselines_{name}", FOLDER / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dncnn():
    torch.manual_seed(0)
    return baseline("dncnn").DnCNN()


def test_dncnn_is_17_convolutions_and_558400_parameters(dncnn):
    assert sum(isinstance(layer, nn.Conv2d) for layer in dncnn.modules()) == 17
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in dncnn.modules()) == 15
    assert sum(parameter.numel() for parameter in dncnn.parameters() if parameter.requires_grad) == 558_400


def test_folded_dncnn_is_the_same_function_without_batch_norm(dncnn):
    draws = torch.Generator().manual_seed(1)
    for layer in dncnn.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics as after training, none at its start value
            layer.running_mean.copy_(0.2 * torch.randn(64, generator=draws))
            layer.running_var.copy_(0.5 + torch.rand(64, generator=draws))
            nn.init.normal_(layer.weight, 1.0, 0.1, generator=draws)
            nn.init.normal_(layer.bias, 0.0, 0.1, generator=draws)
    pixels = torch.rand(2, 3, 17, 22, generator=draws)
    folded = dncnn.folded()
    with torch.no_grad():
        wanted, got = dncnn.eval()(pixels), folded(pixels)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert (got - wanted).abs().max() < 1e-4 * (wanted - pixels).abs().max().clamp(min=1.0)
    assert not torch.allclose(wanted, pixels)
