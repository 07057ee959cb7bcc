"""Pictures for the camera tests, made in the test's own folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]

CFA, LINEAR = 32803, 34892


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


@pytest.fixture
def counts() -> np.ndarray:
    """40 x 60, uint16: no symmetry, from 0 to 4095."""
    values = np.random.default_rng(3).integers(0, 4096, (40, 60)).astype(np.uint16)
    values[0, 0], values[0, 1] = 0, 4095
    return values


@pytest.fixture
def save_dng(tmp_path: Path) -> Save:
    """save_dng(counts, name, ...) -> path of an uncompressed DNG; see `dng_tags` for what it may say."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("rawpy")

    def write(counts: np.ndarray, name: str = "a.dng", **said: object) -> Path:
        photometric = CFA if counts.ndim == 2 else LINEAR
        path = tmp_path / name
        tags = dng_tags(photometric == CFA, **said)
        tifffile.imwrite(
            path, counts, photometric=photometric, extratags=tags, metadata=None, software=False, byteorder="<"
        )
        return path

    return write


def dng_tags(
    mosaic: bool,
    pattern: str = "RGGB",
    black: Sequence[int] = (),
    white: int = 4095,
    neutral: Sequence[float] = (0.5, 1.0, 0.625),
    matrix: np.ndarray | None = None,
    more: Sequence[tuple[int, str, int, object]] = (),
) -> list[tuple[int, str, int, object, bool]]:
    """Tags of a DNG for tifffile. black: one or four, row by row. neutral: what grey gives the camera."""
    edge = round(len(pattern) ** 0.5)
    tags = {
        271: ("s", 0, "Maker"),
        272: ("s", 0, "Model 7"),
        50706: ("B", 4, (1, 4, 0, 0)),
        50707: ("B", 4, (1, 1, 0, 0)),
        50708: ("s", 0, "Maker Model 7"),
        50717: ("I", 1, white),
        50728: ("2I", 3, fractions(neutral)),
        50778: ("H", 1, 21),  # D65
    }
    if mosaic:
        tags[33421] = ("H", 2, (edge, edge))
        tags[33422] = ("B", edge * edge, tuple("RGB".index(colour) for colour in pattern))
    if black:
        side = round(len(black) ** 0.5)
        tags |= {50713: ("H", 2, (side, side)), 50714: ("I", len(black), tuple(black))}
    if matrix is not None:
        tags[50721] = ("2i", 9, fractions(np.ravel(matrix)))
    tags |= {tag: tuple(rest) for tag, *rest in more}
    return [(tag, *rest, True) for tag, rest in sorted(tags.items())]


def fractions(values: Sequence[float]) -> tuple[int, ...]:
    """Numerators and denominators, as TIFF keeps them."""
    exact = [Fraction(float(value)).limit_denominator(10_000) for value in values]
    return tuple(number for value in exact for number in (value.numerator, value.denominator))
