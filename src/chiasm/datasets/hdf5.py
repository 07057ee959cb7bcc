"""HDF5 files, read by h5py (extra `hdf5`): what is missing or damaged is an error of ours."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError, ConfigError, ImageError, MissingExtraError


def library() -> Any:
    """The module h5py. Raises MissingExtraError when it is not installed."""
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise MissingExtraError(
            'files of HDF5 are read by h5py, which is not installed; pip install "chiasm[hdf5]"'
        ) from error


@contextmanager
def hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading. Raises ConfigError when there is none, ImageError when it or a read of it fails."""
    module = library()
    if not path.is_file():
        raise ConfigError(f"{path}: expected an HDF5 file, got {'a folder' if path.is_dir() else 'nothing'} there")
    try:
        with module.File(path, "r") as file:
            yield file
    except ChiasmError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"{path}: expected a whole HDF5 file, got {reason}; copy it again", "damaged") from error


def dataset(file: Any, name: str, path: Path) -> Any:
    """The numbers called `name` in an open file, unread. Raises ConfigError when there are none."""
    found = file.get(name)
    if getattr(getattr(found, "dtype", None), "kind", "") not in ("i", "u", "f"):
        names = ", ".join(sorted(file)[:5]) or "none"
        raise ConfigError(f"{path}: expected a dataset {name!r} of numbers, got {names}; take the original file")
    return found
