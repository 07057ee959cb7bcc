"""Files that verbs write: their bytes, and names that cannot collide."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from chiasm.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

FORMATS: Mapping[str, Mapping[str, object]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": "4:4:4", "optimize": True},
    "webp": {"format": "WEBP", "quality": 95, "method": 4},
}
STEM_BYTES = 160  # of 255 that file systems take; the key and the suffix come after
SHORTEST = 8  # digits of a key in a file name, more when two keys begin alike


def picture_file(pixels: np.ndarray, kind: str, name: str) -> bytes:
    """H x W x 3 uint8 as the bytes of a PNG, JPEG or WebP file.

    Raises ImageError when the format cannot hold the picture (WebP ends at 16,383 pixels a side).
    """
    from PIL import Image

    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, **FORMATS[kind])  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        what = f"{name}: {' x '.join(map(str, pixels.shape[:2]))} pixels cannot be written as {kind}"
        raise ImageError(f"{what} ({error}); use png", "unsupported") from error
    return file.getvalue()


def file_names(uris: Mapping[str, tuple[str, ...]], suffix: str) -> dict[str, str]:
    """A file name for each key: the stem of its first uri and the shortest beginning of the key that no other has."""
    digits = SHORTEST
    while len({key[:digits] for key in uris}) < len(uris):
        digits += 1
    return {key: f"{_stem(names)}-{key[:digits]}.{suffix}" for key, names in uris.items()}


def _stem(uris: tuple[str, ...]) -> str:
    stem = Path(uris[0]).stem if uris else ""
    plain = "".join(c if c.isprintable() and c not in '\\/:*?"<>|' else "_" for c in stem).lstrip(".")
    return plain.encode()[:STEM_BYTES].decode(errors="ignore") or "picture"
