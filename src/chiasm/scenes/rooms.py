"""Rooms: four walls, what hangs on them, furniture that does not interpenetrate, and a camera at eye height."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from chiasm.contracts import Intrinsics
from chiasm.scenes import furniture as made
from chiasm.scenes.furniture import Parts, Piece
from chiasm.scenes.primitives import Light, Primitive, Scene, View, looking, nearest
from chiasm.scenes.textures import Floats, Look, hue

Three = Sequence[float]


def _desk_chair(look: Look) -> Parts:
    """A desk with a chair before it, and what lies on it."""
    parts = made.desk(look)
    top = made.bounds(parts)[1]
    seat = made.moved(made.chair(look), np.pi + look.rng.normal(0.0, 0.3), (-0.15, top[1] + 0.25, 0.0), 1)
    return [*parts, *seat, *_on_top(look, (top[0] - 0.1, top[1] - 0.08, top[2]), 2)]


def _on_top(look: Look, reach: Three, first: int) -> Parts:
    """Small things on a top: reach is its half width, half depth and height; each has a place of its own."""
    rng = look.rng
    parts: Parts = []
    slots = max(1, int(reach[0] * 2 / 0.35))
    for k in range(slots):
        if rng.random() < 0.45:
            continue
        x, y = (k + 0.5) * reach[0] * 2 / slots - reach[0], rng.uniform(-0.6, 0.6) * max(reach[1] - 0.1, 0.0)
        place, one = (x, y, reach[2]), first + k
        kind = rng.choice(["books", "box", "paper", "cup", "television", "lamp", "bag"])
        if kind == "books":
            size = [0.16, 0.22, rng.uniform(0.02, 0.12)]
            parts.append(made.box("books", place, size, look.painted(hue(rng, 0.7)), one))
        elif kind == "box":
            parts.append(made.box("box", place, rng.uniform(0.1, 0.24, 3).tolist(), look.image(), one))
        elif kind == "paper":
            parts.append(made.box("paper", place, (0.21, 0.29, 0.004), look.painted(np.full(3, 0.85)), one))
        elif kind == "television" and reach[2] > 0.5:
            parts.append(made.box("television", place, (0.2, 0.14, 0.02), look.painted(np.full(3, 0.03)), one))
            screen = (0.33, 0.03, 0.3)
            parts.append(made.box("television", (x, y - 0.02, reach[2] + 0.02), screen, look.image(), one))
        elif kind == "lamp":
            shade = look.painted(np.array([0.9, 0.8, 0.6]), emission=float(rng.uniform(0.2, 2.0)))
            small = [made.rod("lamp", place, 0.02, 0.25, look.painted(hue(rng)))]
            small.append(dataclasses.replace(made.rod("lamp", (x, y, reach[2] + 0.22), 0.11, 0.16, shade), casts=False))
            parts += [dataclasses.replace(part, instance=one) for part in small]
        elif kind == "bag":
            size = rng.uniform(0.05, 0.13, 3).tolist()
            parts.append(made.ball("bag", (x, y, reach[2] + size[2]), size, look.surface(), one))
        else:
            cup = made.rod("otherstructure", place, rng.uniform(0.03, 0.07), rng.uniform(0.08, 0.28), look.surface())
            parts.append(dataclasses.replace(cup, instance=one))
    return parts


def _dining(look: Look) -> Parts:
    """A table with chairs around it and things on it."""
    rng = look.rng
    parts = made.table(look)
    half = made.bounds(parts)[1]
    parts = [*parts, *_on_top(look, (half[0] - 0.08, half[1] - 0.08, half[2]), 1)]
    if half[2] < 0.6:
        return parts
    first = 20
    for side in (-1, 1):
        for k in range(int(half[0] // 0.32)):
            if rng.random() < 0.3:
                continue
            x = (k + 0.5) * 2 * half[0] / max(1, int(half[0] // 0.32)) - half[0]
            place = (x, side * (half[1] + rng.uniform(0.22, 0.4)), 0.0)
            facing = np.pi / 2 + side * np.pi / 2 + rng.normal(0.0, 0.12)
            parts += made.moved(made.chair(look), facing, place, first)
            first += 1
    return parts


def _topped(piece: Parts, look: Look) -> Parts:
    """A low chest with things on it."""
    high = made.bounds(piece)[1]
    if high[2] > 1.3:
        return piece
    return [*piece, *_on_top(look, (high[0] - 0.06, high[1] - 0.06, high[2]), 1)]


def _stand(look: Look) -> Parts:
    """A television on a low chest."""
    parts = made.chest(look, "dresser")
    half = made.bounds(parts)[1]
    wide = min(half[0] * 1.8, look.rng.uniform(0.8, 1.4))
    dark = look.painted(np.full(3, 0.02), 0.6)
    screen = look.image() if look.rng.random() < 0.4 else dark
    foot = made.box("television", (0, 0, half[2]), (0.4, 0.2, 0.03), dark, 1)
    return [*parts, foot, made.box("television", (0, 0, half[2] + 0.03), (wide, 0.06, wide * 0.57), screen, 1)]


_KINDS: dict[str, tuple[Piece, ...]] = {
    "bedroom": (
        made.bed, lambda look: _topped(made.chest(look, "night stand"), look), made.chest, made.shelf, _desk_chair,
        lambda look: _topped(made.chest(look, "dresser"), look), made.lamp, made.chair, made.boxes,
    ),
    "living room": (
        made.sofa, made.sofa, _stand, made.shelf, made.lamp, _dining, made.chest, made.sofa, made.boxes, made.person,
    ),
    "kitchen": (made.counter, _dining, made.counter, made.chest, lambda look: made.shelf(look, "shelves"), made.boxes),
    "bathroom": (made.toilet, made.basin, made.bathtub, made.chest, lambda look: made.shelf(look, "shelves")),
    "office": (
        _desk_chair, made.shelf, _desk_chair, made.chest, made.boxes, lambda look: made.shelf(look, "shelves"),
        made.person, made.lamp,
    ),
    "classroom": (_dining, _desk_chair, _dining, made.chair, _dining, made.chest, made.person, made.chair),
}  # fmt: skip
_SIZES = {"bathroom": (2.0, 3.4), "kitchen": (2.6, 5.0), "bedroom": (3.0, 5.0), "classroom": (5.0, 8.0)}


class _Floor:
    """What stands where: upright boxes that must not meet."""

    def __init__(self, size: Floats) -> None:
        self.size = np.asarray(size)
        self.parts: Parts = []
        self.taken: list[Floats] = []
        self.instances = 10

    def free(self, low: Floats, high: Floats) -> bool:
        """Whether the upright box between two corners lies in the room and meets nothing."""
        inside = (low > -0.012).all() and (high < self.size + 0.012).all()
        return bool(inside) and not any((low < there[1]).all() and (there[0] < high).all() for there in self.taken)

    def add(self, parts: Parts, yaw: float, offset: Three, clear: float = 0.0) -> bool:
        """Put a piece there if nothing is in the way; `clear` metres above and around it stay free too."""
        placed = made.moved(parts, yaw, offset, self.instances)
        around = made.bounds(placed)
        if not self.free(*around):
            return False
        self.parts += placed
        self.instances = 1 + max(part.instance for part in placed)
        self.taken.append(around + np.array([[-clear, -clear, 0.0], [clear, clear, 0.0]]))
        return True


def _against(
    floor: _Floor, rng: np.random.Generator, parts: Parts, wall: int, height: float = 0.0
) -> tuple[float, Three]:
    """A yaw and an offset that put a piece's back to a wall, at a random place along it."""
    low, high = made.bounds(parts)
    length = floor.size[wall % 2]
    free = max(length - (high[0] - low[0]), 0.0)
    along = rng.uniform(0.0, 1.0) * free
    along = along - low[0] if wall < 2 else along + high[0]
    depth = -low[1] + 0.008
    place = [(along, depth), (floor.size[0] - depth, along), (along, floor.size[1] - depth), (depth, along)][wall]
    return wall * np.pi / 2, (*place, height)


