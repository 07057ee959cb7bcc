"""A recipe of five parameters for the loop's own laws, and a tiny one of the recipe `space`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from chiasm.datasets.pictures import PictureSet
from chiasm.training.loop import Where
from chiasm.training.recipes.space import SpaceConfig, SpaceRecipe

HERE = Where("cpu", 1, "32-true")
TINY = {"steps": 6, "batch": 3, "crop": 64, "warmup": 2, "validate_every": 1000, "save_every": 3}


@dataclass(frozen=True)
class ToyConfig:
    steps: int = 8
    rate: float = 0.05
    warmup: int = 2
    decay: float = 0.9
    weight_decay: float = 0.01
    seed: int = 1
    validate_every: int = 4
    save_every: int = 4
    pair: tuple[float, ...] = (1.0, 2.0)  # JSON makes a list of it, and a run must still resume


class ToyRecipe:
    """A line through noisy points. `breaks_at`: the step whose loss is not a number; `before`: called at each step."""

    def __init__(self, config: ToyConfig, breaks_at: int = -1, before: Callable[[int], None] | None = None) -> None:
        self.config, self.breaks_at, self.before = config, breaks_at, before
        self.evaluated: list[int] = []

    def modules(self) -> nn.Module:
        return nn.Linear(4, 1)

    def pace(self, name: str) -> float:
        return 2.0 if name == "bias" else 1.0

    def step(self, module, draws, step, device):
        if self.before:
            self.before(step)
        x = torch.rand(16, 4, generator=draws).to(device)
        x = x * (torch.rand(16, 4).to(device) > 0.01)  # as dropout does: from the generator that everybody shares
        loss = (module(x) - x.sum(1, keepdim=True) - 1).square().mean()
        return {"loss": loss * (float("nan") if step == self.breaks_at else 1.0)}

    def evaluate(self, module, folder, step):
        assert not module.training
        self.evaluated.append(step)
        return {"bias": float(module.bias.detach())}


@pytest.fixture(scope="session")
def toy() -> type[ToyRecipe]:
    return ToyRecipe


@pytest.fixture(scope="session")
def toy_config() -> type[ToyConfig]:
    return ToyConfig


def generated(seed: int, height: int = 96, width: int = 112) -> np.ndarray:
    """Smooth colours, edges and a little noise, H x W x 3 uint8."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([np.sin((x * noise.uniform(0.2, 3) + y * noise.uniform(-3, 3)) / 9) for _ in range(3)], -1)
    values = 128 + 80 * values
    top, left = noise.integers(0, 50, 2)
    values[top : top + 30, left : left + 40] += noise.uniform(-90, 90, 3)
    return (values + noise.normal(0, 4, values.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def small() -> Callable[..., SpaceRecipe]:
    """small(**config) -> the recipe `space` on generated pictures: crops of 64, three in a batch."""
    pictures = PictureSet(tuple(generated(seed) for seed in range(4)))

    def make(**given) -> SpaceRecipe:
        return SpaceRecipe(SpaceConfig(**{**TINY, **given}), (pictures,), PictureSet((generated(9),)))

    return make


@pytest.fixture(scope="session")
def here() -> Where:
    """One processor, float32: bit-exact."""
    return HERE


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
