"""Projective geometry of pinhole cameras: the one place where depths, points, normals and pixels turn into each other.

    depth, camera ──back_project──► points ──project──► pixel coordinates
         ├──normals_from_depth, normals_from_neighbours──► unit normals
         └──warp (with a second picture and a pose)──► the second picture as the first camera would see it

x points right, y down, z forward. The centre of the upper left pixel is (0, 0), so the picture reaches from -0.5 to
W - 0.5. Depth is z, not the length of the ray. Everything is batched and differentiable. Cameras come one by one as
`Intrinsics`, or as a tensor B 4: fx, fy, cx, cy in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import Intrinsics
from chiasm.errors import ShapeError

CANONICAL_FOCAL = 259.43  # pixels: fx of NYUv2's camera at 320 pixels of width
FRAME_DIAGONAL = math.hypot(36.0, 24.0)  # mm, of 35 mm film: 43.27
VIEW = 63.0  # degrees along the longer side of a picture whose camera is not known: NYUv2's, and about a phone's
FEWEST = 0.25  # share of a window that must be valid for a plane; a window centred on a corner has a little more


def focal_length(longer: float, view: float) -> float:
    """In pixels, of a camera that sees `view` degrees along the `longer` side of its picture, in pixels."""
    return longer / 2.0 / math.tan(math.radians(view) / 2.0)


def from_focal_35mm(focal: float, height: int, width: int) -> Intrinsics:
    """The camera of a picture, whole and in any size or turn, whose file gives `focal` in mm on a 36 x 24 mm frame.

    By the diagonal: f = focal * diagonal in pixels / 43.27 mm. EXIF does not say which side `FocalLengthIn35mmFilm` is
    measured along; CIPA DCG-001, which cameras follow, takes the diagonal, and only it treats pictures of 4:3 and
    3:2, upright and on their side, alike. The axis meets the middle of the picture; a picture that was cut from a
    larger one has a longer focal length than its file says. Raises ShapeError unless all three are positive.
    """
    if not (focal > 0 and height > 0 and width > 0):
        raise ShapeError(
            f"from_focal_35mm: expected a focal length and a size above 0, got {focal:g} mm and {height} x {width}"
        )
    pixels = focal * math.hypot(height, width) / FRAME_DIAGONAL
    return Intrinsics(pixels, pixels, (width - 1) / 2.0, (height - 1) / 2.0)


def resized(camera: Intrinsics, factor_y: float, factor_x: float) -> Intrinsics:
    """The camera of a picture whose height and width were multiplied by the factors, pixel areas kept in place."""
    return Intrinsics(
        camera.fx * factor_x,
        camera.fy * factor_y,
        (camera.cx + 0.5) * factor_x - 0.5,
        (camera.cy + 0.5) * factor_y - 0.5,
    )


def cut(camera: Intrinsics, top: float, left: float) -> Intrinsics:
    """The camera of a picture that lost `top` rows and `left` columns (negative: that gained them)."""
    return Intrinsics(camera.fx, camera.fy, camera.cx - left, camera.cy - top)


def mirrored(camera: Intrinsics, width: int) -> Intrinsics:
    """The camera of a picture of this width after left and right were swapped."""
    return Intrinsics(camera.fx, camera.fy, width - 1 - camera.cx, camera.cy)


def stacked(cameras: Sequence[Intrinsics]) -> Tensor:
    """Cameras as one float32 tensor B 4: fx, fy, cx, cy."""
    return torch.tensor([[c.fx, c.fy, c.cx, c.cy] for c in cameras], dtype=torch.float32).reshape(-1, 4)


def canonical(depth: Tensor, camera: Intrinsics) -> Tensor:
    """Metric depth as a camera with CANONICAL_FOCAL would need it to take the same picture: the unit `canonical`.

    Zooming into a picture looks like walking closer, so metres cannot be told from pixels alone. depth *
    CANONICAL_FOCAL / fx can: it depends on how large things appear. `metric` inverts it. It is one factor for the whole
    picture, so normals computed from it, with the picture's real camera, do not change.
    """
    return depth * (CANONICAL_FOCAL / camera.fx)


def metric(depth: Tensor, camera: Intrinsics) -> Tensor:
    """Canonical depth to metres for a picture taken by `camera`: the inverse of `canonical`."""
    return depth * (camera.fx / CANONICAL_FOCAL)


def back_project(depth: Tensor, cameras: Tensor) -> Tensor:
    """The point that each pixel shows: B 3 H W, in the unit of the depth B 1 H W."""
    return _rays(depth, cameras) * depth


def project(points: Tensor, cameras: Tensor) -> Tensor:
    """Where points B 3 H W appear: pixel coordinates B 2 H W, x then y.

    Points at or behind the camera have no picture; their coordinates are finite and mean nothing.
    """
    fx, fy, cx, cy = _columns(points, cameras)
    x, y, z = points[:, :1], points[:, 1:2], points[:, 2:]
    z = torch.where(z > 1e-9, z, 1.0)
    return torch.cat([fx * x / z + cx, fy * y / z + cy], dim=1)


def normals_from_depth(
    depth: Tensor, cameras: Tensor, window: int, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Unit normals B 3 H W facing the camera, and how badly a plane fits, B 1 H W, from depth B 1 H W > 0.

    Around each pixel the plane m . P = 1 that fits the valid points P of a window x window square best. The error
    m . P - 1 is that of the depth divided by the depth, so the second result is the root mean square of the relative
    depth misfit: mask normals where it is high, because the window lies across a depth edge. Where fewer than a
    quarter of the window is valid it is infinite. Sums over windows are box filters in float64. valid: bool B 1 H W,
    all pixels when None. Raises ShapeError for an even window.
    """
    if window < 3 or window % 2 == 0:
        raise ShapeError(f"normals_from_depth: expected an odd window of 3 pixels or more, got {window}")
    known = depth > 0 if valid is None else valid & (depth > 0)
    points = back_project(torch.where(known, depth, 0.0).double(), cameras.double())  # B 3 H W, zeros count for nothing
    x, y, z = points.unbind(1)
    moments = torch.stack([known[:, 0].double(), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], dim=1)
    moments = _boxes(moments, window)  # B 10 H W
    count, first, second = moments[:, :1], moments[:, 1:4], moments[:, 4:]
    plane, solvable = _solved(second, first)
    misfit = 1.0 - (plane * first).sum(1, keepdim=True) / count.clamp(min=1.0)  # B 1 H W
    fitted = solvable & (count >= FEWEST * window * window)
    ahead = plane.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    normals = -F.normalize(torch.where(fitted, plane, ahead), dim=1)
    residual = torch.where(fitted, misfit.clamp(min=1e-24), 1.0).sqrt().masked_fill(~fitted, torch.inf)
    return normals.to(depth.dtype), residual.to(depth.dtype)