def _window(look: Look) -> Parts:
    """Panes that let daylight in, a frame, and curtains or blinds."""
    rng = look.rng
    wide, high = rng.uniform(0.7, 2.0), rng.uniform(0.8, 1.4)
    frame = look.painted(hue(rng, 0.15, (0.3, 0.95)))
    day = dataclasses.replace(look.image(("gradient", "cloudy", "windows")), emission=float(rng.uniform(0.3, 4.0)))
    parts = [made.box("window", (0, 0.0, 0), (wide, 0.02, high), day)]
    for k in range(int(rng.integers(2, 4)) + 1):
        share = k / 2 if k < 3 else 0.5
        parts.append(made.box("window", ((share - 0.5) * wide, 0.015, 0), (0.05, 0.05, high), frame))
    parts += [made.box("window", (0, 0.015, z), (wide + 0.05, 0.055, 0.05), frame) for z in (-0.02, high - 0.03)]
    kind = rng.random()
    if kind < 0.35:
        cloth = look.surface(("plain", "stripes", "cloudy"))
        drop = rng.uniform(0.3, 0.75)
        for side in (-1, 1):
            for k in range(int(rng.integers(3, 7))):
                x = side * (wide / 2 + 0.15 - 0.07 * k)
                fold = made.rod("curtain", (x, 0.09 + 0.015 * (k % 2), -drop), 0.042, high + drop + 0.1, cloth)
                parts.append(dataclasses.replace(fold, instance=1 if side < 0 else 2))
    elif kind < 0.55:
        slat, count = look.painted(hue(rng, 0.2, (0.4, 0.95))), int(rng.integers(5, 16))
        for k in range(count):
            parts.append(made.box("blinds", (0, 0.07, high - 0.04 - 0.05 * k), (wide + 0.02, 0.03, 0.035), slat, 1))
    return [part for part in parts if part.kind != "box" or part.half[2] > 0.0]


