"""Features to pictures: the head that draws a space, on one runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Features
from chiasm.features.layout import Window, assemble, crop
from chiasm.flow.runtime import Runtime
from chiasm.flow.tiles import PacketReader, Walk, drawn
from chiasm.heads.reconstruct import RECEPTIVE_FIELD, ReconstructHead
from chiasm.heads.reconstruct_inference import InferenceHead


@dataclass(frozen=True)
class Drawing:
    """The head that draws pictures of a space."""

    head: ReconstructHead | InferenceHead
    runtime: Runtime

    def __call__(self, features: Features) -> Tensor:
        """Features of a batch to pictures B 3 H W, float32, sRGB around [0, 1], not clipped."""
        found: Tensor = self.runtime.exact(self.head, features)
        return found.cpu()

    def halve(self, features: Features) -> Tensor:
        """`context` to pictures at half their size, B 3 H/2 W/2."""
        found: Tensor = self.runtime.exact(self.head.halved, features)
        return found.cpu()

    def thumbnail(self, opened: PacketReader) -> np.ndarray:
        """The picture at half its size, rounded up, H/2 x W/2 x 3, uint8 sRGB, drawn from `context` alone.

        Ten times as fast as the whole.
        """
        size = opened.packet.levels["context"].view.size
        parts = []
        for tile, outer, features in Walk(opened, ("context",), RECEPTIVE_FIELD):
            parts.append((tile, {"half": self.halve(features)[..., *tile.within(outer).at(2)]}))
        half = assemble(Window(0, 0, *size), parts, {"half": 2})["half"][0]
        height, width = opened.packet.size
        shown = crop(half, (-(-height // 2), -(-width // 2))).clamp(0, 1).mul(255.0).round()
        pixels: np.ndarray = shown.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return pixels

    def picture(self, opened: PacketReader, levels: Sequence[str] | None = None) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, tile by tile. levels: None: what is there of those that the head reads."""
        names = levels or tuple(name for name in self.head.reads.names if name in opened.packet.levels)
        picture = drawn(opened, self, names, RECEPTIVE_FIELD)
        pixels: np.ndarray = picture.permute(1, 2, 0).contiguous().numpy()
        return pixels


@dataclass(frozen=True)
class Redraw:
    """Draws pictures and encodes them again, for heads that look at the whole of a large one. encode: of B 3 H W."""

    drawing: Drawing
    encode: Callable[[Tensor], Features]
