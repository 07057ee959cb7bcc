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
Both levels then get their amplitudes, see `features.alignment`.
A camera's mosaic comes in by another first layer, `MosaicSplit`; the body is the same, and so is the space.
Plain strided convolutions, ReLU, concatenation, PixelShuffle and bilinear doubling only, so that phone
toolchains take the graph as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, Kind, Level, Space
from chiasm.errors import ShapeError
from chiasm.features.alignment import COARSE, EDGES, FINER, Alignment
from chiasm.features.plane import OPPONENT, split_filters
from chiasm.images.raw.sensor import CONDITION
from chiasm.images.srgb import to_srgb

NS = Space("ns-1", (Level("context", 64, 4), Level("detail", 64, 2)), 4)
CHANNELS: dict[Kind, int] = {"rgb": 3, "raw": 1}

# One step of the codec's default quantiser is then some 25 grey levels, at which a photograph takes about
# 1.4 bits a pixel.
GAIN = 10.0
# Of a sensor that nothing is known of: its colours are taken for sRGB's, its noise for average, its gains for two.
UNKNOWN = torch.cat([torch.eye(3).flatten(), torch.zeros(2), torch.ones(2)])
BRANCH = 3.0  # what the convolutional branch sees is scaled to about one

# Pixels beyond which an input cannot change an output, on any side; multiples of the grid. A law says so.
RECEPTIVE_FIELD: dict[Kind, int] = {"rgb": 24, "raw": 28}


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), both 3x3 at the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + update


