"""What a file says of how its picture was taken: time, camera, focal length.

    EXIF block, TIFF or RAW file ──directories, within bounds──► tags ──► Capture

Facts that are absent, damaged or absurd are unknown; none of them ever costs a picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import BytesIO

from chiasm.contracts import Capture
from chiasm.images.raw import calibration, directories
from chiasm.images.raw.directories import Directory

EXIF_PREFIX = b"Exif\0\0"
FRAME_DIAGONAL = math.hypot(36.0, 24.0)  # mm, of 35 mm film: 43.27

_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
_UNITS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # mm, by FocalPlaneResolutionUnit: inch, cm, mm, micrometre
_FOCAL_35MM = (4.0, 4000.0)  # mm: outside of it the file is mistaken
_SENSOR_DIAGONAL = (1.0, 200.0)  # mm


def directories_of(exif: bytes) -> list[Directory]:
    """The directories in an EXIF block, with or without the six bytes before it; none when it is damaged."""
    return directories.read(BytesIO(exif.removeprefix(EXIF_PREFIX)))


def capture_of(found: Sequence[Directory], size: tuple[int, ...]) -> Capture:
    """The facts in these directories, the picture's own first. size: its height and width, turned or not."""
    return Capture(_time(found), calibration.camera_name(found), _focal_35mm(found, size))


def _time(found: Sequence[Directory]) -> str:
    """When the shutter opened: DateTimeOriginal. DateTime, when the file was last changed, is another time."""
    text = next((text for each in found if (text := each.text(directories.TAKEN))), "")
    parts = _TIME.fullmatch(text)
    if parts is None:
        return ""
    year, month, day, hour, minute, second = map(int, parts.groups())
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return ""  # cameras whose clock is not set write zeros
    return "{}-{}-{}T{}:{}:{}".format(*parts.groups())


def _focal_35mm(found: Sequence[Directory], size: tuple[int, ...]) -> float:
    """As the file says it, else from the focal length and the size of the sensor."""
    said = _number(found, directories.FOCAL_LENGTH_35MM)
    value = said if _within(said, _FOCAL_35MM) else _computed(found, size)
    return round(value, 2) if _within(value, _FOCAL_35MM) else 0.0


def _computed(found: Sequence[Directory], size: tuple[int, ...]) -> float:
    """Focal length times the diagonal of film over that of the sensor, which is its pixels over their density."""
    focal = _number(found, directories.FOCAL_LENGTH)
    unit = _UNITS.get(int(_number(found, directories.FOCAL_PLANE_UNIT)), _UNITS[2])
    across, down = _number(found, directories.FOCAL_PLANE_X), _number(found, directories.FOCAL_PLANE_Y)
    # The pixels that the densities count are those of the camera's picture, as EXIF gives them: this one may be turned.
    width = _number(found, directories.WIDTH) or max(size[:2])
    height = _number(found, directories.HEIGHT) or min(size[:2])
    if not (focal > 0 and across > 0):
        return 0.0
    diagonal = math.hypot(width / across, height / (down if down > 0 else across)) * unit
    return focal * FRAME_DIAGONAL / diagonal if _within(diagonal, _SENSOR_DIAGONAL) else 0.0


def _number(found: Sequence[Directory], tag: int) -> float:
    """The first value of a tag in any directory; 0 when there is none that is a number."""
    values = (float(values[0]) for each in found if (values := each.numbers(tag)))
    return next((value for value in values if math.isfinite(value)), 0.0)


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
