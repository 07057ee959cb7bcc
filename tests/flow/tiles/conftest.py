"""A small encoder and head whose every path is alive, and a codec of their space without shipped tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chiasm import models
from chiasm.codecs.fit import CLASSES, Plan, fresh, lookup, normalised
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Features
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.flow.tiles import PictureCoder
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.images import Picture

MakePicture = Callable[..., Picture]


def awake(module: nn.Module, size: float, seed: int) -> nn.Module:
    """The module with what starts at nothing drawn at random, so that every path through it counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return module


@pytest.fixture(scope="session")
def encoder() -> SpaceEncoder:
    return awake(models.encoder("test-space"), 0.05, 1)


@pytest.fixture(scope="session")
def head() -> ReconstructHead:
    return awake(models.reconstructor("test-space"), 0.01, 2)


@pytest.fixture(scope="session")
def make_picture() -> MakePicture:
    """make_picture((height, width), seed): smooth areas, edges and some noise."""

    def make(size: tuple[int, int], seed: int = 0) -> Picture:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[: size[0], : size[1]][..., None]
        waves = np.sin(y / 9 + random.random(3) * 6) + np.cos(x / 13 + random.random(3) * 6)
        edges = ((y // 17 + x // 23) % 2) * random.random(3)
        shade = 110 + 40 * waves + 60 * edges + random.normal(0, 4, (*size, 3))
        return Picture(np.clip(shade, 0, 255).astype(np.uint8), f"{seed:064x}", 1, "made")

    return make


@pytest.fixture(scope="session")
def encode(encoder: SpaceEncoder) -> Callable[[Tensor], Features]:
    def run(pixels: Tensor) -> Features:
        with torch.inference_mode():
            return encoder(pixels)

    return run


@pytest.fixture(scope="session")
def coder(encode: Callable[[Tensor], Features], make_picture: MakePicture) -> PictureCoder:
    """KLT and wavelet as they are fitted; one flat distribution for every symbol."""
    steps = tuple((step, step) for step in (4.0, 3.0, 2.25, 1.7, 1.3, 1.0, 0.75, 0.5))
    plan = Plan(parents=("", "context"), depths=(4, 0), steps=steps)
    pictures = [encode(make_picture((64, 64), seed).frame().pixels[None]) for seed in range(4)]
    levels = tuple(fresh(pictures, NS, index, plan, 0.5, 8) for index in range(2))
    even = normalised(np.ones((CLASSES, 20)))
    return PictureCoder(
        NS, encode, TransformCodec(Tables(NS.name, levels, np.array(steps, np.float32), even, lookup()))
    )
