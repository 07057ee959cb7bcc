"""The encoder of the shared neural space (arXiv:2509.20481, Eq. 1: z = [z_t, z_b] = E(X)).

    pixels ──► split ──► fine ──────────────────► join ──► + ──► detail   64 x H/2 x W/2   (the paper's z_b)
                 │        │                        ▲       ▲
                 │        ▼                        │    doubled
                 └─ low ► second + coarse ──► context ─────┘              64 x H/4 x W/4   (the paper's z_t)

A VQ-VAE-2 layout at half its strides and without its quantiser. `detail` is conditioned on `context`, and
holds it: detail = doubled context + what is finer, as in a Laplacian pyramid, so that a head may read either
level alone, and a codec pays for the difference only. The paper gives the shapes only: widths and blocks are
ours. `split` and `second` are strided linear convolutions that start as one step each of a wavelet transform,
already a fair codec; the convolutions beside them start at nothing and learn what a linear map cannot do.
Plain strided convolutions, ReLU, concatenation, PixelShuffle and bilinear doubling only, so that phone
toolchains take the graph as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, FeatureSpec, Kind, Level
from chiasm.errors import ShapeError
from chiasm.features.plane import double, split_filters

NS = FeatureSpec("ns-1", (Level("context", 64, 4), Level("detail", 64, 2)))
CHANNELS: dict[Kind, int] = {"rgb": 3, "raw": 1}

# One step of the codec's default quantiser is then some 25 grey levels, at which a photograph takes about
# 1.4 bits a pixel.
GAIN = 10.0
BRANCH = 3.0  # what the convolutional branch sees is scaled to about one

# Orthonormal opponent colours: grey, red against blue, green against both. Rows: features, columns: R, G, B.
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
OPPONENT = OPPONENT / OPPONENT.norm(dim=1, keepdim=True)

# Pixels beyond which an input cannot change an output, on any side; a multiple of the grid. A law says so.
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


class SpaceEncoder(nn.Module):
    """Pixels to `context` and `detail` of the space ns-1. 0.25 M parameters at width 64."""

    spec = NS

    def __init__(self, accepts: Kind = "rgb", width: int = 64) -> None:
        super().__init__()
        self.accepts: Kind = accepts
        self.split = nn.Conv2d(CHANNELS[accepts], 12, 10, stride=2, padding=4, bias=False)
        self.second = nn.Conv2d(3, 12, 10, stride=2, padding=4, bias=False)
        self.fine = nn.Sequential(nn.Conv2d(12, width, 3, padding=1), Residual(width), nn.ReLU())
        halve = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.coarse = nn.Sequential(halve, Residual(width), nn.ReLU())
        self.context = nn.Conv2d(width, 64, 1)
        self.context_linear = nn.Conv2d(12, 64, 1, bias=False)
        self.rise = nn.Sequential(nn.Conv2d(64, 2 * width, 1), nn.PixelShuffle(2), nn.ReLU())
        self.join = nn.Conv2d(width + width // 2, 64, 1)
        self.finer_linear = nn.Conv2d(9, 64, 1, bias=False)
        self._start()

    def _start(self) -> None:
        """Begin as two wavelet steps of the picture in opponent colours, the nonlinear part at nothing."""
        analysis, _ = split_filters()
        first = torch.einsum("fij,oc->focij", analysis, OPPONENT).reshape(12, 3, 10, 10)
        second = torch.einsum("fij,oc->focij", analysis, torch.eye(3)).reshape(12, 3, 10, 10)
        with torch.no_grad():
            if self.accepts == "rgb":
                self.split.weight.copy_(first)
            self.second.weight.copy_(second)
            places = [*range(3), *range(16, 25)]  # coarse content comes first, its edges from channel 16 on
            self.context_linear.weight.copy_(torch.eye(64)[:, places, None, None])
            self.finer_linear.weight.copy_(torch.eye(64)[:, :9, None, None])
            for last in (self.context, self.join):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        """Encode a batch.

        pixels: B 3 H W in [0, 1] for rgb, B 1 H W for raw; H and W multiples of 4, see `features.layout.pad`.
        condition: not read by the rgb stem. Returns maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2.
        Raises ShapeError for other channels or sizes.
        """
        channels = CHANNELS[self.accepts]
        if pixels.ndim != 4 or pixels.shape[1] != channels or any(n % 4 or not n for n in pixels.shape[2:]):
            raise ShapeError(
                f"pixels: expected B {channels} H W with H and W multiples of 4, got "
                f"{' '.join(map(str, pixels.shape))}; pad with chiasm.features.layout.pad"
            )
        bands = self.split(pixels - 0.5)  # B 12 H/2 W/2: low, right, down, both in three colours
        fine = self.fine(BRANCH * bands)  # B w H/2 W/2
        coarse = self.coarse(fine)  # B w H/4 W/4
        linear = self.context_linear(self.second(bands[:, :3]))  # B 64 H/4 W/4
        context = GAIN * linear + self.context(coarse)  # B 64 H/4 W/4
        joined = torch.cat([self.rise(context / GAIN), fine], dim=1)  # B w/2+w H/2 W/2
        finer = GAIN * self.finer_linear(bands[:, 3:]) + self.join(joined)  # B 64 H/2 W/2
        return Features({"context": context, "detail": double(context) + finer})
