"""The codec `transform`, as training sees it: features through the wavelet, rounded, with the bits they would
cost.

Rounding with a straight-through gradient decides what the decoder sees. (Under additive noise a network hides
information below the noise floor in many channels, and real rounding then destroys it.) The bits are those of
a coder that knows the local scale: a Laplace distribution per coefficient whose scale is a learned, positive
mix of the magnitudes around it, as the packet coder's integer contexts are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.features.plane import unwavelet, wavelet

SMOOTH = 16  # channels of `context` that the wavelet sees
DEPTH = 3  # of the wavelet over `context` in training; the packet coder goes one deeper


class LocalLaplace(nn.Module):
    """Bits of coefficients under a Laplace distribution whose scale follows their neighbourhood."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        start = torch.tensor([0.005, 0.7, 0.02, 0.02]).log()  # floor, own channel, all channels, coarser band
        self.mix = nn.Parameter(start[:, None].repeat(1, channels))

    def forward(self, y: Tensor, coarser: Tensor | None) -> Tensor:
        """Bits per picture, B. y: B C H W in steps of the quantiser; coarser: B 1 H W activity, or None."""
        with torch.no_grad():
            size = y.round().abs()
            own = (9.0 * F.avg_pool2d(size, 3, 1, 1) - size) / 8.0
            every = F.avg_pool2d(size.sum(dim=1, keepdim=True), 3, 1, 1) / 4.0
            noisy = y + torch.rand_like(y) - 0.5
            above = torch.zeros_like(every) if coarser is None else coarser
        shared, mix = torch.cat([every, above], dim=1), self.mix.exp()
        bits: Tensor = _LaplaceBits.apply(y, noisy, own, shared, mix)  # type: ignore[no-untyped-call]
        return bits


class _LaplaceBits(torch.autograd.Function):
    """-log2 of the mass of a Laplace distribution in [y - 1/2, y + 1/2], summed per picture.

    Its exact gradient is written out by hand, one picture at a time, because as a graph of small operations
    it took as long as the network.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, noisy: Tensor, own: Tensor, shared: Tensor, mix: Tensor) -> Tensor:
        bits = y.new_zeros(len(y))
        slope_y = torch.empty_like(y)
        slope_mix = y.new_zeros(len(y), *mix.shape)
        floor, near, across, above = mix[:, :, None, None]
        for index in range(len(y)):
            every, coarser = shared[index, :1], shared[index, 1:]
            scale = floor + near * own[index] + across * every + above * coarser  # C H W
            log_mass, per_y, per_scale = laplace_log_mass(noisy[index], scale)
            bits[index] = -log_mass.sum() / math.log(2.0)
            slope_y[index] = per_y
            total = per_scale.flatten(1)
            slope_mix[index] = torch.stack(
                [
                    total.sum(1),
                    (total * own[index].flatten(1)).sum(1),
                    total @ every.flatten(),
                    total @ coarser.flatten(),
                ]
            )
        ctx.save_for_backward(slope_y, slope_mix)
        return bits

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        slope_y, slope_mix = ctx.saved_tensors
        weight = -slopes[0] / math.log(2.0)
        per_y = weight[:, None, None, None] * slope_y
        return per_y, None, None, None, (weight[:, None, None] * slope_mix).sum(0)


def laplace_log_mass(y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Natural log of the mass of a zero-mean Laplace in [y - 1/2, y + 1/2]; its slopes by y and by scale."""
    size, per = y.abs(), 1.0 / scale
    lower, upper = torch.exp(-(size - 0.5).abs() * per), torch.exp(-(size + 0.5) * per)
    gap = torch.exp(-per)
    far = size >= 0.5
    centre = (1.0 - 0.5 * (lower + upper)).clamp_min(1e-9)
    log_far = -(size - 0.5) * per + torch.log1p(-gap) - math.log(2.0)
    log_mass = torch.where(far, log_far, torch.log(centre))
    by_size = torch.where(far, -per, -0.5 * (lower - upper) * per / centre)
    squared = per * per
    far_slope = (size - 0.5 - gap / (1.0 - gap)) * squared
    near_slope = -0.5 * (lower * (0.5 - size) + upper * (size + 0.5)) * squared / centre
    return log_mass, by_size * y.sign(), torch.where(far, far_slope, near_slope)


def rounded(y: Tensor) -> Tensor:
    """y rounded, with the gradient of y."""
    return y + (y.round() - y).detach()


def split(context: Tensor, finer: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """What is quantised: wavelet bands of the smooth channels, the other channels, what is finer."""
    return wavelet(context[:, :SMOOTH], DEPTH), context[:, SMOOTH:], finer


def joined(bands: Sequence[Tensor], edges: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `split`, of rounded values."""
    smooth = unwavelet([rounded(band) for band in bands])
    return torch.cat([smooth, rounded(edges)], dim=1), rounded(finer)


class RateModel(nn.Module):
    """Quantises `context` and what `detail` adds to it, and estimates the bits of both.

    The first SMOOTH channels of `context` go through a wavelet, the others are coded as they are: a picture's
    coarse content is smooth and wants it, its edges are not and do not. (The packet coder finds out by itself
    which is which.)
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.smooth = nn.ModuleList([LocalLaplace(SMOOTH) for _ in range(DEPTH + 1)])
        self.edges = LocalLaplace(channels - SMOOTH)
        self.detail = LocalLaplace(channels)

    def forward(self, context: Tensor, finer: Tensor, step: Tensor, priced: int) -> tuple[Tensor, Tensor, Tensor]:
        """Parts B 64 H/4 W/4 and B 64 H/2 W/2 whose amplitudes are undone; step: B.

        Returns both as decoded, and the bits of the first `priced` pictures (bits cost time; a share of the
        batch tells as much).
        """
        size = step.view(-1, 1, 1, 1)
        bands, edges, finer = split(context.float() / size, finer.float() / size)
        decoded, decoded_finer = joined(bands, edges, finer)
        bits = torch.zeros(priced).to(step)
        activity: Tensor | None = None
        for model, band in zip(reversed(self.smooth), reversed(bands), strict=True):
            each = [self._bits(model, part[:priced], activity) for part in band.unbind(2)]
            bits = bits + torch.stack(each).sum(0)
            activity = self._activity(band[:priced].flatten(1, 2))
        bits = bits + self._bits(self.edges, edges[:priced], activity)
        bits = bits + self._bits(self.detail, finer[:priced], self._activity(edges[:priced]))
        return decoded * size, decoded_finer * size, bits

    def _bits(self, model: nn.Module, y: Tensor, activity: Tensor | None) -> Tensor:
        if activity is not None and activity.shape[-1] != y.shape[-1]:
            activity = F.interpolate(activity, size=y.shape[-2:], mode="nearest")
        bits: Tensor = model(y.contiguous(), activity)
        return bits

    def _activity(self, y: Tensor) -> Tensor:
        """B 1 H W: how much there is around each place, for the next finer band to expect."""
        with torch.no_grad():
            return F.avg_pool2d(y.round().abs().sum(dim=1, keepdim=True), 3, 1, 1) / 4.0
