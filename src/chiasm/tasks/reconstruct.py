"""The picture itself, read back from the space (arXiv:2509.20481, Eq. 2: X^ = D0(z)).

    context ──► trunk (H/4) ──► rise ──┐
                                       ├──► mix (H/2) ──► blocks ──► spread ──► pixels
    detail ────────────────────────────┘
    and two transposed linear shortcuts, one from each level, added to the pixels

Without `detail` the same network draws from `context` alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, FeatureSpec
from chiasm.errors import ShapeError

# Pixels beyond which a feature cannot change a pixel, on any side; a multiple of the grid. A law measures it.
RECEPTIVE_FIELD = 24


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), both 3x3 at the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + update


class ReconstructHead(nn.Module):
    """Features of a space with `context` and `detail` to sRGB pixels. 0.31 M parameters at width 64."""

    def __init__(self, reads: FeatureSpec, width: int = 64) -> None:
        super().__init__()
        self.reads = reads
        deep, shallow = reads.level("context").channels, reads.level("detail").channels
        self.trunk = nn.Sequential(nn.Conv2d(deep, width, 1), Residual(width))
        self.rise = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.PixelShuffle(2))
        self.mix = nn.Conv2d(width // 2 + shallow, width, 3, padding=1)
        self.blocks = nn.Sequential(Residual(width), Residual(width), nn.ReLU())
        self.spread = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))
        self.context_shortcut = nn.ConvTranspose2d(deep, 3, 8, stride=4, padding=2, bias=False)
        self.detail_shortcut = nn.ConvTranspose2d(shallow, 3, 4, stride=2, padding=1, bias=False)
        with torch.no_grad():  # features are some ten times pixels; start near a grey picture
            for layer in (self.trunk[0], self.mix, self.spread[0], self.context_shortcut, self.detail_shortcut):
                assert isinstance(layer.weight, Tensor)
                layer.weight.mul_(0.1)

    def forward(self, features: Features) -> Tensor:
        """Draw a batch. Reads maps `context` B 64 H/4 W/4 and, if there, `detail` B 64 H/2 W/2.

        Returns B 3 H W, sRGB around [0, 1], not clipped (clip before showing). Raises ShapeError without `context`.
        """
        context = features.maps.get("context")
        if context is None:
            raise ShapeError(f"reconstruction reads level 'context', got {', '.join(features.maps) or 'no level'}")
        detail = features.maps.get("detail")
        if detail is None:
            batch, _, height, width = context.shape
            detail = context.new_zeros(batch, self.reads.level("detail").channels, 2 * height, 2 * width)
        risen = self.rise(self.trunk(context))  # B w/2 H/2 W/2
        x = self.blocks(self.mix(torch.cat([risen, detail], dim=1)))  # B w H/2 W/2
        pixels: Tensor = self.spread(x)  # B 3 H W
        return pixels + self.context_shortcut(context) + self.detail_shortcut(detail) + 0.5
