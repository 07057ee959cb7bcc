"""Generated rooms and streets with exact depth, normals, edges and classes: scenes that no sensor had to measure.

They stand in for SceneFlow and Hypersim. Nothing is downloaded: a scene is a function of its seed. Classes are the 39
names of NYUv2 that people label rooms with and the 11 of CamVid. A sample of 240 x 320 is 4 MB, its scene some 20 MB
while it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from chiasm.contracts import Frame, Intrinsics, Sample, TaskSpec
from chiasm.datasets.vocabulary import JOINT
from chiasm.errors import ConfigError, nearest
from chiasm.scenes.primitives import Bools, Hits, Scene
from chiasm.scenes.rooms import room
from chiasm.scenes.shading import cast, developed, traced
from chiasm.scenes.streets import street
from chiasm.scenes.textures import Floats, Look

_BUILD = {"room": room, "street": street}
_ALL, _LATER, _EARLIER = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS = (((_LATER, _ALL), (_EARLIER, _ALL)), ((_ALL, _LATER), (_ALL, _EARLIER)))
_CREASE = np.cos(np.radians(25.0))  # faces that meet at less than this are one surface to the eye
_BREAK = 0.04  # share of the depth by which a neighbour must leave the surface's plane to be another surface


@dataclass(frozen=True)
class Rendered:
    """A sample with what only a generated scene knows.

    pose: float64 4 x 4, world (x right, y away, z up, metres) to camera. instances: int64 H x W, -1 the sky. scene:
    what it was drawn from.
    """

    sample: Sample
    pose: Tensor
    instances: Tensor
    scene: Scene


@dataclass(frozen=True)
class Scenes:
    """`count` generated scenes; the i-th is a function of kind, seed, i, size and photographs alone.

    kind: room or street. renderer: primitives draws direct light in a third of a second; mitsuba, from the extra
    `scenes`, path-traces the same scene; depth, normals, edges and classes are the ray-caster's for both. size: height
    and width in pixels, 8 at least. classes: the ids of semantics; what has another name is invalid there.
    photographs: sRGB pictures, H x W x 3 uint8, whose patches cover some surfaces. Raises ConfigError for other values.
    """

    kind: Literal["room", "street"] = "room"
    count: int = 1000
    seed: int = 0
    renderer: Literal["primitives", "mitsuba"] = "primitives"
    size: tuple[int, int] = (240, 320)
    classes: Sequence[str] = JOINT
    photographs: Sequence[NDArray[np.uint8]] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.kind not in _BUILD:
            raise ConfigError(f"no scenes of kind {self.kind!r}; {nearest(str(self.kind), _BUILD)}")
        if self.renderer not in ("primitives", "mitsuba"):
            raise ConfigError(f"no renderer {self.renderer!r}; {nearest(self.renderer, ('primitives', 'mitsuba'))}")
        if self.count < 0 or self.seed < 0 or min(self.size) < 8:
            raise ConfigError(
                f"scenes want count and seed >= 0 and a size of 8 x 8 or more, got count {self.count}, "
                f"seed {self.seed}, size {self.size}; choose other numbers"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of `specs`."""
        return tuple(task.name for task in self.specs)

    @property
    def names(self) -> tuple[str, ...]:
        """room-7-0 and so on: kind, seed, number."""
        return tuple(f"{self.kind}-{self.seed}-{index}" for index in range(self.count))

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """Depth in metres, normals, edges and semantics in the order of `classes`."""
        return (
            TaskSpec("depth", 1, "distance", unit="metre"),
            TaskSpec("normals", 3, "direction"),
            TaskSpec("edges", 1, "probability"),
            TaskSpec("semantics", len(self.classes), "classes", tuple(self.classes)),
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.rendered(index).sample

    def scene(self, index: int) -> Scene:
        """What the `index`-th picture shows. Raises IndexError beyond the count."""
        if not 0 <= index < self.count:
            raise IndexError(f"there are {self.count} scenes, and {index} is none of them")
        rng = self._rng(index, 0)
        return _BUILD[self.kind](Look(rng, self.photographs), _lens(rng, self.size))

    def rendered(self, index: int) -> Rendered:
        """The `index`-th sample with its pose and instances. Raises IndexError, and MissingExtraError for mitsuba."""
        scene = self.scene(index)
        hits = cast(scene, self.size)
        edges = _edges(scene, hits, self.size)
        if self.renderer == "mitsuba":
            from chiasm.scenes.mitsuba import path_traced

            light = path_traced(scene, self.size, seed=index)
        else:
            light = traced(scene, hits, self.size, _ragged(hits, self.size))
        pixels = developed(light, self._rng(index, 1)).astype(np.float32)
        instances = np.array([body.instance for body in scene.primitives] + [-1])[hits.index]
        return Rendered(
            sample=self._sample(index, scene, hits, (pixels, edges)),
            pose=torch.from_numpy(scene.view.pose.copy()),
            instances=torch.from_numpy(instances.reshape(self.size).astype(np.int64)),
            scene=scene,
        )

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, index, stream, list(_BUILD).index(self.kind)])

    def _sample(self, index: int, scene: Scene, hits: Hits, drawn: tuple[Floats, Bools]) -> Sample:
        pixels, edges = drawn
        met = (hits.index >= 0).reshape(self.size)
        depth = np.where(met, hits.depth.reshape(self.size), 0.0)[None].astype(np.float32)
        normals = (hits.normal @ scene.view.pose[:3, :3].T).T.reshape(3, *self.size).astype(np.float32)
        ids = {name: number for number, name in enumerate(self.classes)}
        labels = [ids.get(body.label, -1) for body in scene.primitives]
        labels.append(ids.get("Sky", -1) if scene.sky is not None else -1)  # what nothing was met by has index -1
        semantics = np.array(labels)[hits.index].reshape(1, *self.size)
        targets = {
            "depth": depth,
            "normals": normals,
            "edges": edges.reshape(1, *self.size).astype(np.float32),
            "semantics": np.maximum(semantics, 0).astype(np.int64),
        }
        valid = {"depth": met, "normals": met, "edges": np.ones_like(met), "semantics": semantics[0] >= 0}
        return Sample(
            name=f"{self.kind}-{self.seed}-{index}",
            frame=Frame(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))),
            targets={task: torch.from_numpy(target) for task, target in targets.items()},
            valid={task: torch.from_numpy(mask.copy()) for task, mask in valid.items()},
            camera=scene.view.lens,
        )


