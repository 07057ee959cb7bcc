"""The encoder of ns-1 as it runs when nothing is trained: the same numbers in fewer passes over memory.

Additions and ReLU happen within the convolutions, amplitudes and gains are folded into weights, and concatenations
become sums of convolutions: join([rise, fine]) = join_rise(rise) + join_fine(fine). What is summed last is the doubled
context, so `detail` is written once. A law compares it with the trained form.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.contracts import Features, Kind
from chiasm.encoders.ns import BRANCH, GAIN, NS, UNKNOWN, Residual, SpaceEncoder, checked_pixels
from chiasm.features.convolution import Fused, FusedResidual, fused
from chiasm.features.plane import double
from chiasm.images.raw.sensor import CONDITION


class InferenceEncoder(nn.Module):
    """What `SpaceEncoder` computes, with convolutions in `dtype`. Made from a trained one, which stays as it is."""

    space = NS

    def __init__(self, trained: SpaceEncoder, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.accepts: Kind = trained.accepts
        self.dtype = dtype
        deep, shallow = (x.flatten().detach() for x in trained.alignment.amplitudes())
        self.split = fused(trained.split) if isinstance(trained.split, nn.Conv2d) else copy.deepcopy(trained.split)
        self.told = copy.deepcopy(trained.told) if trained.accepts == "raw" else None
        self.second = fused(trained.second)
        self.first = fused(convolution(trained.fine[0]), reads=BRANCH)
        self.fine = residual(trained.fine[1])
        self.halve = fused(convolution(trained.coarse[0]))
        self.coarse = residual(trained.coarse[1])
        self.context_linear = fused(trained.context_linear, gives=GAIN * deep)
        self.context = fused(trained.context, gives=deep)
        self.rise = fused(convolution(trained.rise[0]), relu=True, reads=1.0 / (GAIN * deep))
        risen = trained.join.in_channels - convolution(trained.fine[0]).out_channels
        joined = shallow[:, None, None, None] * trained.join.weight
        self.join_rise = Fused(joined[:, :risen], shallow * bias_of(trained.join))
        self.join_fine = Fused(joined[:, risen:])
        linear = GAIN * shallow[:, None, None, None] * trained.finer_linear.weight
        self.finer_linear = Fused(F.pad(linear, (0, 0, 0, 0, 3, 0)))  # it reads bands 3 to 11: nothing of the low ones
        self.requires_grad_(False)
        for layer in self.modules():
            if isinstance(layer, Fused):
                layer.to(dtype)

    def forward(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        """Encode a batch, as `SpaceEncoder` does: the same shapes, float32, and the same errors."""
        checked_pixels(pixels, self.accepts)
        with torch.autocast(pixels.device.type, enabled=False):
            return self._encoded(pixels.contiguous(memory_format=torch.channels_last), condition)

    def _encoded(self, pixels: Tensor, condition: Tensor | None) -> Features:
        if self.told is None:
            bands = self.split((pixels - 0.5).to(self.dtype))  # B 12 H/2 W/2
            first = self.first(bands)  # B w H/2 W/2
        else:
            told = UNKNOWN.to(pixels).expand(len(pixels), CONDITION) if condition is None else condition
            bands = self.split(pixels, told).to(self.dtype)  # B 12 H/2 W/2
            bands = bands.contiguous(memory_format=torch.channels_last)
            first = self.first(bands) + self.told(told).to(self.dtype)[:, :, None, None]  # B w H/2 W/2
        fine = self.fine(first)  # B w H/2 W/2
        coarse = self.coarse(self.halve(fine))  # B w H/4 W/4
        low = bands[:, :3].contiguous(memory_format=torch.channels_last)  # B 3 H/2 W/2
        context = self.context(coarse, self.context_linear(self.second(low)))  # B 64 H/4 W/4
        risen = F.pixel_shuffle(self.rise(context), 2)  # B w/2 H/2 W/2
        risen = risen.contiguous(memory_format=torch.channels_last)
        context = context.float()
        whole = double(context)  # B 64 H/2 W/2
        if self.dtype == torch.float32:
            detail = self.finer_linear(bands, self.join_fine(fine, self.join_rise(risen, whole)))
        else:  # in half precision what is finer would drown in the coarse content
            finer = self.finer_linear(bands, self.join_fine(fine, self.join_rise(risen)))
            detail = whole.add_(finer)
        return {"context": context, "detail": detail}  # B 64 H/4 W/4, B 64 H/2 W/2


def residual(layer: nn.Module) -> FusedResidual:
    """A residual block of the trained form that a ReLU follows."""
    if not isinstance(layer, Residual):
        raise TypeError(f"expected a Residual, got {type(layer).__name__}; prepare an encoder of ns-1")
    return FusedResidual(layer.first, layer.second, relu=True)


def convolution(layer: nn.Module) -> nn.Conv2d:
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"expected a Conv2d, got {type(layer).__name__}; prepare an encoder of ns-1")
    return layer


def bias_of(layer: nn.Conv2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias
