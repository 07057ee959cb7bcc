"""Synthetic records (see writer.py) and stores filled with them."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from chiasm.store import LanceStore, open_store

WRITER = Path(__file__).with_name("writer.py")
MADE = SimpleNamespace(**runpy.run_path(str(WRITER)))


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """record(number), tokens(number), key_of(number), SPACE, LEVELS and TOKENS."""
    return MADE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "photos.lance"


@pytest.fixture
def store(path: Path) -> Iterator[LanceStore]:
    with open_store(path, "w") as opened:
        opened.declare(MADE.SPACE)
        yield opened


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """A closed store of so many commits of so many records each, made once for all tests."""
    folder = tmp_path_factory.mktemp("filled")

    def make(commits: int, size: int) -> Path:
        path = folder / f"{commits}-{size}.lance"
        if not path.exists():
            with open_store(path, "w") as opened:
                opened.declare(MADE.SPACE)
                for start in range(0, commits * size, size):
                    opened.put([MADE.record(number) for number in range(start, start + size)])
        return path

    return make


@pytest.fixture
def fill(path: Path, filled: Callable[[int, int], Path]) -> Callable[[int, int], Path]:
    """Make a test's own copy of such a store at `path`."""
    return lambda commits, size: Path(shutil.copytree(filled(commits, size), path))
