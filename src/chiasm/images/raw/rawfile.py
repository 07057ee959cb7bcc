"""The file of a camera's sensor to a Mosaic, through LibRaw.

    bytes ──LibRaw header──► size, within limits ──unpack──► counts ──upright, phase──► RGGB ──► Mosaic
                                                          └─three colours each──► develop ──► photograph

LibRaw only unpacks: nothing here demosaics, balances or brightens. It is C++ and reads hundreds of formats, so hostile
files belong in a DecoderPool.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Sensor
from chiasm.errors import ImageError, Reason
from chiasm.images import capture, container
from chiasm.images.limits import Limits, refuse_size
from chiasm.images.picture import Picture
from chiasm.images.raw import calibration, cells, develop, directories
from chiasm.images.raw.directories import Directory
from chiasm.images.raw.mosaic import Mosaic, Shot

if TYPE_CHECKING:
    from rawpy import RawPy

_RAF_MODEL, _RAF_PREVIEW = 28, 84  # where a RAF's header names the camera, in 32 bytes, and the place of its JPEG
_BEYOND = "Input/output error"  # what LibRaw says of places that a file has not, though no disk is at fault
# by name, because rawpy is imported late and its older versions lack some
_UNSUPPORTED = {
    "LibRawFileUnsupportedError",
    "LibRawNotImplementedError",
    "LibRawRequestForNonexistentImageError",
    "LibRawOutOfOrderCallError",
    "NotSupportedError",
    "NotImplementedError",
}
_TOO_LARGE = {"LibRawTooBigError", "LibRawUnsufficientMemoryError", "LibRawMemPoolOverflowError", "MemoryError"}


def read(file: BinaryIO, kind: container.Format, name: str, limits: Limits) -> Shot:
    """The Mosaic in a RAW file, without its digest; a Picture when each pixel has all three colours already.

    Raises ImageError: unsupported (no rawpy, an unknown camera, a mosaic that is not Bayer's), too-large, truncated,
    damaged.
    """
    if kind == "X3F":
        raise cells.other_pattern(name, "Foveon (three layers)")
    library = _library(name)
    try:
        file.seek(0)
        with library.RawPy() as raw:
            raw.open_buffer(file)
            refuse_size(raw.sizes.raw_height, raw.sizes.raw_width, name, limits)
            _expect_counts(file, kind, name)
            raw.unpack()
            found = _directories(file, kind)
            sensor = calibration.sensor_of(raw, found)
            taken = _mosaic if raw.raw_type == library.RawType.Flat else _photograph
            shot = taken(raw, sensor, found, name)
            return replace(shot, capture=capture.capture_of([*found, *_exif(file, kind)], shot.size))
    except ImageError:
        raise
    except Exception as error:  # rawpy's own, RuntimeError, and numpy's about arrays that cannot be
        if isinstance(error, OSError) and error.errno:  # the disk's; those of LibRaw carry no number
            raise
        raise _failure(file, kind, name, error) from error


def count_pixels(file: BinaryIO) -> int:
    """Height times width of the sensor as the header says. Raises whatever LibRaw does."""
    file.seek(0)
    with _library("").RawPy() as raw:
        raw.open_buffer(file)
        return int(raw.sizes.raw_height) * int(raw.sizes.raw_width)


def _library(name: str) -> ModuleType:
    """rawpy, imported with one thread for its own OpenMP.

    OpenMP's threads do not outlive a fork, and whoever decodes in the child would wait for them for ever; a team of
    one is never waited for. The variable counts while the library loads, and is the user's again after.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(
            f'{name}: reading a RAW file needs rawpy, which is not here; pip install "chiasm[raw]", then --retry',
            "unsupported",
        ) from error
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return rawpy


def _directories(file: BinaryIO, kind: container.Format) -> list[Directory]:
    """What the file says of its camera, the first directory being the picture's own."""
    if kind == "CR3":  # a TIFF within a box of its own, near the beginning
        file.seek(0)
        return directories.read(BytesIO(file.read(2**16).partition(b"CMT1")[2]))
    if kind == "MRW":  # likewise
        file.seek(0)
        return directories.read(BytesIO(file.read(2**16).partition(b"\0TTW")[2][4:]))
    if kind == "RAF":
        file.seek(_RAF_MODEL)
        return [Directory(">", {directories.MAKE: (2, b"Fujifilm"), directories.MODEL: (2, file.read(32))})]
    return directories.read(file)


def _exif(file: BinaryIO, kind: container.Format) -> list[Directory]:
    """Directories with the facts of capture, of formats that keep them apart from those of `_directories`."""
    if kind == "CR3":  # a TIFF of its own, whose first directory is EXIF's
        file.seek(0)
        return directories.read(BytesIO(file.read(2**16).partition(b"CMT2")[2]))
    if kind == "RAF":  # in the JPEG of its preview
        file.seek(_RAF_PREVIEW)
        file.seek(int.from_bytes(file.read(4), "big"))
        return capture.directories_of(file.read(2**16).partition(capture.EXIF_PREFIX)[2])
    return []


