"""Streets: road, pavements, rows of houses, trees, poles, signs, fences, cars and people, seen from a car's height.

The street runs along y; the camera stands at y = 0 on the road and looks along it, or somewhat across.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from chiasm.contracts import Intrinsics
from chiasm.scenes import furniture as made
from chiasm.scenes.furniture import Parts
from chiasm.scenes.primitives import Light, Scene, View, looking
from chiasm.scenes.textures import Floats, Look, Material, Tile, hue

SUN = 300.0  # metres to the sun: far enough for parallel shadows


def car(look: Look) -> Parts:
    """A car, van or bus with wheels, windows and lamps; its front is towards +y."""
    rng = look.rng
    van = rng.random() < 0.25
    wide, long = rng.uniform(1.65, 1.9), rng.uniform(3.7, 4.8)
    belt, roof = (1.1, rng.uniform(1.9, 2.4)) if van else (rng.uniform(0.8, 0.95), rng.uniform(1.38, 1.6))
    paint, black = look.painted(hue(rng, 0.9, (0.08, 0.95)), 0.5), look.painted(np.full(3, 0.02))
    glass, cabin = look.painted(hue(rng, 0.2, (0.1, 0.35)), 0.6), long * (0.92 if van else rng.uniform(0.48, 0.6))
    shift = -0.02 if van else -0.3
    parts = [made.box("Car", (0, 0, 0.22), (wide, long, belt - 0.22), paint)]
    parts.append(made.box("Car", (0, shift, belt), (wide - 0.14, cabin, roof - belt - 0.06), glass))
    parts.append(made.box("Car", (0, shift, roof - 0.06), (wide - 0.16, cabin * 0.9, 0.06), paint))
    for end in (-1, 1):
        for side in (-1, 1):
            place = (side * (wide / 2 - 0.08), shift + end * (cabin / 2 - 0.04), belt)
            parts.append(made.box("Car", place, (0.07, 0.09, roof - belt - 0.05), paint))
            hub = (side * (wide / 2 - 0.1), end * long * 0.31, 0.32)
            wheel = made.body("cylinder", "Car", hub, (0.32, 0.32, 0.11), black)
            parts.append(dataclasses.replace(wheel, turn=made.turned(np.pi / 2, 1)))
            shine = look.painted(np.array([0.9, 0.9, 0.8] if end > 0 else [0.7, 0.05, 0.03]), 0.3, 0.5)
            lamp = (side * (wide / 2 - 0.25), end * long / 2, belt - 0.3)
            parts.append(made.box("Car", lamp, (0.3, 0.03, 0.13), shine))
    return [*parts, made.box("Car", (0, 0, 0.25), (wide - 0.1, long + 0.08, 0.2), black)]


def bicyclist(look: Look) -> Parts:
    """Somebody on a bicycle."""
    rng = look.rng
    black, coat = look.painted(np.full(3, 0.05)), look.surface(tile=0.5)
    parts: Parts = []
    for end in (-1, 1):
        wheel = made.body("cylinder", "Bicyclist", (0, end * 0.52, 0.33), (0.33, 0.33, 0.02), black)
        parts.append(dataclasses.replace(wheel, turn=made.turned(np.pi / 2, 1)))
        parts.append(made.rod("Bicyclist", (end * 0.1, 0.0, 0.35), 0.06, 0.55, look.painted(hue(rng))))
    frame = made.body("box", "Bicyclist", (0, 0, 0.6), (0.02, 0.5, 0.025), look.painted(hue(rng, 0.9), 0.4))
    torso = made.ball("Bicyclist", (0, 0.12, 1.2), (0.2, 0.15, 0.36), coat)
    parts += [frame, dataclasses.replace(torso, turn=made.turned(-0.4, 0))]
    parts.append(made.box("Bicyclist", (0, 0.5, 0.95), (0.5, 0.04, 0.04), black))
    return [*parts, made.ball("Bicyclist", (0, 0.3, 1.65), (0.1, 0.11, 0.13), look.painted(hue(rng, 0.4)))]


def tree(look: Look) -> Parts:
    """A trunk under a crown of blobs, or a bush without one."""
    rng = look.rng
    bush = rng.random() < 0.25
    trunk = 0.0 if bush else rng.uniform(1.6, 3.2)
    crown = rng.uniform(0.5, 0.9) if bush else rng.uniform(1.0, 2.4)
    green = np.array([0.1, 0.2, 0.04]) * rng.uniform(0.5, 1.6) * rng.normal(1.0, 0.15, 3)
    leaves = Material(look.tile("cloudy", green * 1.6, green * 0.3), rng.uniform(0.8, 2.0))
    bark = look.surface(("wood", "cloudy"), 0.5, 0.0)
    parts = [] if bush else [made.rod("Tree", (0, 0, 0), rng.uniform(0.09, 0.25), trunk + crown, bark)]
    for _ in range(int(rng.integers(6, 14))):
        size = crown * rng.uniform(0.35, 0.7)
        around = rng.normal(0.0, 0.32, 3) * crown
        radii = (size, size * rng.uniform(0.8, 1.2), size * rng.uniform(0.7, 1.0))
        parts.append(made.ball("Tree", (around[0], around[1], trunk + crown * 0.9 + around[2]), radii, leaves))
    return parts


def pole(look: Look) -> Parts:
    """A lamp post, a post with a sign, or traffic lights."""
    rng = look.rng
    metal = look.painted(hue(rng, 0.15, (0.1, 0.7)))
    kind = rng.random()
    if kind < 0.4:
        high = rng.uniform(4.5, 8.0)
        arm = made.body("box", "Pole", (-0.6, 0, high - 0.05), (0.7, 0.04, 0.04), metal)
        return [made.rod("Pole", (0, 0, 0), rng.uniform(0.05, 0.11), high, metal), arm]
    high = rng.uniform(2.3, 3.4)
    parts = [made.rod("Pole", (0, 0, 0), rng.uniform(0.03, 0.07), high, metal)]
    if kind < 0.6:
        parts.append(made.box("SignSymbol", (0, -0.12, high - 0.9), (0.3, 0.2, 0.9), look.painted(np.full(3, 0.03)), 1))
        for k, colour in enumerate(((0.05, 0.8, 0.2), (0.9, 0.5, 0.05), (0.9, 0.05, 0.03))):
            bulb = look.painted(np.array(colour), 0.0, 3.0 if rng.random() < 0.4 else 0.3)
            parts.append(made.ball("SignSymbol", (0, -0.21, high - 0.75 + 0.28 * k), (0.09, 0.05, 0.09), bulb, 1))
        return parts
    face, size = look.image(("picture", "gradient", "stripes")), rng.uniform(0.25, 0.45)
    if rng.random() < 0.5:
        disc = made.body("cylinder", "SignSymbol", (0, -0.08, high - size), (size, size, 0.015), face)
        return [*parts, dataclasses.replace(disc, turn=made.turned(np.pi / 2, 0), instance=1)]
    tall = size * rng.uniform(0.5, 1.5)
    return [*parts, made.box("SignSymbol", (0, -0.08, high - size), (2 * size, 0.02, tall), face, 1)]


def fence(look: Look, long: float) -> Parts:
    """A fence of `long` metres along x: posts with rails, or a low wall."""
    rng = look.rng
    high, stuff = rng.uniform(0.7, 1.6), look.surface(("wood", "plain", "bricks", "stripes"))
    if rng.random() < 0.4:
        return [made.box("Fence", (0, 0, 0), (long, 0.15, high), stuff)]
    parts = [made.box("Fence", (0, 0, high * z), (long, 0.05, 0.08), stuff) for z in (0.3, 0.85)]
    count = min(40, int(long / rng.uniform(0.25, 1.2)))
    for k in range(count):
        parts.append(made.box("Fence", ((k + 0.5) * long / count - long / 2, 0, 0), (0.09, 0.06, high), stuff))
    return parts


def house(look: Look, wide: float, deep: float) -> Parts:
    """A house, its front at y = 0 towards -y: storeys of windows, a door, ledges, sometimes a roof or a shop."""
    rng = look.rng
    storeys, storey = int(rng.integers(1, 7)), rng.uniform(2.7, 3.6)
    wall, other = hue(rng, 0.4, (0.25, 0.9)), hue(rng, 0.2, (0.3, 0.95))
    facade = Material(look.tile("windows", wall, other), storey * 2)  # mirrored beyond; the windows' middle is at 0
    high = storeys * storey
    parts = [made.body("box", "Building", (0, deep / 2, high / 2), (wide / 2, deep / 2, high / 2), facade)]
    trim = look.painted(other)
    if rng.random() < 0.5:
        parts.append(made.box("Building", (0, deep / 2, high), (wide + 0.4, deep + 0.4, 0.25), trim))
    for k in range(storeys):
        if rng.random() < 0.35:
            reach = rng.uniform(0.06, 0.25)
            parts.append(made.box("Building", (0, -reach / 2, k * storey + storey * 0.96), (wide, reach, 0.12), trim))
        if k and rng.random() < 0.25:
            x = rng.uniform(-0.3, 0.3) * wide
            parts.append(made.box("Building", (x, -0.45, k * storey), (1.8, 0.9, 0.9), trim))
    x = rng.uniform(-0.35, 0.35) * wide
    parts.append(made.box("Building", (x, -0.02, 0), (1.05, 0.08, 2.2), look.surface(("wood", "plain"))))
    if rng.random() < 0.35:
        shop = look.image(("windows", "picture", "gradient"))
        parts.append(made.box("Building", (0, -0.06, 0.4), (wide * 0.8, 0.1, 2.0), shop))
        parts.append(made.box("Building", (0, -0.5, 2.6), (wide * 0.85, 1.0, 0.15), look.surface(("stripes", "plain"))))
    if rng.random() < 0.5:
        slope = np.sqrt(0.5) * deep / 2
        tiles = look.surface(("bricks", "plain"))
        roof = made.body("box", "Building", (0, deep / 2, high), (wide / 2, slope, slope), tiles)
        parts.append(dataclasses.replace(roof, turn=made.turned(np.pi / 4, 0)))
    return parts


class _Street:
    def __init__(self) -> None:
        self.parts: Parts = []
        self.instances = 1
        self.taken: list[Floats] = []

    def add(self, parts: Parts, yaw: float, x: float, y: float, z: float = 0.0) -> None:
        """Put a thing there unless something stands there already."""
        placed = made.moved(parts, yaw, (x, y, z), self.instances)
        around = made.bounds(placed)[:, :2]
        if any((around[0] < there[1]).all() and (there[0] < around[1]).all() for there in self.taken):
            return
        self.parts += placed
        self.taken.append(around)
        self.instances = 1 + max(part.instance for part in placed)


def _ground(street: _Street, look: Look, road: float, paths: tuple[float, float]) -> None:
    """Earth, road with markings, and two raised pavements."""
    rng = look.rng
    dark = np.full(3, rng.uniform(0.04, 0.16)) * rng.normal(1.0, 0.05, 3)
    asphalt = Material(look.tile("speckled", dark, dark * rng.uniform(1.1, 1.7)), rng.uniform(1.0, 4.0))
    earth = look.surface(("cloudy", "speckled", "plain"), 3.0, 0.05)
    stone = look.surface(("bricks", "checks", "speckled", "plain"), 1.5, 0.05)
    flat = made.body("plane", "Pavement", (0, 100, -0.02), (150, 200, 0), earth)
    lane = made.body("plane", "Road", (0, 100, 0), (road / 2, 200, 0), asphalt)
    street.parts += [dataclasses.replace(part, instance=k, casts=False) for k, part in enumerate((flat, lane))]
    street.instances = 2
    for side, path in zip((-1, 1), paths, strict=True):
        walk = made.body("box", "Pavement", (side * (road / 2 + path / 2), 100, 0.0), (path / 2, 200, 0.12), stone)
        street.parts.append(dataclasses.replace(walk, instance=street.instances))
        street.instances += 1
    white = look.painted(np.full(3, 0.7))
    if rng.random() < 0.75:
        for k in range(14):
            line = made.body("plane", "Road", (0, 2 + 6 * k, 0.004), (0.07, 1.5, 0), white)
            street.parts.append(dataclasses.replace(line, instance=1, casts=False))
    if rng.random() < 0.3:
        away = rng.uniform(6, 20)
        for k in range(int(road / 0.9)):
            bar = made.body("plane", "Road", (k * 0.9 - road / 2 + 0.5, away, 0.005), (0.22, 1.5, 0), white)
            street.parts.append(dataclasses.replace(bar, instance=1, casts=False))


def _side(street: _Street, look: Look, side: int, edge: float, path: float) -> None:
    """One side of the street: what stands at the kerb, on the pavement, and the houses behind it."""
    rng = look.rng
    y = rng.uniform(-12.0, -4.0)
    while y < 110.0:
        wide = rng.uniform(6.0, 18.0)
        setback = edge + path + (rng.uniform(0.0, 4.0) if rng.random() < 0.5 else 0.05)
        if rng.random() < 0.8:
            street.add(house(look, wide, rng.uniform(7.0, 11.0)), -side * np.pi / 2, side * setback, y + wide / 2)
        else:
            street.add(fence(look, wide), np.pi / 2, side * (edge + path + 0.2), y + wide / 2)
            for _ in range(int(rng.integers(0, 4))):
                street.add(tree(look), 0.0, side * (edge + path + rng.uniform(3, 9)), y + rng.random() * wide)
        y += wide + (0.05 if rng.random() < 0.6 else rng.uniform(0.5, 9.0))
    y = rng.uniform(3.0, 10.0)
    parked = rng.random() < 0.6
    while parked and y < 60.0:
        if rng.random() < 0.6:
            street.add(car(look), (np.pi if side < 0 else 0.0) + rng.normal(0, 0.03), side * (edge - 1.05), y)
        y += rng.uniform(5.2, 8.0)
    for build, count, reach in ((pole, 6, 0.4), (tree, 5, 0.9)):
        for y in rng.uniform(3.0, 55.0, int(rng.integers(0, count))):
            yaw = np.pi if side < 0 and build is pole and rng.random() < 0.3 else 0.0
            street.add(build(look), yaw, side * (edge + reach), y, 0.12)
    for y in rng.uniform(3.0, 30.0, int(rng.integers(0, 5))):
        x = side * (edge + rng.uniform(0.3, max(path - 0.3, 0.4)))
        street.add(made.person(look, "Pedestrian"), rng.uniform(0, 2 * np.pi), x, y, 0.12)


def _heaven(look: Look) -> tuple[Tile, Light, Floats]:
    """A sky with clouds, its sun, and the ambient light below it."""
    rng = look.rng
    grey = rng.random() < 0.35
    zenith = np.full(3, 0.6) if grey else np.array([0.18, 0.36, 0.75]) * rng.uniform(0.7, 1.3)
    rim = np.full(3, 0.8) if grey else np.array([0.7, 0.8, 0.95]) * rng.uniform(0.8, 1.1)
    clouds = look.tile("cloudy", np.zeros(3), np.ones(3)) * rng.uniform(0.0, 1.0)
    rise = (np.linspace(0.0, 1.0, 128)[:, None, None] * 2).clip(0, 1) ** 2
    sky = zenith + rise * (rim - zenith)
    sky = (sky + clouds * (0.9 - sky)) * rng.uniform(1.2, 2.2)
    turn, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.2)
    way = np.array([np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height)])
    warm = np.array([1.0, 0.94, 0.84]) ** (1.5 / height)
    sun = Light(SUN * way, warm * (rng.uniform(0.0, 0.5) if grey else rng.uniform(1.0, 2.6)), SUN)
    return sky.astype(np.float32), sun, sky.mean((0, 1)) * rng.uniform(0.5, 0.9)


def street(look: Look, lens: Intrinsics) -> Scene:
    """A street seen by a pinhole camera; draws everything from `look.rng`."""
    rng = look.rng
    made_street = _Street()
    road, paths = rng.uniform(6.0, 11.0), (rng.uniform(1.6, 4.5), rng.uniform(1.6, 4.5))
    _ground(made_street, look, road, paths)
    x = rng.uniform(-0.3, 0.3) * road
    for lane in (-0.25, 0.25):
        for y in rng.uniform(6.0, 60.0, int(rng.integers(0, 4))):
            made_street.add(car(look), np.pi if lane < 0 else 0.0, lane * road + rng.normal(0, 0.2), y)
    for y in rng.uniform(4.0, 25.0, int(rng.integers(0, 3))):
        build = bicyclist if rng.random() < 0.6 else (lambda it: made.person(it, "Pedestrian"))
        made_street.add(build(look), rng.uniform(0, 2 * np.pi), rng.uniform(-0.45, 0.45) * road, y)
    for side, path in zip((-1, 1), paths, strict=True):
        _side(made_street, look, side, road / 2, path)
    sky, sun, ambient = _heaven(look)
    yaw = rng.normal(0.0, 0.12) if rng.random() < 0.7 else rng.uniform(-0.8, 0.8)
    pose = looking((x, 0.0, rng.uniform(1.2, 1.9)), float(yaw), rng.normal(0.0, 0.035), rng.normal(0.0, 0.02))
    return Scene(tuple(made_street.parts), (sun,), ambient, View(pose, lens), sky)
