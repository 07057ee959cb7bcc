"""Generated pictures and spaces whose scores are known by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Features
from chiasm.evaluation.protocols.pictures import Picture

MakePicture = Callable[[int, tuple[int, int]], Picture]
CELLS = {"context": 4, "detail": 2}


@pytest.fixture(scope="session")
def make_picture() -> MakePicture:
    """A seeded picture with smooth areas, edges and texture: what a codec needs to have a curve."""

    def make(seed: int, size: tuple[int, int] = (96, 128)) -> Picture:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 5, 6, generator=generator)
        smooth = F.interpolate(coarse, size, mode="bicubic", align_corners=False)
        edges = (F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), size) - 0.5) * 0.3
        texture = torch.randn(1, 3, *size, generator=generator) * 0.02
        values = (smooth + edges + texture).clamp(0, 1)[0]
        return Picture(f"made {seed}", (values * 255).round().to(torch.uint8))

    return make


@pytest.fixture(scope="session")
def pictures(make_picture: MakePicture) -> list[Picture]:
    """Three, one of them upright."""
    return [make_picture(0, (96, 128)), make_picture(1, (96, 128)), make_picture(2, (128, 96))]


def averaged(pixels: Tensor) -> Features:
    """Average pooling: exactly equivariant to flips, quarter turns and whole cells of translation."""
    return {level: F.avg_pool2d(pixels, stride) for level, stride in CELLS.items()}


def half_off(pixels: Tensor) -> Features:
    """The same, every cell looking one pixel to the right: its place is wrong by a part of a cell."""
    return averaged(F.pad(pixels, (0, 1, 0, 0), mode="replicate")[..., 1:])


def enlarged(features: Features) -> Tensor:
    """The decoder of `averaged`: the finest level there is, bilinearly enlarged."""
    level = "detail" if "detail" in features else "context"
    return F.interpolate(
        features[level], scale_factor=CELLS[level], mode="bilinear", align_corners=False
    )


@pytest.fixture
def exact_encoder() -> Callable[[Tensor], Features]:
    return averaged


@pytest.fixture
def offset_encoder() -> Callable[[Tensor], Features]:
    return half_off


@pytest.fixture
def decoder() -> Callable[[Features], Tensor]:
    return enlarged
