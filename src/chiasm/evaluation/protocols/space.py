"""Protocol `evaluate space`: what a space is worth, before anything is coded.

reconstruction   PSNR, SSIM; the coarse level alone beside a bicubic x4
equivariance     E(f(x)) against f_s(E(x)), per level and per motion, for every named encoder
shift            features of disturbed pictures, for every named encoder, pixels and unshuffled pixels
probe            mIoU of a linear probe on CamVid, beside one on unshuffled pixels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from chiasm.evaluation.meters.distances import Decode, Encode
from chiasm.evaluation.protocols.equivariance import MARGIN, Equivariance, equivariance
from chiasm.evaluation.protocols.pictures import Picture, cropped
from chiasm.evaluation.protocols.probe import (
    Embed,
    ProbeScore,
    ProbeSettings,
    pixel_blocks,
    probe,
    read_camvid,
    stacked,
)
from chiasm.evaluation.protocols.reconstruction import Reconstruction, reconstruction
from chiasm.evaluation.protocols.shift import ShiftScore, pixel_space, shift_score, unshuffled_space


@dataclass(frozen=True)
class Space:
    """A space under test: pixels to features, and back where it can draw (None: it cannot).

    The decoder must also take features whose maps hold the coarse level alone.
    """

    encode: Encode
    decode: Decode | None = None


@dataclass(frozen=True)
class SpaceSettings:
    """grid: pictures are cropped to multiples of it; margin: pixels ignored at borders when motions are
    compared; coarse: the level that must draw alone; moved: pictures used for motions (None: all), the
    costliest part."""

    grid: int = 4
    margin: int = MARGIN
    coarse: str = "context"
    moved: int | None = None
    probe: ProbeSettings = field(default_factory=ProbeSettings)


@dataclass(frozen=True)
class SpaceReport:
    """Everything measured, by name of space; `probe` is empty, and `skipped` says why, where CamVid is
    absent."""

    pictures: tuple[str, ...]
    settings: SpaceSettings
    reconstruction: Mapping[str, Reconstruction]
    equivariance: Mapping[str, Equivariance]
    shift: Mapping[str, ShiftScore]
    probe: Mapping[str, ProbeScore]
    skipped: tuple[str, ...]


def evaluate_space(
    spaces: Mapping[str, Space],
    pictures: Sequence[Picture],
    camvid: Path | None = None,
    settings: SpaceSettings | None = None,
) -> SpaceReport:
    """Runs all four parts on every named space (the one that matters first, then those to compare it with).

    pictures: at least two, larger than 3 margins. camvid: folder with train/ and test/, or None to skip the
    probe. Raises ShapeError for pictures that are too few or too small.
    """
    settings = settings or SpaceSettings()
    pictures = [cropped(picture, settings.grid) for picture in pictures]
    drawing = {name: (space.encode, space.decode) for name, space in spaces.items() if space.decode is not None}
    embedded = {name: space.encode for name, space in spaces.items()}
    embedded |= {"pixels": pixel_space, "unshuffled pixels": unshuffled_space()}
    scores, skipped = _probes(spaces, camvid, settings.probe)
    return SpaceReport(
        tuple(picture.name for picture in pictures),
        settings,
        {name: reconstruction(*both, pictures, settings.coarse) for name, both in drawing.items()},
        {
            name: equivariance(space.encode, space.decode, pictures[: settings.moved], margin=settings.margin)
            for name, space in spaces.items()
        },
        {name: shift_score(encode, pictures) for name, encode in embedded.items()},
        scores,
        skipped,
    )


def _probes(
    spaces: Mapping[str, Space], camvid: Path | None, settings: ProbeSettings
) -> tuple[dict[str, ProbeScore], tuple[str, ...]]:
    if camvid is None:
        return {}, ("linear probe: no camvid/ folder in the data root",)
    train, test = read_camvid(camvid / "train", settings.train), read_camvid(camvid / "test", settings.test)
    scores = {}
    for name, space in spaces.items():
        scores[name] = probe(_stacking(space.encode), train, test, settings)
    return scores | {"unshuffled pixels": probe(pixel_blocks, train, test, settings)}, ()


def _stacking(encode: Encode) -> Embed:
    def embed(pixels: Tensor) -> Tensor:
        return stacked(encode(pixels), pixels.shape[-2])

    return embed
