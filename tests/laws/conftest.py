"""Every model, loaded once, and small pictures on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chiasm import models
from chiasm.flow.pipeline import Pipeline

CODECS = sorted(name for name in models.ENTRIES if "@" in name)
HEADS = sorted(name for name, entry in models.ENTRIES.items() if entry.tasks)
NETWORKS = sorted(set(models.ENTRIES) - set(CODECS) - set(HEADS))
PHOTOGRAPHIC = [name for name in NETWORKS if models.ENTRIES[name].accepts == "rgb"]


@pytest.fixture(scope="session")
def networks() -> list[str]:
    """Names of the entries that hold an encoder."""
    assert len(NETWORKS) >= 3
    assert len(NETWORKS) + len(CODECS) + len(HEADS) == len(models.ENTRIES)
    return NETWORKS


@pytest.fixture(scope="session")
def photographic(networks) -> list[str]:
    """Those that read photographs, and hold the decoder of their space."""
    assert 2 <= len(PHOTOGRAPHIC) < len(networks)
    return PHOTOGRAPHIC


@pytest.fixture(scope="session")
def encoders(networks):
    return {name: models.encoder(name) for name in networks}


@pytest.fixture(scope="session")
def decoders(networks, photographic):
    """What draws from the features of each encoder: its own decoder, or that of the encoder it is the partner of."""
    owner = {models.ENTRIES[name].raw: name for name in photographic}
    return {name: models.reconstructor(name if name in photographic else owner[name]) for name in networks}


@pytest.fixture(scope="session")
def pipelines(photographic):
    return {name: Pipeline.load(name, precision="float32") for name in photographic}


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