def _lens(rng: np.random.Generator, size: tuple[int, int]) -> Intrinsics:
    """Intrinsics like those of NYUv2 (519 pixels at a width of 640), the focal length varied by 0.75 to 1.4."""
    height, width = size
    focal = 518.86 / 640 * width * float(np.exp(rng.uniform(np.log(0.75), np.log(1.4))))
    across, down = rng.normal(0.0, 0.01, 2) * width
    return Intrinsics(focal, focal, (width - 1) / 2 + float(across), (height - 1) / 2 + float(down))


def _ragged(hits: Hits, size: tuple[int, int]) -> Bools:
    """Pixels (N) beside which another face begins, where one ray is not enough."""
    what = (hits.index.astype(np.int64) * 8 + hits.face).reshape(size)
    out = np.zeros(size, dtype=bool)
    for one, other in _NEIGHBOURS:
        differ = what[one] != what[other]
        out[one] |= differ
        out[other] |= differ
    return out.reshape(-1)


def _edges(scene: Scene, hits: Hits, size: tuple[int, int]) -> Bools:
    """H x W: where instances meet, depth breaks or faces fold; one pixel wide, on the nearer side."""
    things = np.array([body.instance for body in scene.primitives] + [-1])[hits.index].reshape(size)
    face = (hits.index.astype(np.int64) * 8 + hits.face).reshape(size)
    depth = np.where(hits.index >= 0, hits.depth, 1e6).reshape(size)
    normal = (hits.normal @ scene.view.pose[:3, :3].T).reshape(*size, 3)
    lens = scene.view.lens
    v, u = np.mgrid[: size[0], : size[1]]
    ray = np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones(size)], axis=-1)
    points = ray * depth[..., None]
    out, sure = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for one, other in _NEIGHBOURS:
        way = points[one] - points[other]
        rise = np.minimum(np.abs((way * normal[one]).sum(-1)), np.abs((way * normal[other]).sum(-1)))
        split = (face[one] != face[other]) & (rise > _BREAK * np.minimum(depth[one], depth[other]))
        fold = (face[one] != face[other]) & ((normal[one] * normal[other]).sum(-1) < _CREASE)
        apart = things[one] != things[other]
        nearer = depth[one] <= depth[other]
        for mask, found in ((out, apart | split | fold), (sure, apart)):
            mask[one] |= found & nearer
            mask[other] |= found & ~nearer
    strokes, _ = ndimage.label(out, np.ones((3, 3)))
    long = np.bincount(strokes.reshape(-1)) >= 10  # faces below a pixel make dashes
    return np.asarray(out & (sure | long[strokes]))