def normals_from_neighbours(depth: Tensor, cameras: Tensor) -> Tensor:
    """Unit normals B 3 H W facing the camera, from each pixel and its right and lower neighbours.

    Sharp and noisy: for losses on smooth predictions. The last row and column repeat those before them. H, W >= 2.
    """
    if min(depth.shape[-2:]) < 2:
        raise ShapeError(f"normals_from_neighbours: expected at least 2 x 2 pixels, got {list(depth.shape)}")
    points = back_project(depth, cameras)
    right = points[..., :-1, 1:] - points[..., :-1, :-1]
    down = points[..., 1:, :-1] - points[..., :-1, :-1]
    normals = F.normalize(torch.cross(down, right, dim=1), dim=1, eps=1e-20)
    return F.pad(normals, (0, 1, 0, 1), mode="replicate")


def warp(
    picture: Tensor, depth: Tensor, target: Tensor, source: Tensor, pose: Tensor
) -> tuple[Tensor, Tensor]:
    """The source's picture B C H W as the target camera sees it, B C h w, and where that is known, bool B 1 h w.

    depth: B 1 h w of the target. target, source: cameras B 4. pose: B 4 4, points of the target to points of the
    source, in the unit of the depth. Bilinear. Unknown: no depth, behind the source, or outside its picture. What is
    hidden from the source is not noticed.
    """
    points = back_project(depth, target)
    batch, _, height, width = points.shape
    turned = pose[:, :3, :3] @ points.flatten(2) + pose[:, :3, 3:]  # B 3 hw
    points = turned.reshape(batch, 3, height, width)
    places = project(points, source)  # B 2 h w
    size = places.new_tensor([picture.shape[-1], picture.shape[-2]]).view(1, 2, 1, 1)
    grid = ((2.0 * places + 1.0) / size - 1.0).permute(0, 2, 3, 1)  # B h w 2
    drawn = F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((places > -1e-3) & (places < size - 1.0 + 1e-3)).all(1, keepdim=True)
    return drawn, inside & (depth > 0) & (points[:, 2:] > 0)


def _columns(like: Tensor, cameras: Tensor) -> tuple[Tensor, ...]:
    """fx, fy, cx, cy, each B 1 1 1. Raises ShapeError unless there is one camera for each picture."""
    if like.ndim != 4 or cameras.shape != (len(like), 4):
        raise ShapeError(
            f"geometry: expected maps B C H W and cameras B 4, got {list(like.shape)} and {list(cameras.shape)}; "
            "make cameras with geometry.stacked"
        )
    return cameras.to(like).view(-1, 4, 1, 1, 1).unbind(1)


def _rays(depth: Tensor, cameras: Tensor) -> Tensor:
    """The direction of each pixel, B 3 H W, with z = 1."""
    fx, fy, cx, cy = _columns(depth, cameras)
    height, width = depth.shape[-2:]
    x = (torch.arange(width, dtype=depth.dtype, device=depth.device) - cx) / fx  # B 1 1 W
    y = (torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None] - cy) / fy  # B 1 H 1
    shape = (len(depth), 1, height, width)
    return torch.cat([x.expand(shape), y.expand(shape), torch.ones_like(depth).expand(shape)], dim=1)


def _boxes(maps: Tensor, window: int) -> Tensor:
    """Sums of B C H W over a window around each pixel; outside the picture is nothing."""
    reach = window // 2
    rows = F.avg_pool2d(maps, (window, 1), 1, (reach, 0)) * window
    return F.avg_pool2d(rows, (1, window), 1, (0, reach)) * window


def _solved(second: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """m with A m = b for each pixel, B 3 H W, and where A can be inverted, B 1 H W.

    second: A as xx, xy, xz, yy, yz, zz, B 6 H W. first: b, B 3 H W. By cofactors, since 3 x 3 is small.
    """
    xx, xy, xz, yy, yz, zz = second.unbind(1)
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * cxx + xy * cxy + xz * cxz
    solvable = determinant > 1e-13 * (xx + yy + zz) ** 3
    bx, by, bz = first.unbind(1)
    adjoint = torch.stack(
        [cxx * bx + cxy * by + cxz * bz, cxy * bx + cyy * by + cyz * bz, cxz * bx + cyz * by + czz * bz], dim=1
    )
    return adjoint / torch.where(solvable, determinant, 1.0)[:, None], solvable[:, None]
