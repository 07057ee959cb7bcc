"""Planes, boxes, spheres and cylinders, and where a pinhole camera's rays meet them: exact depth and normals.

    Scene (world: x right, y away, z up, metres)
      View (pose world -> camera, Intrinsics) ── rays ──► nearest ──► Hits: depth, normal, which primitive, where on it

Each primitive is a unit body ([-1, 1]^3, the unit sphere, the unit cylinder along z, the square z = 0) that is
stretched by `half`, turned and moved. A ray is carried into the frame of the unit body, where its parameter stays what
it was: for directions with z = 1 in the camera's frame it is the depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Intrinsics
from chiasm.scenes.textures import Floats, Material

Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]
Kind = Literal["plane", "box", "sphere", "cylinder"]

NEAR = 1e-4  # metres (or shares of a shadow ray): what is nearer than this is the point itself


@dataclass(frozen=True, eq=False)
class Primitive:
    """One body. centre: metres. half: extents along its own axes, metres. turn: 3 x 3, its axes as columns, world.

    label: the class's name. instance: primitives of one thing share it. casts: whether it throws a shadow.
    """

    kind: Kind
    centre: Floats
    half: Floats
    turn: Floats
    material: Material
    label: str
    instance: int = 0
    casts: bool = True

    @property
    def radius(self) -> float:
        """Radius in metres of a ball around `centre` that holds the body."""
        if self.kind == "sphere":
            return float(self.half.max())
        if self.kind == "cylinder":
            return float(np.hypot(self.half[:2].max(), self.half[2]))
        return float(np.linalg.norm(self.half[:2] if self.kind == "plane" else self.half))


@dataclass(frozen=True)
class Light:
    """A point of light: an irradiance of `colour` (linear red, green, blue) at `reach` metres, by the inverse square.

    The sun is a light whose distance is `reach`.
    """

    position: Floats
    colour: Floats
    reach: float


@dataclass(frozen=True, eq=False)
class View:
    """A camera in the world. pose: 4 x 4, world to camera (x right, y down, z forward); lens: in pixels."""

    pose: Floats
    lens: Intrinsics

    @property
    def origin(self) -> Floats:
        """Where the camera stands in the world, metres, shape (3,)."""
        return np.asarray(-self.pose[:3, :3].T @ self.pose[:3, 3])

    def rays(self, u: Floats, v: Floats) -> Floats:
        """World directions N x 3 through the pixel positions u, v (N); their z in the camera's frame is 1."""
        lens = self.lens
        own = np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones_like(u)], axis=-1)
        return np.asarray(own @ self.pose[:3, :3])


@dataclass(frozen=True, eq=False)
class Scene:
    """What is there: primitives, lights, ambient light (linear, shape (3,)), the sky, and from where it is seen.

    sky: float32 h x w x 3, linear radiance by azimuth (columns) and from zenith to nadir (rows); None indoors.
    """

    primitives: tuple[Primitive, ...]
    lights: tuple[Light, ...]
    ambient: Floats
    view: View
    sky: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Hits:
    """Where N rays met the nearest surface. index -1, depth inf and zeros elsewhere: nothing was met.

    depth: float64 N, the ray's parameter. normal: N x 3, world, unit, facing the viewer. place: N x 2, metres along the
    surface. share: N x 2, the same in [0, 1] over the face. face: which flat or smooth face of the primitive.
    """

    depth: Floats
    index: Ints
    normal: Floats
    place: Floats
    share: Floats
    face: Ints


