"""The encoder of the shared neural space (arXiv:2509.20481, Eq. 1: z = [z_t, z_b] = E(X)).

    pixels ──► fine ─────────────┬────────────► join ──► + ──► detail   64 x H/2 x W/2   (the paper's z_b)
       │        (H/2)            ▼               ▲       ▲
       │                       coarse ──► context ── rise, doubled      64 x H/4 x W/4   (the paper's z_t)
       └── two strided linear shortcuts, one to each level

A VQ-VAE-2 layout at half its strides and without its quantiser; `detail` is conditioned on `context`, and holds it: detail = doubled context + what is finer, as in a
Laplacian pyramid, so that a head may read either level alone, and a codec pays for the difference only. The paper gives
the shapes only: widths and blocks are ours. The linear shortcuts let training start from a linear transform of the
picture, which is already a fair codec, and leave to the convolutions what a linear map cannot do. Plain strided
convolutions, ReLU, concatenation and PixelShuffle only, so that phone toolchains take the graph as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, FeatureSpec, Kind, Level
from chiasm.errors import ShapeError
from chiasm.features.plane import dct_matrix, double

NS = FeatureSpec("ns-1", (Level("context", 64, 4), Level("detail", 64, 2)))
CHANNELS: dict[Kind, int] = {"rgb": 3, "raw": 1}

# Pixels beyond which an input cannot change an output, on any side; a multiple of the grid. A law measures it.
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


def start_orthonormal(weight: Tensor, edge: int, frequencies: Sequence[tuple[int, int]], gain: float = 10.0) -> None:
    """Let the first filters of a strided RGB convolution be cosines of an edge x edge cell in three opponent colours.

    weight: C 3 k k, written in place; the cell is the middle of the kernel, the rest zero. `gain` puts one step of the
    default quantiser at some 25 grey levels, where a photograph codes at about 1.4 bits per pixel.
    """
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    cosines = dct_matrix(edge)
    margin = (weight.shape[-1] - edge) // 2
    with torch.no_grad():
        for index, ((u, v), colour) in enumerate(product(frequencies, colours)):
            weight[index] = 0.0
            cell = gain * colour[:, None, None] * cosines[u][:, None] * cosines[v]  # 3 e e
            weight[index, :, margin : margin + edge, margin : margin + edge] = cell


class SpaceEncoder(nn.Module):
    """Pixels to `context` and `detail` of the space ns-1. 0.24 M parameters at width 64."""

    spec = NS

    def __init__(self, accepts: Kind = "rgb", width: int = 64) -> None:
        super().__init__()
        self.accepts: Kind = accepts
        channels = CHANNELS[accepts]
        self.fine = nn.Sequential(nn.Conv2d(channels, width, 4, stride=2, padding=1), Residual(width), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(width, width, 4, stride=2, padding=1), Residual(width), nn.ReLU())
        self.context = nn.Conv2d(width, 64, 1)
        self.context_shortcut = nn.Conv2d(channels, 64, 8, stride=4, padding=2, bias=False)
        self.rise = nn.Sequential(nn.Conv2d(64, 2 * width, 1), nn.PixelShuffle(2), nn.ReLU())
        self.join = nn.Conv2d(width + width // 2, 64, 1)
        self.detail_shortcut = nn.Conv2d(channels, 64, 4, stride=2, padding=1, bias=False)
        if accepts == "rgb":
            start_orthonormal(self.context_shortcut.weight, edge=4, frequencies=((0, 0), (0, 1), (1, 0)))
            start_orthonormal(self.detail_shortcut.weight, edge=2, frequencies=((0, 1), (1, 0), (1, 1)))

    def forward(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        """Encode a batch.

        pixels: B 3 H W in [0, 1] for rgb, B 1 H W for raw; H and W multiples of 4 (`features.layout.pad` sees to it).
        condition: not read by the rgb stem. Returns maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2.
        Raises ShapeError for other channels or sizes.
        """
        if pixels.ndim != 4 or pixels.shape[1] != CHANNELS[self.accepts] or any(n % 4 or not n for n in pixels.shape[2:]):
            raise ShapeError(
                f"pixels: expected B {CHANNELS[self.accepts]} H W with H and W multiples of 4, got "
                f"{' '.join(map(str, pixels.shape))}; pad with chiasm.features.layout.pad"
            )
        centred = pixels - 0.5
        fine = self.fine(centred)  # B w H/2 W/2
        coarse = self.coarse(fine)  # B w H/4 W/4
        context = self.context(coarse) + self.context_shortcut(centred)  # B 64 H/4 W/4
        joined = torch.cat([self.rise(context), fine], dim=1)  # B w/2+w H/2 W/2
        finer = self.join(joined) + self.detail_shortcut(centred)  # B 64 H/2 W/2
        detail = double(context) + finer
        return Features({"context": context, "detail": detail})
