"""A picture of a Scene by ray-casting: texture, lamps, hard shadows, darker corners, and a camera's curve and noise.

    grid of rays ─► nearest ─► reflectance x (ambient x openness + lights x shadow) ─► radiance ─► developed: sRGB
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from chiasm.images.srgb import encoded
from chiasm.scenes.primitives import Bools, Hits, Scene, grouped, nearest, shadowed
from chiasm.scenes.textures import Floats, looked_up


def cast(scene: Scene, size: tuple[int, int]) -> Hits:
    """What the centre of each pixel sees; N = height * width, row by row."""
    v, u = np.mgrid[: size[0], : size[1]].reshape(2, -1).astype(np.float64)
    return nearest(scene.primitives, scene.view.origin, scene.view.rays(u, v))


def _reflectance(scene: Scene, hits: Hits, slant: Floats) -> tuple[Floats, Floats, Floats]:
    """Reflectance N x 3, emission N and gloss N; slant (N) is the cosine between normal and ray."""
    colour, emission, gloss = np.zeros((len(hits.index), 3)), *np.zeros((2, len(hits.index)))
    wide = hits.depth / scene.view.lens.fx / np.sqrt(np.maximum(slant, 0.05))  # metres that a pixel covers
    for number, rays in grouped(hits.index):
        body = scene.primitives[number]
        material = body.material
        across = material.texture.shape[1]
        if material.tile > 0.0:
            u, v = (hits.place[rays] / material.tile + 0.5).T
            texels = wide[rays] / material.tile * across
        else:
            u, v = hits.share[rays, 0], 1.0 - hits.share[rays, 1]
            texels = wide[rays] / (2.0 * float(np.median(body.half)) + 1e-6) * across
        colour[rays] = looked_up(material.levels, u, v, texels)
        emission[rays], gloss[rays] = material.emission, material.gloss
    return colour, emission, gloss


def sky(scene: Scene, directions: Floats) -> Floats:
    """Radiance N x 3 of the sky along world directions (N x 3); black indoors."""
    if scene.sky is None:
        return np.zeros((len(directions), 3))
    unit = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    u = np.arctan2(unit[:, 0], unit[:, 1]) / (2 * np.pi) + 0.5
    v = np.arccos(np.clip(unit[:, 2], -1.0, 1.0)) / np.pi
    return looked_up([scene.sky], u, v, np.ones(len(u)))


def radiance(scene: Scene, hits: Hits, directions: Floats, openness: Floats) -> Floats:
    """Linear light N x 3 that comes along the rays. openness: N in [0, 1], how much ambient light a place gets."""
    out = sky(scene, directions)
    met = np.flatnonzero(hits.index >= 0)
    hits = Hits(*(getattr(hits, field.name)[met] for field in dataclasses.fields(Hits)))
    ways = directions[met]
    points = scene.view.origin + hits.depth[:, None] * ways
    toward = -ways / np.linalg.norm(ways, axis=-1, keepdims=True)
    colour, emission, gloss = _reflectance(scene, hits, (toward * hits.normal).sum(-1))
    light = scene.ambient * (openness[met] * (0.75 + 0.25 * hits.normal[:, 2]))[:, None]
    shine = np.zeros_like(light)
    casting = [body for body in scene.primitives if body.casts]
    for lamp in scene.lights:
        way = lamp.position - points
        far = np.linalg.norm(way, axis=-1)
        way /= far[:, None]
        slant = (way * hits.normal).sum(-1)
        lit = np.flatnonzero(slant > 0.0)
        raised = points[lit] + hits.normal[lit] * (1e-3 + 2e-4 * far[lit])[:, None]
        lit = lit[~shadowed(casting, lamp.position, raised)]
        strength = (lamp.reach / np.maximum(far[lit], 0.1)) ** 2
        light[lit] += (slant[lit] * strength)[:, None] * lamp.colour
        half = way[lit] + toward[lit]
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        peak = np.maximum((half * hits.normal[lit]).sum(-1), 0.0) ** 40
        shine[lit] += (gloss[lit] * peak * strength)[:, None] * lamp.colour
    out[met] = colour * (light + emission[:, None]) + shine
    return out


def openness(scene: Scene, hits: Hits, directions: Floats, size: tuple[int, int]) -> Floats:
    """How open to ambient light each pixel's place is, N in [0.3, 1]: what the picture shows nearby may cover it."""
    depth = np.where(hits.index >= 0, hits.depth, 1e4)
    points = (depth[:, None] * directions).reshape(*size, 3).astype(np.float32)[::2, ::2]
    normal = hits.normal.reshape(*size, 3).astype(np.float32)[::2, ::2]
    height, width = points.shape[:2]
    wide = np.pad(points, ((16, 16), (16, 16), (0, 0)), mode="edge")
    covered = np.zeros((height, width), dtype=np.float32)
    for step in (1, 3, 7, 15):
        for down, across in ((0, step), (0, -step), (step, 0), (-step, 0)):
            way = wide[16 + down : 16 + down + height, 16 + across : 16 + across + width] - points
            square = np.einsum("yxc,yxc->yx", way, way) + np.float32(1e-9)
            raised = np.einsum("yxc,yxc->yx", way, normal) / np.sqrt(square) - np.float32(0.1)
            covered += np.maximum(raised, 0.0) / (1.0 + square / np.float32(0.36))  # fades beyond 0.6 m
    smooth = ndimage.gaussian_filter(covered, 1.0).repeat(2, 0).repeat(2, 1)[: size[0], : size[1]]
    return np.asarray(np.clip(1.0 - 0.14 * smooth, 0.3, 1.0).reshape(-1), dtype=np.float64)


