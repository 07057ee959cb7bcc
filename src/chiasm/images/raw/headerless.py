"""Counts without any header (`scene.raw`) beside a description of them (`scene.toml`) to a Mosaic.

width = 768               # of the counts, row by row, without padding
height = 512
cfa = "RGGB"              # colours of the first 2 x 2 pixels, row by row
bits = 14                 # 8 or fewer: a byte each; 9 to 16: two bytes each; 16 when not given
black = 616               # or four, in the order of cfa; 0 when not given
white = 16383             # 2^bits - 1 when not given
gains = [2.0, 1.0, 1.5]   # white balance of red, green, blue; 1 when not given
matrix = [[1.6, -0.5, -0.1], [-0.2, 1.5, -0.3], [0.0, -0.5, 1.5]]   # balanced camera to linear sRGB
iso = 100
camera = "Nikon D90"
order = "little"          # or "big"
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chiasm.contracts import Sensor, Stat
from chiasm.errors import ImageError, nearest
from chiasm.images.limits import Limits, refuse_size
from chiasm.images.picture import uri_of
from chiasm.images.raw import calibration, cells
from chiasm.images.raw.mosaic import Mosaic

SUFFIX, DESCRIPTION = ".raw", ".toml"

_KEYS = frozenset({"width", "height", "bits", "cfa", "black", "white", "gains", "matrix", "iso", "camera", "order"})
_REQUIRED = ("width", "height", "cfa")
_MOST_BYTES = 2**16  # of a description
_GREATEST = 1e9  # of any number; more is a slip, and NaN is not less
_IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def is_described(path: Path) -> bool:
    """Whether the path is that of headerless counts: a .raw with its description beside it."""
    return path.suffix.lower() == SUFFIX and os.path.isfile(path.with_suffix(DESCRIPTION))  # noqa: PTH113, Path.is_file raises


def describes(path: Path) -> bool:
    """Whether the path is that of a description with its counts beside it, whatever the case of their suffix."""
    return any(os.path.isfile(path.with_suffix(suffix)) for suffix in (SUFFIX, SUFFIX.upper()))  # noqa: PTH113


def stat_of(path: Path) -> Stat | None:
    """Size and modification time in ns of a file, None when there is none.

    Of headerless counts those of their description count too: other words make another picture.
    """
    try:
        found = path.stat()
        if not is_described(path):
            return found.st_size, found.st_mtime_ns
        told = path.with_suffix(DESCRIPTION).stat()
    except (OSError, ValueError):
        return None
    return found.st_size + told.st_size, found.st_mtime_ns ^ told.st_mtime_ns << 1


def undescribed(path: Path, name: str) -> ImageError:
    """The error for counts without a description."""
    return ImageError(
        f"{name}: expected a description of the counts in {uri_of(path.with_suffix(DESCRIPTION).name)}, got none; "
        f"write one with {', '.join(_REQUIRED)}",
        "unsupported",
    )


def read(file: BinaryIO, path: Path, name: str, limits: Limits) -> Mosaic:
    """The Mosaic in the counts, its digest over both files.

    Raises ImageError: damaged (the description is wrong, or not of these counts), too-large, unsupported.
    """
    text = _text(path, name)
    told = _Description(text, f"{name} ({uri_of(path.with_suffix(DESCRIPTION).name)})")
    width, height = told.whole("width", 0, 2**24), told.whole("height", 0, 2**24)
    refuse_size(height, width, name, limits)
    bits, cfa, white = told.whole("bits", 16, 16), told.text("cfa", "").upper(), told.numbers("white", 0.0, 1)[0]
    order = told.text("order", "little")
    if order not in ("little", "big"):
        raise told.refused(f"order: expected 'little' or 'big', got {order!r}")
    item = np.dtype(np.uint8) if bits <= 8 else np.dtype("<u2" if order == "little" else ">u2")
    wanted, found = width * height * item.itemsize, file.seek(0, os.SEEK_END)
    if found != wanted:
        raise told.refused(
            f"expected {wanted} bytes ({width} x {height} of {item.itemsize}), got {found}; "
            "correct width, height or bits"
        )
    file.seek(0)
    data = file.read(wanted)
    counts = np.frombuffer(data, item).reshape(height, width).astype(np.uint16)
    black = told.numbers("black", 0.0, 4)
    mosaic = cells.mosaic_of(counts, cfa, black, white or 2.0**bits - 1, _sensor(told), name)
    return replace(mosaic, digest=_digest(data, text))


def _digest(data: bytes, text: bytes) -> str:
    """sha256 of both files' sha256: other words about the same counts make another picture."""
    return hashlib.sha256(hashlib.sha256(data).digest() + hashlib.sha256(text).digest()).hexdigest()


def _text(path: Path, name: str) -> bytes:
    try:
        with path.with_suffix(DESCRIPTION).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise undescribed(path, name) from error
    if len(text) > _MOST_BYTES:
        raise ImageError(f"{name}: expected at most {_MOST_BYTES} bytes of description, got more", "damaged")
    return text


def _sensor(told: _Description) -> Sensor:
    gains = calibration.gains_from(told.numbers("gains", 1.0, 3))
    if gains is None:
        raise told.refused(f"gains: expected three near 1 and above 0, got {told.values['gains']}")
    matrix = calibration.grey_kept(np.array(told.numbers("matrix", _IDENTITY, 9)).reshape(3, 3))
    if matrix is None:
        raise told.refused(f"matrix: expected 3 x 3 with an inverse and rows above 0, got {told.values['matrix']}")
    iso = told.numbers("iso", 0.0, 1)[0]
    shot, noise = calibration.noise_of_iso(iso)
    return Sensor(gains, calibration.rows_of(matrix), shot, noise, told.text("camera", ""), max(iso, 0.0))


class _Description:
    """The values of a TOML, each checked when it is taken. name: the file's, for errors."""

    def __init__(self, text: bytes, name: str) -> None:
        self.name = name
        try:
            self.values: Mapping[str, Any] = tomllib.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
            raise self.refused(f"expected TOML, got {' '.join(str(error).split())[:200]}") from error
        for key in self.values:
            if key not in _KEYS:
                raise self.refused(f"unknown key {key!r}; {nearest(key, _KEYS)}")
        for key in _REQUIRED:
            if key not in self.values:
                raise self.refused(f"expected the keys {', '.join(_REQUIRED)}, got no {key!r}; add it")

    def refused(self, what: str) -> ImageError:
        return ImageError(f"{self.name}: {what}", "damaged")

    def whole(self, key: str, default: int, greatest: int) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= greatest:
            raise self.refused(f"{key}: expected a whole number from 1 to {greatest}, got {value!r}")
        return value

    def numbers(self, key: str, default: object, count: int) -> list[float]:
        """`count` finite numbers, in one list or in rows; a bare number stands for all of them."""
        value = self.values.get(key, default)
        given = value if isinstance(value, list) else [value] * count
        flat = [item for row in given for item in (row if isinstance(row, list) else [row])]
        good = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in flat)
        if not good or len(flat) != count or not all(abs(item) < _GREATEST for item in flat):
            raise self.refused(f"{key}: expected {count} finite numbers, got {str(value)[:100]}")
        return [float(item) for item in flat]

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.refused(f"{key}: expected text, got {str(value)[:100]}")
        return value[:100]
