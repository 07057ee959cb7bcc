"""The picture itself, read back from the space (arXiv:2509.20481, Eq. 2: X^ = D0(z)).

    context ──┬─► trunk (H/4) ──► rise ──┐
              └─► merge low (H/2) ───┐   ├──► mix (H/2) ──► blocks ──► correct ──► + ──► merge ──► pixels
    finer ────┬──────────────────────┼───┘                                         ▲
              └──────────────────── bands ──────────────────────────────────────────┘

context, finer: see `features.alignment`. `merge low` and `merge` are transposed linear convolutions that
start as the inverse of the encoder's two wavelet steps; the convolutional path corrects their input, which is
where coding noise is taken out. Without `detail` the same network draws from `context` alone: nothing is
finer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, Space
from chiasm.errors import ShapeError
from chiasm.features.alignment import COARSE, EDGES, FINER, Alignment
from chiasm.features.plane import OPPONENT, split_filters

# Features are about this much larger than the wavelet coefficients of pixels in [0, 1].
SCALE = 10.0
DAMP = 0.3  # coarse content is larger than the rest; the convolutions want about one
SMALL = 0.03  # and what they correct is some eight grey levels

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
    """Features of a space with `context` and `detail` to sRGB pixels. 0.31 M parameters at width 64.

    depth: residual blocks at half resolution.
    """

    def __init__(self, reads: Space, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.reads = reads
        deep, shallow = reads.level("context").channels, reads.level("detail").channels
        self.trunk = nn.Sequential(nn.Conv2d(deep, width, 1), Residual(width))
        self.rise = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.PixelShuffle(2))
        self.mix = nn.Conv2d(width // 2 + shallow, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(depth)), nn.ReLU())
        self.correct = nn.Conv2d(width, 12, 3, padding=1)
        self.context_linear = nn.Conv2d(deep, 12, 1, bias=False)
        self.finer_linear = nn.Conv2d(shallow, 9, 1, bias=False)
        self.merge_low = nn.ConvTranspose2d(12, 3, 10, stride=2, padding=4, bias=False)
        self.merge = nn.ConvTranspose2d(12, 3, 10, stride=2, padding=4, bias=False)
        self.alignment = Alignment(deep)
        self._start()

    def _start(self) -> None:
        """Begin as the inverse of two wavelet steps in opponent colours, with the correction at nothing."""
        _, synthesis = split_filters()
        with torch.no_grad():
            for layer, colours in ((self.merge_low, torch.eye(3)), (self.merge, OPPONENT.to(synthesis.device))):
                kernels = torch.einsum("fij,oc->focij", synthesis, colours)
                layer.weight.copy_(kernels.reshape(12, 3, 10, 10))
            deep, shallow = self.context_linear.in_channels, self.finer_linear.in_channels
            self.context_linear.weight.copy_(torch.eye(deep)[[*COARSE, *EDGES], :, None, None])
            self.finer_linear.weight.copy_(torch.eye(shallow)[list(FINER), :, None, None])
            nn.init.zeros_(self.correct.weight)
            nn.init.zeros_(self.correct.bias)  # type: ignore[arg-type]

    def forward(self, features: Features) -> Tensor:
        """Draw a batch. Reads maps `context` B 64 H/4 W/4 and, if there, `detail` B 64 H/2 W/2.

        Returns B 3 H W, sRGB around [0, 1], not clipped (clip before showing).
        Raises ShapeError without `context`.
        """
        if "context" not in features:
            found = ", ".join(features) or "no level"
            raise ShapeError(f"reconstruction reads level 'context', got {found}; decode that level too")
        return self.draw(*self.alignment.parts(features))

    def halved(self, features: Features) -> Tensor:
        """The picture at half its size from `context` alone: B 3 H/2 W/2, sRGB around [0, 1], not clipped.

        The first wavelet step's low band is that picture but for its range. No convolution corrects it, so the border
        is repeated first: the synthesis sees two cells further, and a dark or bright frame would look like an edge.
        """
        deep, _ = self.alignment.amplitudes()
        bands = self.context_linear(features["context"] / deep / SCALE)  # B 12 H/4 W/4
        low = self.merge_low(F.pad(bands, (3, 3, 3, 3), mode="replicate"))[..., 6:-6, 6:-6]  # B 3 H/2 W/2
        colours = self.merge.weight[:3].sum(dim=(2, 3)) / 4.0  # what one cell of it adds to each of its four pixels
        pixels: Tensor = torch.einsum("blhw,lc->bchw", low, colours)
        return pixels + 0.5

    def draw(self, context: Tensor, finer: Tensor) -> Tensor:
        """The same from parts whose amplitudes are undone: B 64 H/4 W/4 and B 64 H/2 W/2."""
        risen = self.rise(self.trunk(DAMP * context))  # B w/2 H/2 W/2
        x = self.blocks(self.mix(torch.cat([risen, finer], dim=1)))  # B w H/2 W/2
        low = self.merge_low(self.context_linear(context / SCALE))  # B 3 H/2 W/2
        linear = torch.cat([low, self.finer_linear(finer / SCALE)], dim=1)  # B 12 H/2 W/2
        bands = linear + SMALL * self.correct(x)  # B 12 H/2 W/2
        pixels: Tensor = self.merge(bands)  # B 3 H W
        return pixels + 0.5
