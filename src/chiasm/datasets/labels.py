"""One label file or picture of a data set, read and checked: PNGs in, tensors in a TaskSpec's unit out.

    classes    PNG of ids, palette or grey; 255 is void    probability  PNG of greys: share of annotators, white all
    distance   PNG of 16 bits, or 8; 0 is unknown          direction    PNG, RGB = (n + 1) / 2, black is unknown
    picture    a picture                                   label        a line of a table, see `folders`

What is wrong with a file is one sentence with its path, what came, and the fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.ndimage import distance_transform_edt  # type: ignore[import-untyped]
from torch import Tensor

from chiasm.contracts import TaskSpec
from chiasm.errors import ConfigError, ImageError
from chiasm.images import Mosaic, decode

VOID = 255
METRES_PER_UNIT = 0.001  # depth of 16 bits is in millimetres unless told otherwise
FAINT = 0.3  # of white: a file without any edge above it was meant otherwise
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112

EDGES = TaskSpec("edges", 1, "probability")


def read_label(
    path: Path,
    task: TaskSpec,
    size: tuple[int, int] | None = None,
    metres_per_unit: float = METRES_PER_UNIT,
) -> tuple[Tensor, Tensor]:
    """The target and valid mask of one label file, as `contracts.Sample` holds them: C H W and bool H W.

    size: height and width of its picture, checked when given. metres_per_unit: for depth. Reads no picture, so a head
    can learn from stored features and label files alone. A `label` has no file of its own; see `folders`.
    Raises ConfigError for a size, id or mode that the task does not have, ImageError for a file that cannot be read.
    """
    kind = task.kind
    if kind in ("label", "vector"):
        raise ConfigError(f"{path}: expected a task with a label for each pixel, got {task.name!r}; use Folders.load")
    values = picture(path) if kind in ("direction", "picture") else grey(path)
    if size is not None and values.shape[:2] != size:
        raise wrong_size(path, (values.shape[0], values.shape[1]), size)
    if kind == "classes":
        check_ids(values, len(task.classes), VOID, path)
        return semantics(values, VOID)
    if kind == "probability":
        return _edges(values, path)
    if kind == "distance":
        if values.dtype == np.uint8 and metres_per_unit == METRES_PER_UNIT:
            raise ConfigError(
                f"{path}: expected depth in millimetres, 16 bits, got 8 bits; say how many metres one step is, "
                "metres_per_unit, or save it with 16 bits"
            )
        depth = torch.from_numpy(values.astype(np.float32))[None] * metres_per_unit
        return depth, depth[0] > 0
    if kind == "direction":
        return _normals(values, path)
    pixels = torch.from_numpy(values.astype(np.float32) / 255.0).permute(2, 0, 1).contiguous()
    return pixels, torch.ones(values.shape[:2], dtype=torch.bool)


def semantics(ids: NDArray[Any], void: int) -> tuple[Tensor, Tensor]:
    """Ids H x W to the target int64 1 H W and valid bool H W; void becomes 0 and not valid."""
    held = torch.from_numpy(ids.astype(np.int64))
    valid = held != void
    return (held * valid)[None], valid


def closed(ids: NDArray[Any], void: int, gap: int) -> NDArray[Any]:
    """Ids H x W whose void pixels took the nearest id, those that are no more than `gap` pixels from one.

    For labels that were drawn with a gap between things, which would hide every boundary.
    """
    if not (ids != void).any():
        return ids
    distance, nearest = distance_transform_edt(ids == void, return_indices=True)
    return np.where(distance <= gap, ids[nearest[0], nearest[1]], ids)


def boundaries(ids: NDArray[Any], void: int) -> tuple[Tensor, Tensor]:
    """Where classes meet: edges float 1 H W, 0 or 1, and valid bool H W, from ids H x W.

    A pixel is an edge when its right or its lower neighbour has another class, so lines are one pixel wide. (Mirrored
    ids give lines one pixel further right.) Boundaries to void do not count: of a void pixel nothing is known, nor of
    one that would be no edge but has void as one of the two neighbours.
    """
    held = torch.from_numpy(ids.astype(np.int64))
    known = held != void
    edge, unsure = torch.zeros_like(known), torch.zeros_like(known)
    edge[:, :-1] |= (held[:, :-1] != held[:, 1:]) & known[:, 1:]
    edge[:-1] |= (held[:-1] != held[1:]) & known[1:]
    unsure[:, :-1] |= ~known[:, 1:]
    unsure[:-1] |= ~known[1:]
    edge &= known
    return edge[None].float(), known & (edge | ~unsure)


def check_ids(ids: NDArray[Any], classes: int, void: int, path: Path) -> None:
    """Raises ConfigError when an id is no class and not void."""
    wrong = ids[(ids >= classes) & (ids != void)]
    if wrong.size:
        raise ConfigError(
            f"{path}: expected ids 0 to {classes - 1} or {void} for void, got {int(wrong.max())} "
            f"({wrong.size} pixels are out of range); name every class in the task, or map the ids"
        )


def wrong_size(path: Path, found: tuple[int, int], wanted: tuple[int, int]) -> ConfigError:
    """The error of a label that does not lie on its picture."""
    return ConfigError(
        f"{path}: expected a label of {wanted[0]} x {wanted[1]} pixels like its picture (height x width), "
        f"got {found[0]} x {found[1]}; resize it (ids: nearest neighbour)"
    )


def check_sizes(images: Sequence[Path], labels: Sequence[Path]) -> None:
    """Raises ConfigError for the first label that has another size than its picture, by their headers."""
    for image, label in zip(images, labels, strict=True):
        wanted, found = size_of(image), size_of(label)
        if found != wanted:
            raise wrong_size(label, found, wanted)


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from its header. Raises ImageError."""
    with _opened(path) as image:
        sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


def grey(path: Path) -> NDArray[Any]:
    """The one channel of a PNG, H x W, integers as stored: palette indices, 1, 8 or 16 bits. Raises ImageError."""
    with _opened(path) as image:
        if image.mode not in ("P", "L", "1", "I;16", "I;16B", "I"):
            raise ImageError(
                f"{path}: expected one channel (grey or palette), got mode {image.mode}; "
                "save the labels as a grey or palette PNG",
                "unsupported",
            )
        try:
            values = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"{path}: expected a whole picture, got {error}; copy it again", "damaged") from error
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def picture(path: Path) -> NDArray[np.uint8]:
    """Upright sRGB pixels, H x W x 3 uint8. Raises ImageError, also for a RAW file."""
    shot = decode(path)
    if isinstance(shot, Mosaic):
        raise ImageError(f"{path}: expected a photograph, got a RAW file; develop it first", "unsupported")
    eight = shot.pixels if shot.pixels.dtype == np.uint8 else shot.pixels >> 8
    return eight.astype(np.uint8, copy=False)


class Held:
    """Pictures that are decoded when first asked for, and then held: 3 bytes for each pixel."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._pictures: dict[int, NDArray[np.uint8]] = {}

    def pixels(self, index: int) -> Tensor:
        """One picture, float32 3 H W in [0, 1]. Raises ImageError."""
        if index not in self._pictures:
            self._pictures[index] = np.ascontiguousarray(picture(self.paths[index]).transpose(2, 0, 1))
        return torch.from_numpy(self._pictures[index].astype(np.float32)) / 255.0


def halved(pixels: NDArray[np.uint8], path: Path) -> Tensor:
    """sRGB H x W x 3 to float32 3 H/2 W/2 in [0, 1], the mean of 2 x 2. Raises ConfigError when H or W is odd."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        raise ConfigError(
            f"{path}: expected an even height and width, to be halved, got {height} x {width}; take the original file"
        )
    quads = torch.from_numpy(pixels.reshape(height // 2, 2, width // 2, 2, 3).sum((1, 3), dtype=np.float32))
    return (quads / (4 * 255)).permute(2, 0, 1).contiguous()


def _edges(values: NDArray[Any], path: Path) -> tuple[Tensor, Tensor]:
    """Greys H x W to shares of annotators 1 H W, valid everywhere. Raises ConfigError for what would hold no edge."""
    with _opened(path) as image:
        mode, pages = image.mode, getattr(image, "n_frames", 1)
    if mode == "P" or pages > 1:
        came = "a palette" if mode == "P" else f"{pages} pages"
        raise ConfigError(f"{path}: expected edges as one picture in grey, white where they are, got {came}; save that")
    white = 1 if mode == "1" else int(np.iinfo(values.dtype).max)
    most = int(values.max(initial=0))
    if 0 < most < FAINT * white:
        raise ConfigError(
            f"{path}: expected edges in grey, {white} where everybody draws one, got {most} at most; "
            f"save {most} as {white}"
        )
    return torch.from_numpy(values.astype(np.float32) / np.float32(white))[None], torch.ones(values.shape).bool()


def _normals(values: NDArray[np.uint8], path: Path) -> tuple[Tensor, Tensor]:
    """RGB H x W x 3 to unit normals 3 H W. Raises ConfigError when most of them point away from the camera."""
    rough = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1.0
    length = rough.norm(dim=0)
    valid = torch.from_numpy(values.any(axis=2)) & (length > 0.5)
    normals = rough / length.clamp(min=0.5) * valid
    if valid.any() and (normals[2][valid] > 0).float().mean() > 0.5:
        raise ConfigError(
            f"{path}: expected normals that face the camera, z < 0 with x right, y down, z forward, "
            "got z > 0 for most pixels; negate the axes that differ"
        )
    return normals, valid


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: expected a file, got none; check the path", "unreadable") from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ImageError(f"{path}: expected a picture, got {error}; copy it again", "not-an-image") from error
