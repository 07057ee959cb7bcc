"""Every entry of the zoo, loaded once, and small pictures on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm import zoo
from chiasm.pipeline import Pipeline

CODECS = sorted(name for name in zoo.ENTRIES if "@" in name)
NETWORKS = sorted(set(zoo.ENTRIES) - set(CODECS))


@pytest.fixture(scope="session")
def networks() -> list[str]:
    """Names of the entries that hold an encoder and a decoder."""
    assert len(NETWORKS) >= 2
    assert len(NETWORKS) + len(CODECS) == len(zoo.ENTRIES)
    return NETWORKS


@pytest.fixture(scope="session")
def encoders(networks):
    return {name: zoo.encoder(name) for name in networks}


@pytest.fixture(scope="session")
def decoders(networks):
    return {name: zoo.reconstructor(name) for name in networks}


@pytest.fixture(scope="session")
def pipelines(networks):
    return {name: Pipeline.load(name, precision="float32") for name in networks}


def waves(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth colours with an edge, H x W x 3 uint8: like a photograph, small."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([np.sin((x * (seed % 5 + k + 1) + y * (3 - k)) / 17.0) * 90 + 128 for k in range(3)], -1)
    values[height // 3 : height // 2, width // 4 : width // 2] += 40
    return (values + seed % 7).clip(0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Five of two padded sizes, so that some are encoded together."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = []
    for seed, size in enumerate([(40, 52), (39, 50), (40, 52), (33, 21), (38, 49)]):
        paths.append(folder / f"{seed}.png")
        Image.fromarray(waves(*size, seed)).save(paths[-1])
    return paths
