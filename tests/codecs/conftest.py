"""Small codecs: the goldens' tables, which have every part that tables can have."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from chiasm.codecs.bands import Bands, band_shapes
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec

GOLDENS = Path(__file__).parents[1] / "formats" / "2"
Integers = dict[str, Bands]  # of one picture, by level
MakeSymbols = Callable[..., Integers]


@pytest.fixture(scope="session")
def folder() -> Path:
    return GOLDENS


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("format_2_generate", GOLDENS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tables() -> Tables:
    return Tables.read((GOLDENS / "tables.bin").read_bytes())


@pytest.fixture(scope="session")
def codec(tables: Tables) -> TransformCodec:
    return TransformCodec(tables)


@pytest.fixture(scope="session")
def make_symbols(tables: Tables) -> MakeSymbols:
    """make_symbols(size, seed, scale, density): Laplacian symbols of both levels, some zero."""

    def make(size: tuple[int, int], seed: int = 0, scale: float = 2.0, density: float = 0.5) -> Integers:
        random = np.random.default_rng(seed)
        found: Integers = {}
        for level in tables.levels:
            found[level.name] = []
            for shape in band_shapes(level, (size[0] // level.stride, size[1] // level.stride)):
                values = np.clip(np.round(random.laplace(0, scale, shape)), -66_055, 66_055)
                found[level.name].append((values * (random.random(shape) < density)).astype(np.int32))
        return found

    return make