def _flat(look: Look, label: str) -> Parts:
    """Something that hangs flat on the wall."""
    rng = look.rng
    low, high = {
        "picture": ((0.3, 0.3), (1.1, 0.9)), "whiteboard": ((1.2, 0.8), (2.4, 1.2)),
        "mirror": ((0.4, 0.6), (1.0, 1.2)),
        "television": ((0.7, 0.4), (1.3, 0.75)), "towel": ((0.35, 0.5), (0.6, 0.9)),
        "clothes": ((0.4, 0.6), (0.6, 1.0)),
        "paper": ((0.2, 0.2), (0.4, 0.5)), "shelves": ((0.6, 0.3), (1.2, 0.5)),
    }[label]  # fmt: skip
    wide, tall = (float(edge) for edge in rng.uniform(low, high))
    if label == "shelves":
        wood = look.surface(("wood", "plain"))
        boards = [made.box(label, (0, 0.1, z), (wide, 0.2, 0.025), wood) for z in (0.0, tall)]
        return [*boards, *made.moved(_on_top(look, (wide / 2, 0.08, 0.025), 1), 0.0, (0, 0.1, 0))]
    if label in ("towel", "clothes"):
        return [made.box(label, (0, 0.02, 0), (wide, 0.03, tall), look.surface(tile=0.6))]
    inside = look.image()
    if label == "whiteboard":
        inside = look.painted(np.full(3, 0.8), 0.2)
    if label == "mirror":
        inside = look.surface(("gradient", "cloudy"), 0.0, surprise=0.0)
    frame, edge = look.painted(hue(rng)), rng.uniform(0.015, 0.05) if label != "paper" else 0.001
    border = made.box(label, (0, 0.0, 0), (wide + 2 * edge, 0.025, tall + 2 * edge), frame)
    return [border, made.box(label, (0, 0.012, edge), (wide, 0.02, tall), inside)]


def _door(look: Look) -> Parts:
    rng = look.rng
    wide, tall = rng.uniform(0.75, 0.95), rng.uniform(1.95, 2.1)
    leaf, frame = look.surface(("plain", "wood")), look.surface(("plain",))
    parts = [made.box("door", (0, 0, 0), (wide, 0.03, tall), leaf)]
    parts += [made.box("door", (s * (wide / 2 + 0.03), 0.01, 0), (0.07, 0.06, tall), frame) for s in (-1, 1)]
    parts.append(made.box("door", (0, 0.01, tall), (wide + 0.13, 0.06, 0.07), frame))
    if rng.random() < 0.6:
        for z, high in ((0.15, 0.75), (1.02, 0.85)):
            parts.append(made.box("door", (0, 0.015, z), (wide * 0.7, 0.02, high), leaf))
    return [*parts, made.ball("door", (0.4 * wide, 0.07, 1.0), (0.03, 0.03, 0.03), look.painted(hue(rng, 0.1), 0.5))]


