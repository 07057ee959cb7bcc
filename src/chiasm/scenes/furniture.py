"""Things that stand in rooms, made of boxes, cylinders and spheres; each has its origin on the floor below its middle.

A piece's back is towards -y and its front towards +y. `instance` counts things within a piece (books on a shelf).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from chiasm.scenes.primitives import Kind, Primitive
from chiasm.scenes.textures import Floats, Look, Material, hue

Parts = list[Primitive]
Three = Sequence[float]
UPRIGHT = np.eye(3)


def turned(angle: float, axis: int = 2) -> Floats:
    """A rotation (3 x 3) by `angle` radians about a world axis."""
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.eye(3)
    out[first, first] = out[second, second] = np.cos(angle)
    out[second, first], out[first, second] = np.sin(angle), -np.sin(angle)
    return out


def body(kind: Kind, label: str, centre: Three, half: Three, material: Material) -> Primitive:
    """An upright primitive: centre and half extents in metres."""
    middle, extents = np.array(centre, dtype=np.float64), np.array(half, dtype=np.float64)
    return Primitive(kind, middle, extents, UPRIGHT, material, label)


def box(label: str, low: Three, size: Three, material: Material, instance: int = 0) -> Primitive:
    """A box: `low` is the middle of its underside, size its width (x), depth (y) and height (z), metres."""
    middle = (low[0], low[1], low[2] + size[2] / 2)
    made = body("box", label, middle, [edge / 2 for edge in size], material)
    return dataclasses.replace(made, instance=instance)


def rod(label: str, low: Three, radius: float, height: float, material: Material) -> Primitive:
    """An upright cylinder; `low` is the middle of its underside, metres."""
    return body("cylinder", label, (low[0], low[1], low[2] + height / 2), (radius, radius, height / 2), material)


def ball(label: str, centre: Three, radii: Three, material: Material, instance: int = 0) -> Primitive:
    """An upright ellipsoid, metres."""
    return dataclasses.replace(body("sphere", label, centre, radii, material), instance=instance)


def moved(parts: Sequence[Primitive], yaw: float, offset: Three, first: int = 0) -> Parts:
    """The parts turned about z by `yaw` (radians), moved by `offset` (metres), instances counted from `first`."""
    turn, shift = turned(yaw), np.asarray(offset, dtype=np.float64)
    return [
        dataclasses.replace(
            part, centre=turn @ part.centre + shift, turn=turn @ part.turn, instance=part.instance + first
        )
        for part in parts
    ]


def bounds(parts: Sequence[Primitive]) -> Floats:
    """The upright box around the parts: 2 x 3, lowest and highest x, y, z in metres."""
    lows, highs = [], []
    for part in parts:
        reach = np.abs(part.turn) @ part.half
        lows.append(part.centre - reach)
        highs.append(part.centre + reach)
    return np.stack([np.min(lows, axis=0), np.max(highs, axis=0)])


def _legs(label: str, size: Three, thick: float, material: Material, round_legs: bool) -> Parts:
    """Four legs under a rectangle of size width, depth, height."""
    places = [(sx * (size[0] / 2 - thick), sy * (size[1] / 2 - thick), 0.0) for sx in (-1, 1) for sy in (-1, 1)]
    if round_legs:
        return [rod(label, place, thick / 2, size[2], material) for place in places]
    return [box(label, place, (thick, thick, size[2]), material) for place in places]


def table(look: Look, label: str = "table") -> Parts:
    """A table with four legs or one, or a low coffee table."""
    rng = look.rng
    wide, deep = rng.uniform(0.8, 1.9), rng.uniform(0.6, 1.0)
    high = rng.uniform(0.35, 0.5) if rng.random() < 0.3 else rng.uniform(0.68, 0.78)
    top = look.surface(("wood", "wood", "plain", "cloudy"))
    legs = top if rng.random() < 0.5 else look.surface(("plain", "wood"))
    thick = rng.uniform(0.02, 0.06)
    if rng.random() < 0.2:
        radius = rng.uniform(0.35, 0.65)
        column = rod(label, (0, 0, 0.03), 0.04, high - thick - 0.03, legs)
        foot, plate = (0, 0, 0), (0, 0, high - thick)
        return [rod(label, foot, radius * 0.6, 0.03, legs), column, rod(label, plate, radius, thick, top)]
    parts = _legs(label, (wide, deep, high - thick), rng.uniform(0.04, 0.09), legs, rng.random() < 0.3)
    return [*parts, box(label, (0, 0, high - thick), (wide, deep, thick), top)]


def desk(look: Look) -> Parts:
    """A desk with a chest of drawers under one end."""
    rng = look.rng
    wide, deep, high = rng.uniform(1.0, 1.7), rng.uniform(0.55, 0.8), rng.uniform(0.7, 0.77)
    top = look.surface(("wood", "wood", "plain"))
    side = wide / 2 - 0.22
    parts = [box("desk", (0, 0, high - 0.04), (wide, deep, 0.04), top)]
    parts += [box("desk", (side, 0, 0.02), (0.4, deep - 0.06, high - 0.06), top)]
    parts += [box("desk", (side, deep / 2 - 0.03, 0.07 + 0.2 * k), (0.36, 0.04, 0.17), top) for k in range(3)]
    return [*parts, box("desk", (-wide / 2 + 0.03, 0, 0), (0.04, deep - 0.04, high - 0.04), top)]


def chair(look: Look) -> Parts:
    """A dining chair, or an office chair on one column."""
    rng = look.rng
    wide, deep, seat = rng.uniform(0.4, 0.52), rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48)
    frame, cover = look.surface(("wood", "plain")), look.surface()
    back = rng.uniform(0.35, 0.55)
    if rng.random() < 0.3:
        parts = [rod("chair", (0, 0, 0.04), 0.03, seat - 0.06, frame)]
        spokes = [body("box", "chair", (0, 0, 0.05), (0.28, 0.025, 0.02), frame) for _ in range(3)]
        parts += [dataclasses.replace(spoke, turn=turned(k * np.pi / 3)) for k, spoke in enumerate(spokes)]
        tall = box("chair", (0, -deep / 2 + 0.03, seat + 0.12), (wide * 0.9, 0.06, back), cover)
        return [*parts, box("chair", (0, 0, seat - 0.03), (wide, deep, 0.08), cover), tall]
    parts = _legs("chair", (wide, deep, seat - 0.03), 0.04, frame, rng.random() < 0.4)
    parts.append(box("chair", (0, 0, seat - 0.03), (wide, deep, rng.uniform(0.03, 0.08)), cover))
    posts = [box("chair", (s * (wide / 2 - 0.02), -deep / 2 + 0.02, seat), (0.04, 0.04, back), frame) for s in (-1, 1)]
    if rng.random() < 0.5:
        count = int(rng.integers(2, 5))
        rows = [(seat + back * (k + 0.7) / count, back / count * 0.45) for k in range(count)]
    else:
        rows = [(seat + 0.12, back - 0.12)]
    slats = [box("chair", (0, -deep / 2 + 0.02, z), (wide - 0.06, 0.025, high), cover) for z, high in rows]
    return [*parts, *posts, *slats]


def _pillow(look: Look, centre: Three, wide: float, instance: int) -> Primitive:
    cover = look.surface(("plain", "stripes", "checks", "cloudy"), 0.5)
    return ball("pillow", centre, (wide / 2, 0.2, 0.08), cover, instance)


def bed(look: Look) -> Parts:
    """A single or double bed: frame, mattress, blanket, pillows, headboard."""
    rng = look.rng
    wide, long, high = float(rng.choice([0.95, 1.4, 1.65])), rng.uniform(1.95, 2.1), rng.uniform(0.25, 0.38)
    frame, sheet = look.surface(("wood", "plain")), look.surface(("plain",), surprise=0.0)
    cover = look.surface(("plain", "stripes", "checks", "cloudy", "gradient"))
    parts = [box("bed", (0, 0, 0.04), (wide, long, high - 0.04), frame)]
    parts.append(box("bed", (0, 0.02, high), (wide - 0.06, long - 0.06, 0.2), sheet))
    reach = long * rng.uniform(0.55, 0.72)
    parts.append(box("bed", (0, long / 2 - reach / 2, high - 0.12), (wide + 0.02, reach + 0.02, 0.36), cover))
    parts.append(box("bed", (0, -long / 2 - 0.03, 0), (wide + 0.06, 0.06, rng.uniform(0.7, 1.25)), frame))
    count = 1 if wide < 1.2 else 2
    for k in range(count):
        x = (k - (count - 1) / 2) * wide / 2
        parts.append(_pillow(look, (x, -long / 2 + 0.26, high + 0.27), wide / count * 0.8, k + 1))
    return parts


def sofa(look: Look) -> Parts:
    """A sofa or an armchair with cushions and pillows."""
    rng = look.rng
    seats = int(rng.integers(1, 4))
    wide, deep, seat = 0.62 * seats + 0.4, rng.uniform(0.8, 0.95), rng.uniform(0.36, 0.45)
    cover = look.surface(("plain", "plain", "cloudy", "stripes", "speckled"))
    arm, back = rng.uniform(0.5, 0.66), rng.uniform(0.7, 0.95)
    parts = [box("sofa", (0, 0, 0.05), (wide, deep, seat - 0.19), cover)]
    parts += [box("sofa", (s * (wide / 2 - 0.09), 0.01, 0.04), (0.18, deep, arm), cover) for s in (-1, 1)]
    parts.append(box("sofa", (0, -deep / 2 + 0.1, 0.04), (wide - 0.02, 0.2, back), cover))
    pitch = (wide - 0.38) / seats
    for k in range(seats):
        x = (k - (seats - 1) / 2) * pitch
        parts.append(box("sofa", (x, 0.1, seat - 0.14), (pitch - 0.015, deep - 0.24, 0.15), cover))
        if rng.random() < 0.45:
            pillow = _pillow(look, (x, -deep / 2 + 0.3, seat + 0.2), 0.44, k + 1)
            parts.append(dataclasses.replace(pillow, turn=turned(rng.uniform(0.9, 1.3), 0)))
    return parts


def _books(look: Look, low: Three, room: Three, instance: int) -> Parts:
    """A row of books on a board, in colours of their own: `room` is the free width, depth and height."""
    rng = look.rng
    parts: Parts = []
    x, end = low[0] - room[0] / 2, low[0] + room[0] / 2 * rng.uniform(0.2, 1.0)
    while len(parts) < 14:
        thick, tall = rng.uniform(0.025, 0.08), room[2] * rng.uniform(0.55, 0.92)
        if x + thick > end:
            break
        cover = look.painted(hue(rng, 0.7, (0.1, 0.9)))
        parts.append(box("books", (x + thick / 2, low[1], low[2]), (thick - 0.003, room[1], tall), cover, instance))
        x += thick
    return parts


def shelf(look: Look, label: str = "bookshelf") -> Parts:
    """Boards between two sides, with books and boxes."""
    rng = look.rng
    wide, deep, high = rng.uniform(0.6, 1.3), rng.uniform(0.26, 0.4), rng.uniform(1.0, 2.1)
    wood = look.surface(("wood", "wood", "plain"))
    parts = [box(label, (s * (wide / 2 - 0.015), 0, 0), (0.03, deep, high), wood) for s in (-1, 1)]
    if rng.random() < 0.7:
        parts.append(box(label, (0, -deep / 2 + 0.01, 0), (wide - 0.06, 0.02, high), wood))
    boards = max(3, round(high / rng.uniform(0.32, 0.45)))
    step = (high - 0.03) / (boards - 1)
    for k in range(boards):
        parts.append(box(label, (0, 0, k * step), (wide - 0.06, deep - 0.01, 0.03), wood))
        if k == boards - 1:
            break
        free = (wide - 0.08, deep * 0.7, step - 0.04)
        if rng.random() < (0.75 if label == "bookshelf" else 0.25):
            parts += _books(look, (0, 0, k * step + 0.03), free, k + 1)
        elif rng.random() < 0.6:
            size = (rng.uniform(0.15, 0.4), deep * 0.7, free[2] * rng.uniform(0.4, 0.9))
            x = rng.uniform(-0.5, 0.5) * (free[0] - size[0])
            parts.append(box("box", (x, 0, k * step + 0.03), size, look.image(), k + 1))
    return parts


def chest(look: Look, label: str = "cabinet") -> Parts:
    """A body with doors or drawers: cabinet, dresser, night stand, wardrobe."""
    rng = look.rng
    low, high = {
        "cabinet": ((0.6, 0.4, 0.7), (1.5, 0.6, 2.1)),
        "dresser": ((0.8, 0.42, 0.7), (1.5, 0.55, 1.2)),
        "night stand": ((0.38, 0.35, 0.45), (0.55, 0.45, 0.65)),
    }[label]
    wide, deep, tall = (float(edge) for edge in rng.uniform(low, high))
    wood, knob = look.surface(("wood", "wood", "plain")), look.painted(hue(rng, 0.1))
    parts = [box(label, (0, 0, 0.04), (wide, deep, tall - 0.04), wood)]
    columns = max(1, round(wide / 0.5))
    rows = 1 if label == "cabinet" else max(2, round(tall / 0.27))
    across, up = wide / columns, (tall - 0.08) / rows
    for k in range(columns * rows):
        x, z = (k % columns - (columns - 1) / 2) * across, 0.07 + (k // columns) * up
        parts.append(box(label, (x, deep / 2 + 0.008, z), (across - 0.02, 0.02, up - 0.02), wood))
        side = 0.4 * across if rows == 1 else 0.0
        parts.append(ball(label, (x + side, deep / 2 + 0.03, z + up / 2), (0.018, 0.018, 0.018), knob))
    return parts


def lamp(look: Look) -> Parts:
    """A floor lamp; its shade glows."""
    rng = look.rng
    high, radius = rng.uniform(1.3, 1.75), rng.uniform(0.14, 0.24)
    metal = look.painted(hue(rng, 0.1))
    shade = look.painted(np.array([0.9, 0.8, 0.6]), emission=float(rng.uniform(0.3, 2.0)))
    parts = [rod("lamp", (0, 0, 0), 0.15, 0.03, metal), rod("lamp", (0, 0, 0.03), 0.015, high, metal)]
    glow = rod("lamp", (0, 0, high), radius, rng.uniform(0.2, 0.32), shade)
    return [*parts, dataclasses.replace(glow, casts=False)]


def boxes(look: Look) -> Parts:
    """A stack of one to three cartons, or a bag."""
    rng = look.rng
    if rng.random() < 0.3:
        size = rng.uniform((0.14, 0.1, 0.15), (0.24, 0.16, 0.24))
        return [ball("bag", (0, 0, size[2] * 0.98), size.tolist(), look.surface())]
    parts: Parts = []
    z, size = 0.0, rng.uniform(0.25, 0.6, 3)
    for k in range(int(rng.integers(1, 4))):
        made = box("box", (0, 0, z), size.tolist(), look.image() if rng.random() < 0.6 else look.surface(), k)
        parts.append(dataclasses.replace(made, turn=turned(rng.normal(0.0, 0.1))))
        z += size[2]
        size = size * rng.uniform(0.55, 0.95, 3)
    return parts


def person(look: Look, label: str = "person") -> Parts:
    """Somebody standing."""
    rng = look.rng
    high = rng.uniform(1.5, 1.9)
    skin = look.painted(np.array([0.6, 0.38, 0.28]) * rng.uniform(0.3, 1.2))
    coat, trousers = look.surface(tile=0.5), look.surface(("plain", "speckled"))
    hair = look.painted(hue(rng, 0.3, (0.05, 0.5)))
    leg, wide, stride = 0.48 * high, rng.uniform(0.16, 0.22), rng.uniform(0.0, 0.2)
    parts = [rod(label, (s * 0.09, s * stride, 0), 0.075, leg, trousers) for s in (-1, 1)]
    parts.append(ball(label, (0, 0, leg + 0.17 * high), (wide, 0.13, 0.21 * high), coat))
    parts += [rod(label, (s * (wide + 0.03), 0, leg - 0.06), 0.045, 0.34 * high, coat) for s in (-1, 1)]
    parts.append(ball(label, (0, 0, high * 0.92), (0.09, 0.105, 0.125), skin))
    return [*parts, ball(label, (0, -0.02, high * 0.945), (0.095, 0.105, 0.11), hair)]


def counter(look: Look) -> Parts:
    """A kitchen counter with a sink, sometimes with a refrigerator at its end."""
    rng = look.rng
    wide, deep, high = rng.uniform(1.4, 2.8), 0.6, rng.uniform(0.86, 0.94)
    front, top = look.surface(("plain", "wood")), look.surface(("speckled", "cloudy", "plain"))
    metal = look.painted(np.array([0.5, 0.5, 0.52]), 0.5)
    parts = [box("cabinet", (0, 0, 0.05), (wide, deep - 0.04, high - 0.09), front)]
    doors = round(wide / 0.5)
    for k in range(doors):
        x = (k - (doors - 1) / 2) * wide / doors
        parts.append(box("cabinet", (x, deep / 2 - 0.01, 0.12), (wide / doors - 0.02, 0.02, high - 0.2), front))
    parts.append(box("counter", (0, 0, high - 0.04), (wide, deep, 0.04), top, 1))
    x = rng.uniform(-0.3, 0.3) * wide
    parts.append(box("sink", (x, 0.02, high), (0.5, 0.4, 0.012), metal, 2))
    parts.append(rod("sink", (x, -0.2, high), 0.015, 0.28, metal))
    parts[-1] = dataclasses.replace(parts[-1], instance=2)
    if rng.random() < 0.6:
        steel = look.painted(hue(rng, 0.1, (0.5, 0.95)), 0.4)
        side, tall = wide / 2 + 0.34, rng.uniform(1.5, 1.9)
        parts.append(box("refridgerator", (side, 0.0, 0.02), (0.62, 0.62, tall), steel, 3))
        parts.append(box("refridgerator", (side, 0.32, 0.05), (0.6, 0.03, tall * 0.6), steel, 3))
        parts.append(box("refridgerator", (side, 0.32, 0.08 + tall * 0.6), (0.6, 0.03, tall * 0.36), steel, 3))
    return parts


def toilet(look: Look) -> Parts:
    """A toilet with its cistern."""
    white = look.painted(np.array([0.85, 0.85, 0.83]), 0.5)
    bowl = [ball("toilet", (0, 0.1, 0.28), (0.19, 0.26, 0.2), white), rod("toilet", (0, 0, 0), 0.13, 0.25, white)]
    seat = body("cylinder", "toilet", (0, 0.1, 0.42), (0.2, 0.26, 0.02), white)
    return [*bowl, seat, box("toilet", (0, -0.25, 0.36), (0.4, 0.18, 0.4), white)]


def bathtub(look: Look) -> Parts:
    """A tub of four walls and a bottom, sometimes behind a shower curtain."""
    rng = look.rng
    wide, deep, high = rng.uniform(1.5, 1.75), rng.uniform(0.7, 0.8), rng.uniform(0.48, 0.6)
    white = look.painted(np.array([0.85, 0.85, 0.83]), 0.5)
    parts = [box("bathtub", (0, s * (deep / 2 - 0.04), 0), (wide, 0.08, high), white) for s in (-1, 1)]
    parts += [box("bathtub", (s * (wide / 2 - 0.04), 0, 0), (0.08, deep - 0.16, high), white) for s in (-1, 1)]
    parts.append(box("bathtub", (0, 0, 0), (wide - 0.16, deep - 0.16, 0.15), white))
    if rng.random() < 0.5:
        cloth = look.surface(("plain", "stripes", "checks", "cloudy"))
        for k in range(int(rng.integers(4, 10))):
            parts.append(rod("shower curtain", (wide / 2 - 0.05 - 0.09 * k, deep / 2 + 0.06, 0.2), 0.052, 1.8, cloth))
            parts[-1] = dataclasses.replace(parts[-1], instance=1)
    return parts


def basin(look: Look) -> Parts:
    """A wash basin on a column or a cabinet."""
    white = look.painted(np.array([0.85, 0.85, 0.83]), 0.5)
    if look.rng.random() < 0.5:
        below = rod("sink", (0, -0.08, 0), 0.09, 0.7, white)
    else:
        below = box("cabinet", (0, -0.05, 0.05), (0.5, 0.35, 0.68), look.surface(("wood", "plain")), 1)
    bowl = body("cylinder", "sink", (0, 0, 0.78), (0.28, 0.23, 0.06), white)
    return [below, bowl, rod("sink", (0, -0.19, 0.84), 0.015, 0.16, white)]


Piece = Callable[[Look], Parts]
