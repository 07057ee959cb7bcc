"""Components that the tables do not have, found in one picture that needs them.

A basis that was fitted to photographs drops directions in which they have next to nothing: above all the sharp edges
between saturated colours of diagrams, icons and text. Where a picture has so much there that it is worth its bits, the
directions are written into its stream, and what it has along them is one more band.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs.bands import DEAD, LARGEST, Further
from chiasm.codecs.tables import LevelTables
from chiasm.contracts import Size
from chiasm.errors import PacketError

Array = np.ndarray
MOST = 4
MARK = b"\xff\xff\xff\xff"  # no stream has so many words
PRICE = 0.2  # squared quantiser steps that a bit must save; twice that of other bands, so few photographs have any
# Integer weights by pass, in 1/1024, of what is around a place (see `contexts`): fitted to drawings, fixed for ever.
WEIGHTS = np.array(
    [[36, 0, 0, 315, 0, 0, 0, 0, 0], [14, 0, 0, 305, 0, 0, 0, 116, 0], [6, 0, 0, 259, 0, 0, 175, 0, 0]], np.int32
)


def found(x: Tensor, y: Tensor, level: LevelTables, step: float) -> list[Further | None]:
    """What each of a batch of pictures has beside its components, where that is worth its bits.

    x: centred maps B C H W; y: their components B K H W. step: the quantiser's.
    """
    scale = torch.from_numpy(level.scale).to(x.device)
    basis = torch.from_numpy(level.basis).to(x.device)
    chosen: list[Further | None] = []
    with torch.autocast(x.device.type, enabled=False):
        for whole, known in zip(x.flatten(2), y.flatten(2), strict=True):  # C H*W, K H*W
            lost = _lost(whole, known, scale) / (step * step)
            if level.components == len(basis) or float(lost.amax()) < 1.0:
                chosen.append(None)
                continue
            places = (lost > (0.5 + DEAD) ** 2).nonzero()[:, 0]  # elsewhere nothing is rounded to more than 0
            rest = whole[:, places] / scale[:, None] - basis @ known[:, places]
            chosen.append(_chosen(rest / step, places, (x.shape[-2], x.shape[-1])))
    return chosen


def _lost(whole: Tensor, known: Tensor, scale: Tensor) -> Tensor:
    """Squared length of what the components miss at every place. Some thousand places at a time stay in the cache."""
    weight = scale.reciprocal().square()
    parts = zip(torch.split(whole, 2048, dim=1), torch.split(known, 2048, dim=1), strict=True)
    return torch.cat([weight @ a.square() - b.square().sum(0) for a, b in parts])


def _chosen(rest: Tensor, places: Tensor, size: Size) -> Further | None:
    """rest: C n in steps, at n of the H*W places."""
    vectors = torch.linalg.eigh((rest @ rest.T).double().cpu())[1].flip(1).T[:MOST]  # largest first, rows
    directions, integers = [], []
    for vector in vectors * vectors.sum(1, keepdim=True).sign():
        direction = vector.half()
        along = direction.float().to(rest.device)
        y = along @ rest
        rounded = (y.abs() + (0.5 - DEAD)).floor_().clamp_max_(LARGEST).copysign_(y)
        saved = float((y.square() - (y - rounded).square()).sum())
        bits = 16 * len(direction) + float((6 + 2 * rounded.abs().clamp_min(1).log2())[rounded != 0].sum())
        if saved < PRICE * bits:
            break
        rest = rest - torch.outer(along, rounded)
        plane = rest.new_zeros(size[0] * size[1], dtype=torch.int32)
        plane[places] = rounded.to(torch.int32)
        directions.append(direction.numpy())
        integers.append(plane.reshape(1, *size).cpu().numpy())
    return Further(np.stack(directions), np.stack(integers)) if directions else None


def header(more: Further | None) -> bytes:
    """What stands before the words of a stream with further components; nothing where there are none."""
    if more is None:
        return b""
    return MARK + bytes([len(more.directions)]) + more.directions.astype("<f2").tobytes()


def announced(data: bytes, channels: int, size: Size) -> tuple[Further | None, bytes]:
    """What `header` wrote, with integers still zero, and the rest of the stream.

    Raises PacketError for a number of directions, or numbers in them, that no encoder writes.
    """
    if data[:4] != MARK:
        return None, data
    count = data[4] if len(data) > 4 else 0
    end = 5 + 2 * channels * count
    if not 0 < count <= MOST or len(data) < end:
        raise PacketError(
            f"a stream of {len(data)} bytes announces {count} further components; expected 1 to {MOST}, fetch it again"
        )
    directions = np.frombuffer(data, "<f2", channels * count, 5).reshape(count, channels)
    if not (np.abs(directions) <= 1).all():
        raise PacketError("a stream has further components that are no unit vectors; fetch it again")
    return Further(directions, np.zeros((count, 1, *size), np.int32)), data[end:]
