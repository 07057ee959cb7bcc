"""A decoded photograph, kept as small as it can be until a head needs floats."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Capture, Frame, Kind, Sensor
from chiasm.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Picture:
    """One photograph: upright, sRGB, integers.

    pixels: H x W x 3, uint8 in 0..255 or uint16 in 0..65535, read-only.
    digest: sha256 of the file's bytes, in hex. source_bytes: how many they were. uri: where the file was. sensor: of a
    RAW file that was demosaiced before it came here, else None. capture: how it was taken, as far as the file says.
    part: which picture of a file with several it is, "" for the first.
    """

    pixels: Pixels
    digest: str = ""
    source_bytes: int = 0
    uri: str = ""
    sensor: Sensor | None = None
    capture: Capture = Capture()
    part: str = ""
    kind: ClassVar[Kind] = "rgb"

    def __post_init__(self) -> None:
        shape, kind = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or kind not in (np.uint8, np.uint16):
            raise ShapeError(
                f"Picture.pixels: expected H W 3 of uint8 or uint16, got {list(shape)} of {kind}"
            )
        self.pixels.flags.writeable = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels take in memory."""
        return int(self.pixels.nbytes)

    @property
    def remark(self) -> str:
        """What its owner must be told, in a sentence; empty when there is nothing."""
        if self.sensor is None:
            return ""
        return f"{self.uri}: this RAW file is {self.sensor.pattern}; for a mosaic, encode the camera's own file"

    def tile(self, top: int, left: int, bottom: int, right: int) -> Tensor:
        """The rows top..bottom and columns left..right (ends excluded) as float32 3 x h x w in [0, 1].

        Only the tile becomes floats, so that a 100-megapixel picture never is a float array as a whole.
        Raises ShapeError when the tile is empty or leaves the picture.
        """
        import torch

        height, width = self.size
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ShapeError(
                f"{self.uri}: expected a tile inside {height} x {width} pixels, "
                f"got rows {top} to {bottom} and columns {left} to {right}"
            )
        values = np.empty((3, bottom - top, right - left), np.float32)
        white = np.float32(np.iinfo(self.pixels.dtype).max)
        np.divide(self.pixels[top:bottom, left:right].transpose(2, 0, 1), white, out=values)  # 3 h w
        return torch.from_numpy(values)

    def frame(self) -> Frame:
        """The whole picture as float32 3 x H x W in [0, 1]: 12 bytes for each pixel; use `tile` for large
        ones.
        """
        height, width = self.size
        return Frame(self.tile(0, 0, height, width), "rgb")


def part_of(page: int) -> str:
    """The name of one picture of a file with several, as a key has it; the first needs none."""
    return f"page={page}" if page else ""


def uri_of(path: Path | str) -> str:
    r"""The path as text that any terminal, JSON file or table takes.

    Bytes in a file name that are not UTF-8 (Python holds them as lone surrogates) are written as \xNN.
    """
    text = os.fspath(path)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte: no file has this name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