def _shell(look: Look, size: Floats) -> Parts:
    """Floor, ceiling and four walls as planes; a skirting board; sometimes the walls differ."""
    rng = look.rng
    wide, long, high = size
    floor = look.surface(("wood", "wood", "checks", "cloudy", "speckled", "plain", "bricks"), rng.uniform(0.6, 2.0))
    ceiling = look.surface(("plain",), surprise=0.05)
    walls = look.surface(("plain", "plain", "plain", "plain", "stripes", "bricks", "cloudy", "checks"), 1.6, 0.08)
    parts = [made.body("plane", "floor", (wide / 2, long / 2, 0), (wide / 2, long / 2, 0), floor)]
    parts.append(made.body("plane", "ceiling", (wide / 2, long / 2, high), (wide / 2, long / 2, 0), ceiling))
    skirting = look.painted(hue(rng, 0.2, (0.3, 0.95))) if rng.random() < 0.6 else None
    for side in range(4):
        paint = walls if rng.random() < 0.8 else look.surface(("plain", "stripes", "bricks"), 1.6)
        length = size[side % 2]
        middle = [(wide / 2, 0), (wide, long / 2), (wide / 2, long), (0, long / 2)][side]
        wall = made.body("plane", "wall", (*middle, high / 2), (length / 2, high / 2, 0), paint)
        upright = made.turned(side * np.pi / 2) @ made.turned(np.pi / 2, 0)
        parts.append(dataclasses.replace(wall, turn=upright, instance=2 + side, casts=False))
        if skirting is not None:
            board = made.box("wall", (0, 0.006, 0), (length, 0.012, 0.09), skirting, 2 + side)
            parts += made.moved([board], side * np.pi / 2, (*middle, 0.0))
    parts[0], parts[1] = (dataclasses.replace(part, instance=k, casts=False) for k, part in enumerate(parts[:2]))
    return parts


def _furnish(floor: _Floor, look: Look, kind: str) -> None:
    rng = look.rng
    for _ in range(int(rng.integers(1, 3))):
        door = _door(look)
        floor.add(door, *_against(floor, rng, door, int(rng.integers(4))), clear=0.5)
    pieces = list(_KINDS[kind])
    wanted = [*pieces[:2], *[pieces[int(k)] for k in rng.integers(0, len(pieces), int(rng.integers(6, 13)))]]
    for build in wanted:
        parts = build(look)
        for _ in range(8):
            yaw, place = _against(floor, rng, parts, int(rng.integers(4)))
            if rng.random() < 0.25 and min(floor.size[:2]) > 3.2:
                yaw = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else float(rng.integers(4)) * np.pi / 2
                place = (*rng.uniform(0.25, 0.75, 2) * floor.size[:2], 0.0)
            if floor.add(parts, yaw, place, clear=0.03):
                break
    _hang(floor, look, kind)
    if rng.random() < 0.5:
        mat = made.box("floor mat", (0, 0, 0.001), (*rng.uniform(0.6, 2.4, 2), 0.012), look.surface(tile=1.5))
        spot = rng.uniform(0.35, 0.65, 2) * floor.size[:2]
        floor.parts += made.moved([mat], rng.normal(0, 0.1), (*spot, 0.0), floor.instances)
        floor.instances += 1
    for _ in range(int(rng.integers(0, 3))):
        heap, label = rng.uniform((0.12, 0.12, 0.03), (0.3, 0.3, 0.08)), str(rng.choice(["clothes", "bag", "pillow"]))
        parts = [made.ball(label, (0, 0, heap[2]), heap.tolist(), look.surface())]
        floor.add(parts, 0.0, (*rng.uniform(0.1, 0.9, 2) * floor.size[:2], 0.0))


def _hang(floor: _Floor, look: Look, kind: str) -> None:
    """Windows, pictures and the like on free places of the walls."""
    rng = look.rng
    hung = ["picture", "picture", "window", "window", "window", "mirror", "television", "whiteboard", "clothes"]
    hung += ["paper"]
    hung += ["towel", "towel", "mirror"] if kind == "bathroom" else ["shelves", "picture"]
    for label in rng.choice(hung, int(rng.integers(3, 9))):
        parts = _window(look) if label == "window" else _flat(look, str(label))
        for _ in range(4):
            yaw, spot = _against(floor, rng, parts, int(rng.integers(4)), rng.uniform(0.85, 1.4))
            if floor.add(parts, yaw, spot, clear=0.03):
                break


