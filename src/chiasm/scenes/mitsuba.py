"""The same scenes path-traced by Mitsuba 3 (extra `scenes`): light between surfaces, soft shadows of glowing windows.

Only the picture comes from Mitsuba; depth, normals, edges and classes are the ray-caster's, of the same geometry.
Curved bodies become meshes that leave the true surface by a thousandth of their radius.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from chiasm.errors import MissingExtraError
from chiasm.scenes.primitives import Primitive, Scene, surface
from chiasm.scenes.textures import Floats

VARIANT = "scalar_rgb"  # llvm_ad_rgb is faster, and its compiler (LLVM 14) aborts the process on some processors
_AROUND, _UP = 72, 36  # facets of curved bodies


def library() -> Any:
    """The module mitsuba with a variant chosen that works here. Raises MissingExtraError when it is not installed."""
    try:
        module = importlib.import_module("mitsuba")
    except ImportError as error:
        raise MissingExtraError(
            'path-traced scenes need Mitsuba 3, which is not installed; pip install "chiasm[scenes]", '
            'or take renderer="primitives"'
        ) from error
    if module.variant() is None:
        module.set_variant(VARIANT)
    return module


def _grid(rows: Floats, flip: bool = False) -> tuple[Floats, Floats]:
    """Corners (h, w, 3) as a list, and the two triangles of each cell."""
    height, width = rows.shape[:2]
    at = np.arange(height * width).reshape(height, width)
    a, b, c, d = (part.reshape(-1) for part in (at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]))
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return rows.reshape(-1, 3), faces[:, ::-1] if flip else faces


def _patches(body: Primitive) -> list[tuple[Floats, Floats]]:
    """The unit body as grids of corners with triangles."""
    square = np.stack([*np.meshgrid([-1.0, 1.0], [-1.0, 1.0]), np.zeros((2, 2))], axis=-1)
    if body.kind == "plane":
        return [_grid(square)]
    if body.kind == "box":
        sides = []
        for axis in range(3):
            for end in (-1.0, 1.0):
                sides.append(_grid(np.roll(square + np.array([0.0, 0.0, end]), axis + 1, axis=-1), end < 0))
        return sides
    turn = np.linspace(-np.pi, np.pi, _AROUND + 1)
    if body.kind == "sphere":
        up = np.linspace(-np.pi / 2, np.pi / 2, _UP + 1)[:, None]
        return [_grid(np.stack([np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up) + 0 * turn], axis=-1))]
    ring = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=-1)
    rise = np.array([0.0, 0.0, 1.0])
    caps = [_grid(np.stack([ring * 0.0 + end * rise, ring + end * rise]), end > 0) for end in (-1.0, 1.0)]
    return [_grid(np.stack([ring - rise, ring + rise])), *caps]


def mesh(body: Primitive) -> tuple[Floats, Floats, Floats]:
    """A body as triangles: corners V x 3 (world, metres), texture coordinates V x 2, and faces F x 3 (integers)."""
    corners, texture, faces, count = [], [], [], 0
    for rows, triangles in _patches(body):
        world = (rows * body.half) @ body.turn.T + body.centre
        middle = rows[triangles[len(triangles) // 2]].mean(0)
        inward = rows * (1.0 - 1e-6) + middle * 1e-6  # a corner of a box belongs to the face that is drawn
        _, place, share, _ = surface(body, (inward * body.half) @ body.turn.T + body.centre)
        if body.kind in ("sphere", "cylinder") and len(rows) > 2:  # the seam belongs to both ends of the circle
            turns = np.tile(np.linspace(-1.0, 1.0, _AROUND + 1), len(rows) // (_AROUND + 1))
            curved = body.kind == "sphere" or np.ptp(rows[:, 2]) != 0.0
            if curved:
                place[:, 0], share[:, 0] = turns * np.pi * body.half[0], turns * 0.5 + 0.5
        material = body.material
        uv = place / material.tile + 0.5 if material.tile > 0.0 else np.stack([share[:, 0], 1.0 - share[:, 1]], -1)
        corners.append(world)
        texture.append(uv)
        faces.append(triangles + count)
        count += len(rows)
    return np.concatenate(corners), np.concatenate(texture), np.concatenate(faces)


def _shape(mi: Any, body: Primitive, name: str) -> Any:
    """The body as a Mitsuba mesh with its material."""
    corners, texture, faces = mesh(body)
    material = body.material
    pixels = mi.Bitmap(np.ascontiguousarray(material.texture[::-1]))  # Mitsuba's v runs from the lowest row upwards
    colour = {"type": "bitmap", "bitmap": pixels, "raw": True, "wrap_mode": "mirror"}
    bsdf: dict[str, Any] = {"type": "diffuse", "reflectance": colour}
    if material.gloss > 0.0:
        bsdf = {"type": "roughplastic", "diffuse_reflectance": colour, "alpha": 0.2}
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict({"type": "twosided", "material": bsdf})
    if material.emission > 0.0:
        bright = mi.Bitmap(np.ascontiguousarray(material.texture[::-1] * np.float32(material.emission)))
        properties["emitter"] = mi.load_dict({"type": "area", "radiance": {**colour, "bitmap": bright}})
    shape = mi.Mesh(name, len(corners), len(faces), has_vertex_texcoords=True, props=properties)
    settings = mi.traverse(shape)
    settings["vertex_positions"] = np.ascontiguousarray(corners, dtype=np.float32).reshape(-1)
    settings["vertex_texcoords"] = np.ascontiguousarray(texture, dtype=np.float32).reshape(-1)
    settings["faces"] = np.ascontiguousarray(faces, dtype=np.uint32).reshape(-1)
    settings.update()
    return shape


def _sensor(mi: Any, scene: Scene, size: tuple[int, int], samples: int) -> dict[str, Any]:
    height, width = size
    lens = scene.view.lens
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0])  # Mitsuba's camera has x to the left and y up
    return {
        "type": "perspective",
        "fov_axis": "x",
        "fov": float(np.degrees(2 * np.arctan(width / 2 / lens.fx))),
        "principal_point_offset_x": ((width - 1) / 2 - lens.cx) / width,
        "principal_point_offset_y": ((height - 1) / 2 - lens.cy) / height,
        "near_clip": 0.01,
        "far_clip": 1000.0,
        "to_world": mi.ScalarTransform4f(np.linalg.inv(scene.view.pose) @ flipped),
        "film": {
            "type": "hdrfilm", "width": width, "height": height, "rfilter": {"type": "box"}, "pixel_format": "rgb",
        },
        "sampler": {"type": "independent", "sample_count": samples},
    }  # fmt: skip


def path_traced(scene: Scene, size: tuple[int, int], *, samples: int = 64, bounces: int = 6, seed: int = 0) -> Floats:
    """Linear light H x W x 3 of the scene. Raises MissingExtraError without the extra `scenes`."""
    mi = library()
    parts: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": bounces},
        "sensor": _sensor(mi, scene, size, samples),
    }
    for number, body in enumerate(scene.primitives):
        parts[f"body{number}"] = _shape(mi, body, f"body{number}")
    for number, lamp in enumerate(scene.lights):
        strength = (np.pi * lamp.colour * lamp.reach**2).tolist()
        parts[f"lamp{number}"] = {
            "type": "point", "position": lamp.position.tolist(), "intensity": {"type": "rgb", "value": strength},
        }  # fmt: skip
    if scene.sky is not None:
        upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
        parts["sky"] = {"type": "envmap", "bitmap": mi.Bitmap(scene.sky), "to_world": upright}
    drawn = mi.render(mi.load_dict(parts), spp=samples, seed=seed)
    return np.asarray(drawn, dtype=np.float64).reshape(*size, 3)