def _expect_counts(file: BinaryIO, kind: container.Format, name: str) -> None:
    """Raises ImageError (truncated, damaged) when the counts are not where the file says."""
    if fault := container.fault_of_counts(file, kind):
        why = {"truncated": "its counts lie beyond its end", "damaged": "its counts are no JPEG, as they should be"}
        raise _broken(kind, name, why[fault], fault)


def _mosaic(raw: RawPy, sensor: Sensor, found: Sequence[Directory], name: str) -> Mosaic:
    cell = _cell(raw, name)  # 2 2
    pattern = bytes(raw.color_desc[colour] for colour in cell.flat).decode("latin-1")
    levels = raw.black_level_per_channel
    black = [float(levels[colour]) for colour in cell.flat]
    white, flip = _white(raw, found, name), _flip(raw, found)
    return cells.mosaic_of(_visible(raw, name), pattern, black, white, sensor, name, flip)


def _cell(raw: RawPy, name: str) -> NDArray[np.int64]:
    """The colours, as LibRaw numbers them, of the visible mosaic's first 2 x 2 pixels."""
    pattern = raw.raw_pattern
    if pattern is None or pattern.shape == (1, 1):
        raise cells.other_pattern(name, "one colour (monochrome)")
    height, width = pattern.shape
    if (height, width) != (2, 2):
        raise cells.other_pattern(name, ("X-Trans, " if height == 6 else "") + f"{height} x {width} cells")
    if pattern.max() >= len(raw.color_desc):
        raise cells.other_pattern(name, "colours without names")
    # the pattern begins at the sensor's corner, which lies outside the visible part
    return np.roll(pattern, (-raw.sizes.top_margin, -raw.sizes.left_margin), (0, 1)).astype(np.int64)


def _photograph(raw: RawPy, sensor: Sensor, found: Sequence[Directory], name: str) -> Picture:
    counts, white = _visible(raw, name), _white(raw, found, name)
    if counts.ndim != 3 or counts.shape[2] < 3 or raw.num_colors != 3:
        raise cells.other_pattern(name, f"{raw.num_colors} colours for each pixel")
    red, green, blue = (float(level) for level in raw.black_level_per_channel[:3])
    cells.check_levels(counts, (red, green, blue), white, name)
    pixels = develop.developed(counts, (red, green, blue), white, sensor)
    told = replace(sensor, pattern=develop.LINEAR, black=(red, green, green, blue), white=white)
    return Picture(np.ascontiguousarray(cells.upright(pixels, _flip(raw, found))), sensor=told)


def _visible(raw: RawPy, name: str) -> NDArray[np.uint16]:
    """The counts within the margins, H x W or H x W x 3 or 4: a view of LibRaw's own memory."""
    counts = raw.raw_image_visible
    wanted = raw.sizes.height, raw.sizes.width
    if counts.shape[:2] != wanted or 0 in wanted:
        got = " x ".join(map(str, counts.shape[:2]))
        raise ImageError(f"{name}: expected {wanted[0]} x {wanted[1]} counts, got {got}; copy it again", "damaged")
    return counts


def _white(raw: RawPy, found: Sequence[Directory], name: str) -> float:
    """The count of a full sensor. LibRaw takes a white level of zero for none and guesses; here it is an error."""
    said = [value for directory in found for value in directory.numbers(directories.WHITE_LEVEL)]
    if said and not max(said) > 0:
        raise ImageError(f"{name}: expected a white level above 0, got {max(said):g}; export it again", "damaged")
    return float(raw.white_level)


def _flip(raw: RawPy, found: Sequence[Directory]) -> int:
    """How LibRaw would turn it; an orientation of 0 means unknown, which LibRaw takes for a quarter turn."""
    unknown = bool(found) and found[0].numbers(directories.ORIENTATION)[:1] == (0,)
    return 0 if unknown or raw.sizes.flip not in range(8) else raw.sizes.flip


def _failure(file: BinaryIO, kind: container.Format, name: str, error: Exception) -> ImageError:
    """The ImageError for what rawpy raised, with the most useful word."""
    kinds = {parent.__name__ for parent in type(error).__mro__}
    said = error.args[0] if error.args else ""
    words = said.decode("latin-1") if isinstance(said, bytes) else str(error)
    what = "data missing or corrupt" if words == _BEYOND else " ".join(words.split())[:200] or type(error).__name__
    if kinds & _TOO_LARGE:
        return ImageError(f"{name}: too large to decode here ({what}); make it smaller", "too-large")
    cut = False
    with suppress(OSError, ValueError):  # the reason stays the general one
        cut = container.is_cut_short(file, kind)
    if kinds & _UNSUPPORTED and not cut:
        return ImageError(f"{name}: a {kind} layout that LibRaw cannot read ({what}); convert it to DNG", "unsupported")
    return _broken(kind, name, what, "truncated" if cut else "damaged")


def _broken(kind: container.Format, name: str, why: str, reason: Reason) -> ImageError:
    verb = "ends too early" if reason == "truncated" else "is damaged"
    return ImageError(f"{name}: this {kind} file {verb} ({why}); copy it from the camera again", reason)