def traced(scene: Scene, hits: Hits, size: tuple[int, int], ragged: Bools) -> Floats:
    """Linear light H x W x 3: one ray for each pixel, four where `ragged` (N) says that surfaces meet."""
    v, u = np.mgrid[: size[0], : size[1]].reshape(2, -1).astype(np.float64)
    directions = scene.view.rays(u, v)
    free = openness(scene, hits, directions, size)
    light = radiance(scene, hits, directions, free)
    again = np.flatnonzero(ragged)
    across, down = np.array([[-0.375, 0.125, 0.375, -0.125], [-0.125, -0.375, 0.125, 0.375]])[:, :, None]
    ways = scene.view.rays((u[again] + across).reshape(-1), (v[again] + down).reshape(-1))
    finer = radiance(scene, nearest(scene.primitives, scene.view.origin, ways), ways, np.tile(free[again], 4))
    light[again] = np.minimum(finer, 8.0).reshape(4, -1, 3).mean(0)
    return light.reshape(*size, 3)


def developed(light: Floats, rng: np.random.Generator) -> Floats:
    """Linear light H x W x 3 as a small camera would show it: sRGB in [0, 1], in steps of 1/255.

    Random within plausible bounds: exposure, white balance, contrast, blur of the lens, vignetting, noise.
    """
    grey = np.maximum(light.mean(-1), 1e-6)
    middle = float(np.exp(np.log(grey).mean()))
    light = light * (rng.uniform(0.12, 0.3) / middle) * rng.normal(1.0, 0.06, 3).clip(0.8, 1.2)
    height, width = light.shape[:2]
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= 1.0 - rng.uniform(0.0, 0.25) * (u**2 + v**2)[..., None] / 2.0
    light = ndimage.gaussian_filter(light, (*[rng.uniform(0.0, 0.7)] * 2, 0.0))
    light = light / (1.0 + np.maximum(light - 0.6, 0.0))  # a soft shoulder; white is reached slowly
    shot, read = rng.uniform(0.0, 3e-3), rng.uniform(0.0, 8e-3)
    light = light + rng.standard_normal(light.shape) * np.sqrt(shot * np.maximum(light, 0.0) + read**2)
    steps: Floats = np.round(encoded(light) * 255.0) / 255.0
    return steps
