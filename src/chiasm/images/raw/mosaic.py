"""A photograph as the sensor counted it, kept as small as it can be until an encoder needs floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Capture, Frame, Kind, Sensor
from chiasm.errors import ShapeError
from chiasm.images.picture import Picture

if TYPE_CHECKING:
    from torch import Tensor

Sites = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One RAW photograph: upright, raw counts, one colour for each pixel in cells of R G over G B.

    values: H x W, H and W even, uint16, read-only; neither black-subtracted nor white-balanced. black: the count of
    no light for each site of a cell (R, G right of it, G below it, B). white: the count at which the sensor is
    full. sensor: how the counts become colour. digest: sha256 of what was read, in hex; source_bytes: how much it
    was; uri: where it was. capture: how it was taken, as far as the file says. part: which picture of a file with
    several it is, "" for the first.
    """

    values: NDArray[np.uint16]
    black: Sites
    white: float
    sensor: Sensor
    digest: str = ""
    source_bytes: int = 0
    uri: str = ""
    capture: Capture = Capture()
    part: str = ""
    kind: ClassVar[Kind] = "raw"
    remark: ClassVar[str] = ""  # a Picture may have one

    def __post_init__(self) -> None:
        shape, dtype = self.values.shape, self.values.dtype
        if len(shape) != 2 or 0 in shape or shape[0] % 2 or shape[1] % 2 or dtype != np.uint16:
            raise ShapeError(f"Mosaic.values: expected even H W of uint16, got {list(shape)} of {dtype}")
        if len(self.black) != 4 or not all(0 <= black < self.white for black in self.black):
            raise ShapeError(
                f"{self.uri or 'Mosaic'}: expected four black levels of 0 or more below white, "
                f"got {self.black} and {self.white}"
            )
        self.values.flags.writeable = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.values.shape[0]), int(self.values.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that the counts take in memory."""
        return int(self.values.nbytes)

    def tile(self, top: int, left: int, bottom: int, right: int) -> Tensor:
        """The rows top..bottom and columns left..right (ends excluded) as float32 1 x h x w, linear.

        Black is subtracted, white (before white balance) is 1, and each site is multiplied by its gain over the
        smallest gain, so that the colour which is full first is so at 1 and blown highlights stay white: this is
        the one place where a mosaic's white balance is applied, so that nothing after it asks whether it was.
        Not clipped: noise below black stays negative, and balanced or overfull sites stay above 1. A tile that
        begins at an odd row or column has its cells cut there; its values are those of the whole.
        Raises ShapeError when the tile is empty or leaves the mosaic.
        """
        import torch

        height, width = self.size
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ShapeError(
                f"{self.uri}: expected a tile inside {height} x {width} pixels, "
                f"got rows {top} to {bottom} and columns {left} to {right}"
            )
        red, green, blue = (gain / min(self.sensor.gains) for gain in self.sensor.gains)
        part = self.values[top:bottom, left:right]  # h w
        light = np.empty((1, *part.shape), np.float32)
        for site, gain in enumerate((red, green, green, blue)):
            # The first row and column of the tile that are of this site: the phase is that of the whole.
            row, column = (site // 2 - top) % 2, (site % 2 - left) % 2
            black = np.float32(self.black[site])
            scale = np.float32(gain / (self.white - self.black[site]))
            light[0, row::2, column::2] = (part[row::2, column::2] - black) * scale
        return torch.from_numpy(light)

    def frame(self) -> Frame:
        """The whole mosaic as float32 1 x H x W: 4 bytes for each pixel; use `tile` for large ones."""
        height, width = self.size
        return Frame(self.tile(0, 0, height, width), "raw", self.sensor)


Shot = Picture | Mosaic  # what a file lands as
