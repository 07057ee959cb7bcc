"""What LibRaw says of a RAW file's colours to a `Sensor`: white balance, matrix, noise.

counts ──black, white──► light ──gains──► balanced camera colours ──matrix──► linear sRGB
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Sensor, Triple
from chiasm.images.raw import directories
from chiasm.images.raw.directories import Directory
from chiasm.images.srgb import SRGB_TO_XYZ

if TYPE_CHECKING:
    from rawpy import RawPy

Matrix = NDArray[np.float64]

_GREATEST_GAIN = 64.0  # of a colour over green: beyond it the file is mistaken, not the light red
_GREATEST_ENTRY = 32.0  # of a matrix: beyond it noise would drown the colours
_SHOT_PER_ISO = 4e-7  # shot noise of a sensor whose pixels hold 25,000 electrons at ISO 100
_USUAL_ISO = 400.0
_NAME_LETTERS = 100


def sensor_of(raw: RawPy, found: Sequence[Directory]) -> Sensor:
    """The Sensor of an unpacked file, its pattern and levels left to the caller. found: its TIFF directories."""
    iso = _iso(raw, found)
    shot, read = noise_profile(found) or noise_of_iso(iso)
    is_dng = bool(found) and directories.DNG_VERSION in found[0].fields
    return Sensor(_gains(raw), _matrix(raw, is_dng), shot, read, camera_name(found), iso)


def gains_from(multipliers: Sequence[float]) -> Triple | None:
    """Multipliers of red, green, blue with green at 1; None when they cannot be a white balance."""
    red, green, blue = (float(value) for value in multipliers[:3])
    if not all(math.isfinite(value) and value > 0 for value in (red, green, blue)):
        return None
    gains = red / green, 1.0, blue / green
    return gains if all(1 / _GREATEST_GAIN <= gain <= _GREATEST_GAIN for gain in gains) else None


def matrix_from_xyz(camera_from_xyz: NDArray[np.floating]) -> Matrix | None:
    """Balanced camera colours to linear sRGB, 3 x 3, from the matrix (3 x 3) that takes XYZ to camera colours.

    What the camera gives for sRGB's white (D65) is scaled to 1, 1, 1 before the inversion: the gains do the same to
    the white of the scene, so that white meets white. None when there is no such matrix.
    """
    camera_from_srgb = camera_from_xyz.astype(np.float64) @ SRGB_TO_XYZ
    white = camera_from_srgb.sum(1, keepdims=True)  # 3 1
    if not np.isfinite(white).all() or (white <= 1e-6).any():
        return None
    try:
        return grey_kept(np.linalg.inv(camera_from_srgb / white))
    except np.linalg.LinAlgError:
        return None


def grey_kept(matrix: Matrix) -> Matrix | None:
    """The matrix with each row divided by its sum, so that grey stays grey; None when it is no colour matrix."""
    sums = matrix.sum(1, keepdims=True)  # 3 1
    if not np.isfinite(matrix).all() or (sums <= 1e-6).any():
        return None
    kept: Matrix = matrix / sums
    return kept if np.abs(kept).max() <= _GREATEST_ENTRY and np.linalg.matrix_rank(kept) == 3 else None


def noise_of_iso(iso: float) -> tuple[float, float]:
    """Shot and read noise, white being 1, of a usual sensor.

    shot = 4e-7 ISO (one electron in 25,000 at ISO 100, and as many fewer as the gain is higher), log read = 2.18 log
    shot + 1.20 (the line through cameras of Brooks et al., arXiv:1811.11127). Unknown ISO counts as 400.
    """
    shot = _SHOT_PER_ISO * min(max(iso or _USUAL_ISO, 25.0), 819_200.0)
    return shot, math.exp(2.18 * math.log(shot) + 1.20)


def noise_profile(found: Sequence[Directory]) -> tuple[float, float] | None:
    """Shot and read noise that a DNG gives, the mean of its colours; None when it gives none that can be."""
    for directory in found:
        values = directory.numbers(directories.NOISE_PROFILE)
        if len(values) in (2, 6, 8):
            shot, read = (math.fsum(values[at::2]) / len(values[at::2]) for at in (0, 1))
            if 0 < shot < 1 and 0 <= read < 1:
                return shot, read
    return None


def camera_name(found: Sequence[Directory]) -> str:
    """Maker and model as the file's first directory has them; empty when it has none."""
    if not found:
        return ""
    make, model = found[0].text(directories.MAKE), found[0].text(directories.MODEL)
    known = model.lower().startswith(make.lower().split()[0]) if make else True  # "Canon", "Canon EOS R5"
    name = model if known else f"{make} {model}"
    return (name.strip() or found[0].text(directories.UNIQUE_MODEL))[:_NAME_LETTERS]


def _gains(raw: RawPy) -> Triple:
    """As the camera balanced the shot, else for daylight, else none at all."""
    return gains_from(raw.camera_whitebalance) or gains_from(raw.daylight_whitebalance) or (1.0, 1.0, 1.0)


def _matrix(raw: RawPy, is_dng: bool) -> tuple[Triple, Triple, Triple]:
    """From XYZ as LibRaw's table knows the camera, or as the file itself says: a DNG's own word goes first.

    LibRaw leaves a DNG's matrices composed and balanced already in `color_matrix`.
    """
    from_table = matrix_from_xyz(np.asarray(raw.rgb_xyz_matrix)[:3])
    from_file = grey_kept(np.asarray(raw.color_matrix, np.float64)[:, :3])
    first, second = (from_file, from_table) if is_dng else (from_table, from_file)
    matrix = first if first is not None else second
    return rows_of(np.eye(3) if matrix is None else matrix)


def rows_of(matrix: Matrix) -> tuple[Triple, Triple, Triple]:
    """A 3 x 3 array as tuples."""
    red, green, blue = ((float(row[0]), float(row[1]), float(row[2])) for row in matrix)
    return red, green, blue


def _iso(raw: RawPy, found: Sequence[Directory]) -> float:
    try:
        iso = float(raw.other.iso_speed)
    except (AttributeError, ValueError, OverflowError, OSError):
        # Old rawpy has no `other`; newer reads the date along with it, and the date may be absurd.
        iso = 0.0
    if not 0 < iso < 1e7:
        iso = next((values[0] for d in found if (values := d.numbers(directories.ISO))), 0.0)
    return float(iso) if 0 < iso < 1e7 else 0.0