def _lamps(floor: _Floor, look: Look) -> tuple[Light, ...]:
    """One or two lights: below the ceiling, or where a window lets the day in."""
    rng, size = look.rng, floor.size
    lights = []
    for _ in range(int(rng.integers(1, 3))):
        place = np.array([*rng.uniform(0.2, 0.8, 2) * size[:2], size[2] - 0.3])
        if rng.random() < 0.3:
            place[int(rng.integers(2))], place[2] = 0.3, rng.uniform(1.2, 2.0)
        else:
            bulb = look.painted(np.array([0.95, 0.9, 0.8]), emission=6.0)
            hung = [made.ball("lamp", (0, 0, -0.12), (0.14, 0.14, 0.11), bulb)]
            hung.append(made.rod("lamp", (0, 0, -0.02), 0.02, 0.3, bulb))
            hung = [dataclasses.replace(part, casts=False) for part in hung]
            floor.parts += made.moved(hung, 0.0, place.tolist(), floor.instances)
            floor.instances += 1
        colour = np.array([1.0, 0.93, 0.82]) ** rng.uniform(-0.5, 1.5) * rng.uniform(0.6, 1.6)
        lights.append(Light(place, colour, 2.0))
    return tuple(lights)


def _camera(floor: _Floor, bodies: Sequence[Primitive], rng: np.random.Generator, lens: Intrinsics) -> View:
    """The best of a few free places and ways to look: much of the room is seen, and nothing fills the picture."""
    best, chosen = -1.0, View(looking((*floor.size[:2] / 2, 1.4), 0.0), lens)
    v, u = np.mgrid[0:9, 0:12].reshape(2, -1).astype(np.float64)
    u, v = u / 11 * 2 * lens.cx, v / 8 * 2 * lens.cy
    tried, targets = 0, [there.mean(0)[:2] for there in floor.taken] or [floor.size[:2] / 2]
    for _ in range(40):
        at = np.array([*rng.uniform(0.3, 0.7 if rng.random() < 0.3 else 1.0, 2), 0.0]) * (floor.size - 0.3)
        at[2] = np.clip(rng.normal(1.4, 0.25), 0.7, 1.9)
        target = (targets[int(rng.integers(len(targets)))] + rng.normal(0.0, 0.5, 2)) - at[:2]
        if np.hypot(*target) < 1.2:
            continue
        yaw, pitch, roll = float(np.arctan2(-target[0], target[1])), rng.normal(-0.13, 0.14), rng.normal(0, 0.035)
        pose = looking(at.tolist(), yaw, pitch, roll)
        view = View(pose, lens)
        if tried == 9 or not floor.free(at - 0.25, at + 0.25):
            continue
        tried += 1
        hits = nearest(bodies, view.origin, view.rays(u, v))
        seen = len({bodies[k].instance for k in hits.index.tolist() if k >= 0})
        far = float(np.median(hits.depth))
        crowded = 16.0 * float((hits.depth < 0.9).mean()) + 8.0 * (far < 1.5)
        score = seen + 2.0 * min(far, 3.5) - crowded + rng.uniform(0, 3)
        if score > best:
            best, chosen = score, view
    return chosen


def room(look: Look, lens: Intrinsics) -> Scene:
    """A furnished room of 2 to 8 m seen by a pinhole camera; draws everything from `look.rng`."""
    rng = look.rng
    kind = str(rng.choice(list(_KINDS)))
    wide, long = rng.uniform(*_SIZES.get(kind, (3.0, 6.5)), 2)
    size = np.array([wide, long, rng.uniform(2.3, 3.1)])
    floor = _Floor(size)
    shell = _shell(look, size)
    _furnish(floor, look, kind)
    lights = _lamps(floor, look)
    bodies = (*shell, *floor.parts)
    ambient = rng.uniform(0.15, 0.5) * np.array([1.0, 1.0, 1.0]) * rng.normal(1.0, 0.06, 3)
    return Scene(bodies, lights, ambient, _camera(floor, bodies, rng, lens))
