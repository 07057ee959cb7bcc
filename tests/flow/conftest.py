"""Small pictures on disk, and the untrained model with the shipped tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm.flow.pipeline import Pipeline

MODEL = "test-space"


def waves(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth colours with an edge, H x W x 3 uint8: like a photograph, small."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([np.sin((x * (seed % 5 + k + 1) + y * (3 - k)) / 17.0) * 90 + 128 for k in range(3)], -1)
    values[height // 3 : height // 2, width // 4 : width // 2] += 40
    return (values + np.random.default_rng(seed).normal(0, 3, values.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """save(name, height, width, seed) -> path of a PNG in the test's own folder `photos`."""

    def write(name: str, height: int = 36, width: int = 44, seed: int = 0) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(waves(height, width, seed)).save(path)
        return path

    return write


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "photos.lance"


@pytest.fixture
def writer(store: Path):
    with Pipeline.load(MODEL, store=store, writable=True, precision="float32") as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def plain() -> Pipeline:
    """Without a store."""
    return Pipeline.load(MODEL, precision="float32")


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    error = np.mean((found.astype(float) - wanted.astype(float)) ** 2)
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


@pytest.fixture(scope="session")
def similarity() -> Callable[[np.ndarray, np.ndarray], float]:
    """PSNR in dB of two uint8 pictures."""
    return psnr
