"""Pictures for the camera tests, made in the test's own folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def photo() -> np.ndarray:
    """48 x 64 x 3, uint8: no symmetry, all three colours different, smooth enough for lossy formats."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([4 * x, 255 - 5 * y, 2 * (x + y) % 256], -1).astype(np.uint8)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save(image, name, **options of Pillow) -> path."""

    def write(image: np.ndarray | Image.Image, name: str, **options: object) -> Path:
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
        return path

    return write


@pytest.fixture
def strange(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module strange_decoders, importable by name here and so in the workers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import strange_decoders

    yield strange_decoders
    sys.modules.pop("strange_decoders")
