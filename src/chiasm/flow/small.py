"""Large pictures as heads of ns-1 see them that look at the whole: drawn small from `context`, and encoded again.

Things must be as large as those that a head learnt from, and means of features would not do: oriented edges cancel. All
of that is in this file, so that it can go once there are tokens that see things at any size.
"""

from __future__ import annotations

from chiasm.contracts import Features, View
from chiasm.features.layout import Window, assemble, padded
from chiasm.features.working import shrink, working_factor
from chiasm.flow.draw import Redraw
from chiasm.flow.tiles import PacketReader, Walk
from chiasm.heads.reconstruct import RECEPTIVE_FIELD


def at_working_size(reader: PacketReader, redraw: Redraw) -> tuple[Features, View]:
    """Features of the picture as small as heads see it, from `context` alone, and the view that they are of.

    Places beyond the picture repeat its last ones.
    """
    factor = working_factor(reader.packet.size)
    if factor == 1:
        pixels = redraw.drawing(reader.whole(("context",))).clamp(0, 1)
        return redraw.encode(pixels), reader.packet.levels["context"].view
    unit = reader.space.grid * factor
    size = reader.packet.levels["context"].view.size
    parts = []
    for tile, outer, features in Walk(reader, ("context",), RECEPTIVE_FIELD):
        half = redraw.drawing.halve(features)  # 1 3 h/2 w/2 over the tile and what is around it
        whole = Window(tile.top, tile.left, *padded((tile.bottom, tile.right), unit))
        height, width = (n // 2 for n in whole.size)
        drawn = half[..., *tile.within(outer).at(2)]
        parts.append((whole, {"small": shrink(drawn, (height, width), factor)}))
    small = assemble(Window(0, 0, *padded(size, unit)), parts, {"small": factor})["small"]
    return redraw.encode(small), View((small.shape[-2], small.shape[-1]), (1.0 / factor, 1.0 / factor))


def shrunk(features: Features, factor: int, grid: int, redraw: Redraw) -> Features:
    """Features of one picture to those at 1 / `factor` of its size, as `at_working_size` does with what is stored."""
    if factor == 1:
        return features
    half = redraw.drawing.halve(features)
    height, width = padded((2 * half.shape[-2], 2 * half.shape[-1]), grid * factor)
    return redraw.encode(shrink(half, (height // 2, width // 2), factor))
