"""Hypersim: rendered rooms with exact depth, normals and NYU40 classes. 1024 x 768, read at half the size.

    folder/ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg
    folder/ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.{depth_meters,normal_cam,semantic}.hdf5

Licence: CC BY-SA 3.0; cite Roberts et al. 2021. Never trained on here: every frame below the folder is for reporting,
so put there what is to be scored. Needs the extra `hdf5`.

Stored is the distance d along the ray, not z: z = d f / sqrt(f^2 + (x - cx)^2 + (y - cy)^2). Stored normals have x
right, y up, z backward, and here x right, y down, z forward; some were modelled inside out, so all are turned to the
camera. Not finite depth, and normals that are not finite or almost 0, are not valid. Every scene is taken for a pinhole
camera with a field of view of 60 degrees, although a few were rendered with a tilted lens. Depth beyond 10 m, which a
prediction never reaches, is scored too.

The halved pictures are means of 2 x 2 sRGB values; all targets are those of the upper left pixel of the four. Labels
are rendered and have no gaps to close. Nothing is held in memory: a sample is read, and checked, when it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chiasm.contracts import Frame, Intrinsics, Sample
from chiasm.datasets.hdf5 import dataset, hdf5, library
from chiasm.datasets.labels import boundaries, halved, picture, semantics
from chiasm.datasets.nyuv2 import TASKS, VOID
from chiasm.errors import ConfigError
from chiasm.geometry import pinhole as geometry

FOCAL = 886.81 / 1024  # of the width
PREVIEW, GEOMETRY = "_final_preview", "_geometry_hdf5"
PICTURES = f"ai_*/images/scene_cam_*{PREVIEW}/frame.*.tonemap.jpg"
MAPS = ("depth_meters", "normal_cam", "semantic")
NYU40 = 40  # ids 1 to 40, -1 unlabelled
SHORTEST = 0.5  # length of a stored normal


class Hypersim:
    """Samples with semantics (NYUv2's 39 classes), depth in metres, normals and edges, named ai_VVV_NNN/cam_XX/IIII."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], maps: tuple[tuple[Path, ...], ...]) -> None:
        """maps: for each image the files of MAPS."""
        self.names = names
        self._images = images
        self._maps = maps

    @staticmethod
    def load(folder: Path) -> Hypersim:
        """Every frame below `folder`. Raises ConfigError when files are missing, MissingExtraError without h5py."""
        library()
        images = sorted(folder.glob(PICTURES))
        if not images:
            raise ConfigError(
                f"{folder}: expected {PICTURES}, got none; unpack scenes of Hypersim there, one folder for each"
            )
        maps = tuple(_maps_of(image) for image in images)
        missing = [path for paths in maps for path in paths if not path.is_file()]
        if missing:
            raise ConfigError(
                f"{missing[0]}: expected a file, and {', '.join(MAPS)} for each of {len(images)} pictures, got "
                f"{len(missing)} too few; unpack the geometry of these scenes too"
            )
        return Hypersim(tuple(map(_name_of, images)), tuple(images), maps)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One sample, half of the stored H x W. Raises ConfigError for a wrong shape or id, ImageError for damage."""
        pixels = picture(self._images[index])
        size = (pixels.shape[0], pixels.shape[1])
        small, camera = halved(pixels, self._images[index]), camera_of(size)
        far, turned, labels = self._maps[index]
        rays = geometry.back_project(torch.ones(1, 1, *size), geometry.stacked([camera]))[0, :, ::2, ::2]
        depth, known = _depth(_half(far, size), rays)
        normals, facing = _normals(_half(turned, (*size, 3)), rays)
        ids = _ids(_half(labels, size), labels)
        classes, labelled = semantics(ids, VOID)
        edges, sure = boundaries(ids, VOID)
        valid = {"semantics": labelled, "depth": known, "normals": facing, "edges": sure}
        targets = {"semantics": classes, "depth": depth, "normals": normals, "edges": edges * sure}
        return Sample(self.names[index], Frame(small), targets, valid, geometry.resized(camera, 0.5, 0.5))


def camera_of(size: tuple[int, int]) -> Intrinsics:
    """The camera of an uncut picture of this height and width; the principal point is its centre."""
    focal = FOCAL * size[1]
    return Intrinsics(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2)


def _half(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Every second row and column of the map in a file. Raises ConfigError when the map has another shape."""
    with hdf5(path) as file:
        found = dataset(file, "dataset", path)
        if found.shape != shape:
            raise ConfigError(
                f"{path}: expected {' x '.join(map(str, shape))} numbers like its picture (height x width), "
                f"got {' x '.join(map(str, found.shape)) or 'one'}; take the original file"
            )
        values: NDArray[Any] = found[()][::2, ::2]
        return values


def _depth(distance: NDArray[Any], rays: Tensor) -> tuple[Tensor, Tensor]:
    """z in metres 1 H W and valid H W, from distances along the rays 3 H W, whose z is 1."""
    z = torch.from_numpy(distance.astype(np.float32))[None] / rays.norm(dim=0, keepdim=True)
    valid = z[0].isfinite() & (z[0] > 0)
    return torch.where(valid, z, 0.0), valid


def _normals(stored: NDArray[Any], rays: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals 3 H W against the rays, and valid H W, from those in a file: H x W x 3, y up, z backward."""
    normals = torch.from_numpy(stored.astype(np.float32)).permute(2, 0, 1) * torch.tensor([1.0, -1, -1])[:, None, None]
    length = normals.norm(dim=0)
    valid = length.isfinite() & (length > SHORTEST)
    away = (normals * rays).sum(0) > 0
    unit = normals / torch.where(away, -length, length)
    return torch.where(valid, unit, 0.0), valid


def _ids(stored: NDArray[Any], path: Path) -> NDArray[Any]:
    """Ids of NYU40, and -1, to those of NYUv2's classes, of which 40 is none."""
    wrong = stored[(stored != -1) & ((stored < 1) | (stored > NYU40))]
    if wrong.size:
        raise ConfigError(
            f"{path}: expected ids 1 to {NYU40}, or -1 for unlabelled, got {wrong.flat[0]} ({wrong.size} pixels are "
            "out of range); take semantic.hdf5, not semantic_instance.hdf5"
        )
    ids: NDArray[Any] = np.where(stored == -1, VOID, stored.astype(np.int64) - 1)
    return ids


def _maps_of(image: Path) -> tuple[Path, ...]:
    home = image.parent.with_name(image.parent.name.removesuffix(PREVIEW) + GEOMETRY)
    return tuple(home / image.name.replace(".tonemap.jpg", f".{kind}.hdf5") for kind in MAPS)


def _name_of(image: Path) -> str:
    camera = image.parent.name.removeprefix("scene_").removesuffix(PREVIEW)
    return f"{image.parents[2].name}/{camera}/{image.name.split('.')[1]}"