def looking(origin: Sequence[float], yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Floats:
    """The pose (4 x 4, world to camera) of a camera at `origin` (metres); angles in radians.

    Yaw 0 looks along y and grows to the left; pitch grows upwards; roll turns the picture clockwise.
    """
    forward = np.array([-np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    down = np.cross(forward, right)
    turned = np.stack([np.cos(roll) * right - np.sin(roll) * down, np.sin(roll) * right + np.cos(roll) * down, forward])
    pose = np.eye(4)
    pose[:3, :3] = turned
    pose[:3, 3] = -turned @ np.asarray(origin, dtype=np.float64)
    return pose


def _slab(origin: Any, direction: Floats) -> tuple[Floats, Floats]:
    safe = np.where(direction == 0.0, 1e-30, direction)
    first, second = (-1.0 - origin) / safe, (1.0 - origin) / safe
    return np.minimum(first, second), np.maximum(first, second)


def _round(origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
    a = np.maximum((direction**2).sum(-1), 1e-30)
    b = direction @ origin
    inside = b**2 - a * (origin @ origin - 1.0)
    root = np.sqrt(np.maximum(inside, 0.0))
    miss = inside < 0.0
    return np.where(miss, np.inf, (-b - root) / a), np.where(miss, -np.inf, (-b + root) / a)


def span(body: Primitive, origin: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """Where rays enter and leave a body: two arrays (N) of ray parameters, near > far where the body is missed."""
    basis = body.turn / np.maximum(body.half, 1e-9)
    start, along = (origin - body.centre) @ basis, directions @ basis
    if body.kind == "sphere":
        return _round(start, along)
    if body.kind == "plane":
        rate = np.where(along[:, 2] == 0.0, 1e-30, along[:, 2])
        met = -start[2] / rate
        out = (np.abs(start[:2] + met[:, None] * along[:, :2]) > 1.0).any(-1)
        return np.where(out, np.inf, met), np.where(out, -np.inf, met)
    near, far = _slab(start[2], along[:, 2])
    if body.kind == "cylinder":
        sides = [_round(start[:2], along[:, :2])]
    else:
        sides = [_slab(start[axis], along[:, axis]) for axis in (0, 1)]
    for low, high in sides:
        near, far = np.maximum(near, low), np.minimum(far, high)
    return near, far


def _candidates(bodies: Sequence[Primitive], origin: Floats, directions: Floats) -> Iterator[tuple[int, Ints]]:
    """Each body's number with the rays that meet the ball around it: a cone around its centre."""
    unit = (directions / np.linalg.norm(directions, axis=-1, keepdims=True)).astype(np.float32).T
    for first in range(0, len(bodies), 16):
        block = bodies[first : first + 16]
        ways = np.stack([body.centre - origin for body in block])
        gap = (ways**2).sum(-1) - np.array([body.radius for body in block]) ** 2
        least = np.where(gap > 0.0, np.sqrt(np.maximum(gap, 0.0)) * (1.0 - 1e-6), -np.inf)
        inside = ways.astype(np.float32) @ unit >= least[:, None].astype(np.float32)
        for offset in range(len(block)):
            rays = np.flatnonzero(inside[offset])
            if len(rays):
                yield first + offset, rays


def nearest(bodies: Sequence[Primitive], origin: Floats, directions: Floats) -> Hits:
    """The nearest surface in front of `origin` (3) along each of `directions` (N x 3, any length)."""
    count = len(directions)
    depth, index = np.full(count, np.inf), np.full(count, -1, dtype=np.int32)
    for number, rays in _candidates(bodies, origin, directions):
        near, far = span(bodies[number], origin, directions[rays])
        met = np.where(near > NEAR, near, far)
        closer = (near <= far) & (met > NEAR) & (met < depth[rays])
        depth[rays[closer]] = met[closer]
        index[rays[closer]] = number
    normal, place, share = np.zeros((count, 3)), np.zeros((count, 2)), np.zeros((count, 2))
    face = np.zeros(count, dtype=np.int32)
    for number, rays in grouped(index):
        points = origin + depth[rays, None] * directions[rays]
        normal[rays], place[rays], share[rays], face[rays] = surface(bodies[number], points)
    normal *= np.where((normal * directions).sum(-1, keepdims=True) > 0.0, -1.0, 1.0)
    return Hits(depth, index, normal, place, share, face)


def grouped(index: Ints) -> Iterator[tuple[int, Ints]]:
    """Each primitive's number >= 0 in `index` (N) with the rays that met it."""
    order = np.argsort(index, kind="stable")
    numbers, starts = np.unique(index[order], return_index=True)
    for number, rays in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        if number >= 0:
            yield number, rays


def surface(body: Primitive, points: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    """Unit outward normals N x 3, places N x 2 (metres), shares N x 2 in [0, 1] and faces N at points on a body."""
    half = np.maximum(body.half, 1e-9)
    own = ((points - body.centre) @ body.turn) / half
    axis = np.full(len(own), 2)
    if body.kind == "box":
        axis = np.abs(own).argmax(-1)
    outward, face = np.zeros_like(own), axis * 2 + (np.take_along_axis(own, axis[:, None], 1)[:, 0] > 0)
    np.put_along_axis(outward, axis[:, None], np.where(face % 2 == 1, 1.0, -1.0)[:, None], 1)
    across, upward = np.where(axis == 0, 1, 0), np.where(axis == 2, 1, 2)
    share = np.stack([np.take_along_axis(own, way[:, None], 1)[:, 0] for way in (across, upward)], axis=-1)
    place = share * np.stack([half[across], half[upward]], axis=-1)
    if body.kind in ("sphere", "cylinder"):
        curved = np.ones(len(own), dtype=bool)
        if body.kind == "cylinder":
            curved = np.hypot(own[:, 0], own[:, 1]) >= np.abs(own[:, 2])
        turn = np.arctan2(own[:, 1], own[:, 0])
        height = own[:, 2] if body.kind == "cylinder" else np.arcsin(np.clip(own[:, 2], -1.0, 1.0)) / (np.pi / 2)
        around = np.stack([turn / np.pi, height], axis=-1)
        flat = own * np.array([1.0, 1.0, 1.0 if body.kind == "sphere" else 0.0])
        outward = np.where(curved[:, None], flat, outward)
        share = np.where(curved[:, None], around, share)
        metres = around * np.array([np.pi * half[0], half[2] * (1.0 if body.kind == "cylinder" else np.pi / 2)])
        place = np.where(curved[:, None], metres, place)
        face = np.where(curved, 6, face)
    normal = (outward / half) @ body.turn.T
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return normal, place, np.clip(share * 0.5 + 0.5, 0.0, 1.0), face


def shadowed(bodies: Sequence[Primitive], light: Floats, points: Floats) -> Bools:
    """Which of `points` (N x 3) have a body between themselves and `light` (3)."""
    ways = points - light
    dark = np.zeros(len(points), dtype=bool)
    for number, rays in _candidates(bodies, light, ways):
        near, far = span(bodies[number], light, ways[rays])
        enters, leaves = (near > NEAR) & (near < 1.0), (far > NEAR) & (far < 1.0)
        dark[rays] |= (near <= far) & (enters | leaves)
    return dark
