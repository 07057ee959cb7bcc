"""The head that draws, as it runs when nothing is trained: the same pixels in fewer passes over memory.

Additions and ReLU happen within the convolutions, amplitudes and scales are folded into weights, the concatenation
becomes a sum of two convolutions, and a transposed convolution of 10x10 with stride 2 becomes one of 5x5 to the four
pixels of each cell. A law compares it with the trained form.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features
from chiasm.features.convolution import Fused, FusedResidual, fused
from chiasm.features.plane import double
from chiasm.heads.reconstruct import DAMP, SCALE, SMALL, ReconstructHead, Residual, checked_levels


class InferenceHead(nn.Module):
    """What `ReconstructHead` draws, with convolutions in `dtype`. Made from a trained one, which stays as it is."""

    def __init__(self, trained: ReconstructHead, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.reads, self.dtype = trained.reads, dtype
        self.trained = copy.deepcopy(trained)
        deep, shallow = (1.0 / x.flatten().detach() for x in trained.alignment.amplitudes())
        first, block = trained.trunk
        self.trunk = fused(_convolution(first), reads=DAMP * deep)
        self.trunk_block = _residual(block, relu=True)
        self.rise = fused(_convolution(trained.rise[1]))
        risen = trained.mix.in_channels - len(shallow)
        self.mix_rise = Fused(trained.mix.weight[:, :risen], trained.mix.bias, padding=1)
        self.mix_finer = Fused(trained.mix.weight[:, risen:] * shallow[:, None, None], padding=1)
        blocks = list(trained.blocks)[:-1]
        self.blocks = nn.Sequential(*(_residual(each, relu=each is blocks[-1]) for each in blocks))
        self.correct = fused(trained.correct, gives=SMALL)
        self.context_linear = fused(trained.context_linear, reads=deep / SCALE)
        linear = trained.finer_linear.weight * (shallow / SCALE)[:, None, None]
        self.finer_linear = Fused(F.pad(linear, (0, 0, 0, 0, 0, 0, 3, 0)))  # adds to bands 3 to 11
        self.merge_low, self.merge = cells(trained.merge_low), cells(trained.merge)
        self.requires_grad_(False)
        for layer in self.modules():
            if isinstance(layer, Fused):
                layer.to(dtype)

    def forward(self, features: Features) -> Tensor:
        """Draw a batch, as `ReconstructHead` does: B 3 H W, float32, not clipped, and the same errors."""
        checked_levels(features)
        with torch.autocast(features["context"].device.type, enabled=False):
            return self._drawn(features["context"], features.get("detail"))

    def halved(self, features: Features) -> Tensor:
        """The picture at half its size from `context` alone, as `ReconstructHead.halved` draws it."""
        return self.trained.halved(features)

    def _drawn(self, context: Tensor, detail: Tensor | None) -> Tensor:
        deep = self._given(context)
        risen = F.pixel_shuffle(self.rise(self.trunk_block(self.trunk(deep))), 2)  # B w/2 H/2 W/2
        x = self.mix_rise(risen.contiguous(memory_format=torch.channels_last))  # B w H/2 W/2
        finer = None
        if detail is not None:
            # in float32: in half precision what is finer would drown in the coarse content
            finer = self._given(double(context.float().neg()).add_(detail))  # B 64 H/2 W/2
            x = self.mix_finer(finer, x)
        bands = self.correct(self.blocks(x if len(self.blocks) else x.relu_()))  # B 12 H/2 W/2
        if finer is not None:
            bands = self.finer_linear(finer, bands)
        low = F.pixel_shuffle(self.merge_low(self.context_linear(deep)), 2)  # B 3 H/2 W/2
        bands[:, :3] += low
        pixels = F.pixel_shuffle(self.merge(bands).float(), 2)  # B 3 H W
        return pixels.add_(0.5)

    def _given(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)


def cells(layer: nn.ConvTranspose2d) -> Fused:
    """A transposed convolution of 10x10, stride 2 and padding 4 as a convolution of 5x5 before a pixel shuffle.

    Row 2 m + a gets cell m + d times row a + 4 - 2 d of the kernel, for d of -2 to 2.
    """
    channels, colours = layer.weight.shape[:2]
    taps = layer.weight.detach().reshape(channels, colours, 5, 2, 5, 2).flip(2, 4)
    return Fused(taps.permute(1, 3, 5, 0, 2, 4).reshape(4 * colours, channels, 5, 5), padding=2)


def _residual(layer: nn.Module, relu: bool) -> FusedResidual:
    if not isinstance(layer, Residual):
        raise TypeError(f"expected a Residual, got {type(layer).__name__}; prepare a head that draws")
    return FusedResidual(layer.first, layer.second, relu)


def _convolution(layer: nn.Module) -> nn.Conv2d:
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"expected a Conv2d, got {type(layer).__name__}; prepare a head that draws")
    return layer
