"""The recipe `denoise`: its noise, its two networks, and that both learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from chiasm import models
from chiasm.datasets.pictures import PictureSet
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.heads.denoise import DenoiseHead
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.training.recipes.denoise import DenoiseConfig, DenoiseRecipe, PixelDenoiser, SpaceDenoiser, noisy

CPU = torch.device("cpu")


def space() -> nn.Module:
    head = DenoiseHead(NS, 8)
    head.begin(ReconstructHead(NS, 8).state_dict())
    return SpaceDenoiser(SpaceEncoder("rgb", 8), models.codec("ns-1"), head)


def pixels() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

        def forward(self, x):
            return x + self.layers(x)

    return PixelDenoiser(Residual())


@pytest.fixture(params=[space, pixels])
def recipe(request):
    torch.manual_seed(0)
    y, x = np.mgrid[0:64, 0:64]
    picture = np.stack([np.sin(x / 9 + k) * 60 + y + 60 for k in range(3)], -1).astype(np.uint8)
    held = PictureSet((picture,))
    return DenoiseRecipe(DenoiseConfig(steps=4, batch=4, crop=32, quietest=20.0), (held,), held, request.param())


def test_noise_has_its_sigma_and_is_what_a_file_would_hold():
    grey = torch.full((2, 3, 64, 64), 0.5)
    seen = noisy(grey, torch.tensor([0.0, 25.0]), torch.Generator().manual_seed(0))
    assert torch.equal((seen * 255).round(), seen * 255)
    assert (seen[0] - grey[0]).abs().max() < 1 / 255
    assert 255 * seen[1].std() == pytest.approx(25.0, rel=0.03)
    white = noisy(torch.ones(1, 3, 8, 8), torch.tensor([50.0]), torch.Generator().manual_seed(0))
    assert white.max() == 1


def test_both_networks_learn(recipe):
    module = recipe.modules()
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, 3e-3)
    losses = []
    for step in range(24):
        terms = recipe.step(module, torch.Generator().manual_seed(step % 2), step, CPU)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    assert recipe.evaluate(module.eval(), None, 4)["psnr"] > 10


def test_the_encoder_is_frozen_and_coded_features_differ():
    torch.manual_seed(0)
    module = space()
    assert not any(parameter.requires_grad for parameter in module.encoder.parameters())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain, rough = (module(x, torch.tensor([quality, quality])) for quality in (0, 2))
        half = module(x, torch.tensor([0, 2]))
    assert (plain - rough).abs().max() > 0.01
    torch.testing.assert_close(half[0], plain[0])
    torch.testing.assert_close(half[1], rough[1])