class MosaicSplit(nn.Module):
    """A balanced RGGB mosaic to the twelve bands of the picture that it shows: B 1 H W to B 12 H/2 W/2.

        mosaic ─► cells ─► linear demosaicing ─► colour matrix ─► sRGB curve ─► linear bands
                  2 x 2    5x5 cells: 4 pixels x 3 colours                      5x5 cells

    Cells all have the same phase, also where they are repeated at the border. With perfect demosaicing this would
    be the first layer of the RGB encoder, exactly; what is missing, the body learns to add.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(4, 12, 5, padding=2, padding_mode="replicate", bias=False)
        self.bands = nn.Conv2d(12, 12, 5, padding=2, bias=False)

    def forward(self, mosaic: Tensor, condition: Tensor) -> Tensor:
        """condition: B 13, first the matrix from camera colours to linear sRGB, row by row."""
        with torch.autocast(mosaic.device.type, enabled=False):  # in half precision highlights would light shadows
            cells = F.pixel_unshuffle(mosaic.to(self.linear.weight), 2)  # B 4 H/2 W/2: R, G, G, B
            camera = self.linear(cells).clamp(max=1.0)  # B 12 H/2 W/2: pixels of a cell, each in 3 colours
            batch, _, height, width = camera.shape
            matrix = condition[:, :9].to(camera).reshape(batch, 1, 3, 3)
            linear = matrix @ camera.reshape(batch, 4, 3, height * width)
            pixels = tone(linear).clamp(max=1.0).reshape(batch, 12, height, width)
        bands: Tensor = self.bands(pixels - 0.5)
        return bands

    def begin(self, split: Tensor) -> None:
        """Make `bands` do to cells what `split`, 12 3 10 10 with stride 2, does to pixels."""
        cells = split.reshape(12, 3, 5, 2, 5, 2).permute(0, 3, 5, 1, 2, 4)  # 12, 2 x 2 pixels, 3 colours, 5 5
        with torch.no_grad():
            self.bands.weight.copy_(cells.reshape(12, 12, 5, 5))


def tone(linear: Tensor) -> Tensor:
    """The sRGB curve, odd about 0: noise below black stays noise."""
    return linear.sign() * to_srgb(linear.abs())


class SpaceEncoder(nn.Module):
    """Pixels or a mosaic to `context` and `detail` of the space ns-1. 0.25 M parameters at width 64."""

    space = NS

    def __init__(self, accepts: Kind = "rgb", width: int = 64) -> None:
        super().__init__()
        self.accepts: Kind = accepts
        if accepts == "rgb":
            self.split: nn.Module = nn.Conv2d(3, 12, 10, stride=2, padding=4, bias=False)
        else:
            self.split = MosaicSplit()
            self.told = nn.Linear(CONDITION, width)
            nn.init.zeros_(self.told.weight)
            nn.init.zeros_(self.told.bias)
        self.second = nn.Conv2d(3, 12, 10, stride=2, padding=4, bias=False)
        self.fine = nn.Sequential(nn.Conv2d(12, width, 3, padding=1), Residual(width), nn.ReLU())
        halve = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.coarse = nn.Sequential(halve, Residual(width), nn.ReLU())
        self.context = nn.Conv2d(width, 64, 1)
        self.context_linear = nn.Conv2d(12, 64, 1, bias=False)
        self.rise = nn.Sequential(nn.Conv2d(64, 2 * width, 1), nn.PixelShuffle(2), nn.ReLU())
        self.join = nn.Conv2d(width + width // 2, 64, 1)
        self.finer_linear = nn.Conv2d(9, 64, 1, bias=False)
        self.alignment = Alignment(64)
        self._start()

    def _start(self) -> None:
        """Begin as two wavelet steps of the picture in opponent colours, the nonlinear part at nothing."""
        analysis, _ = split_filters()
        first = torch.einsum("fij,oc->focij", analysis, OPPONENT).reshape(12, 3, 10, 10)
        second = torch.einsum("fij,oc->focij", analysis, torch.eye(3)).reshape(12, 3, 10, 10)
        with torch.no_grad():
            if isinstance(self.split, nn.Conv2d):
                self.split.weight.copy_(first)
            self.second.weight.copy_(second)
            self.context_linear.weight.copy_(torch.eye(64)[:, [*COARSE, *EDGES], None, None])
            self.finer_linear.weight.copy_(torch.eye(64)[:, list(FINER), None, None])
            for last in (self.context, self.join):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        """Encode a batch.

        pixels: B 3 H W in [0, 1] for rgb, B 1 H W for raw; H and W multiples of 4, see `features.layout.pad`.
        condition: B 13 for raw (None: nothing is known of the sensor), not read for rgb.
        Returns maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2, float32.
        Raises ShapeError for other channels or sizes.
        """
        return self.alignment.features(*self.parts(pixels, condition))

    def parts(self, pixels: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`context` B 64 H/4 W/4 and what `detail` adds to it, B 64 H/2 W/2, before their amplitudes."""
        checked_pixels(pixels, self.accepts)
        if self.accepts == "rgb":
            bands = self.split(pixels - 0.5)  # B 12 H/2 W/2: low, right, down, both in three colours
            first = self.fine[0](BRANCH * bands)  # B w H/2 W/2
        else:
            told = UNKNOWN.to(pixels).expand(len(pixels), CONDITION) if condition is None else condition
            bands = self.split(pixels, told)  # B 12 H/2 W/2
            first = self.fine[0](BRANCH * bands) + self.told(told)[:, :, None, None]  # B w H/2 W/2
        fine = self.fine[1:](first)  # B w H/2 W/2
        coarse = self.coarse(fine)  # B w H/4 W/4
        linear = self.context_linear(self.second(bands[:, :3]))  # B 64 H/4 W/4
        context = GAIN * linear + self.context(coarse)  # B 64 H/4 W/4
        joined = torch.cat([self.rise(context / GAIN), fine], dim=1)  # B w/2+w H/2 W/2
        finer = GAIN * self.finer_linear(bands[:, 3:]) + self.join(joined)  # B 64 H/2 W/2
        return context, finer


def checked_pixels(pixels: Tensor, accepts: Kind) -> None:
    """Raises ShapeError for pixels that are not B C H W with the kind's channels and sides in multiples of 4."""
    channels = CHANNELS[accepts]
    if pixels.ndim != 4 or pixels.shape[1] != channels or any(n % 4 or not n for n in pixels.shape[2:]):
        raise ShapeError(
            f"pixels: expected B {channels} H W with H and W multiples of 4, got "
            f"{' '.join(map(str, pixels.shape))}; pad with chiasm.features.layout.pad"
        )
