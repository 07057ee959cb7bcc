"""The golden files of format 2, and the scripts that lie beside them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "2"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"format_2_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    return script("generate")


@pytest.fixture(scope="session")
def reader() -> ModuleType:
    return script("reader")


@pytest.fixture(scope="session")
def folder() -> Path:
    return FOLDER


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "expected.npz", allow_pickle=False) as held:
        return dict(held)
