"""Losses of the shared space. Pixels are in [0, 1]; errors are on the 0..255 scale that PSNR is quoted on."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from chiasm.contracts import Features, Space
from chiasm.features.plane import Affine, valid, warp


def squared(drawn: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared error per picture on the 0..255 scale: B."""
    return 255.0**2 * (drawn - pixels).square().mean(dim=(1, 2, 3))


def absolute(drawn: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute error per picture on the 0..255 scale: B."""
    return 255.0 * (drawn - pixels).abs().mean(dim=(1, 2, 3))


def dissimilarity(drawn: Tensor, pixels: Tensor) -> Tensor:
    """1 - SSIM, mean over the batch, 7x7 window: 0 for equal pictures."""
    value = structural_similarity_index_measure(drawn, pixels, data_range=1.0, kernel_size=7, sigma=1.2)
    assert isinstance(value, Tensor)
    return 1.0 - value


def latent_equivariance(moved: Features, still: Features, spec: Space, transform: Affine, margin: int) -> Tensor:
    """Eq. 3, read in the space: || E(f(X)) - f_s(E(X)) ||^2 over the features' variance, mean over levels.

    moved = E(f(X)), still = E(X). Positions nearer than `margin` pixels to a border do not count.
    No gradient is stopped on either side.
    """
    total = torch.zeros(())
    for level in spec.levels:
        x, y = moved[level.name].float(), still[level.name].float()
        size = (x.shape[-2] * level.stride, x.shape[-1] * level.stride)
        mask = valid(size, transform, margin, level.stride).to(x)
        error = ((x - warp(y, transform, level.stride)).square() * mask).mean() / mask.mean().clamp_min(1e-3)
        total = total.to(x) + error / y.var().clamp_min(1e-6)
    return total / len(spec.levels)


def decoded_equivariance(drawn: Tensor, pixels: Tensor, transform: Affine, margin: int) -> Tensor:
    """Eq. 3, read in pixels: || D(f_s(E(X))) - f(X) ||^2 on the 0..255 scale, away from borders."""
    mask = valid((pixels.shape[-2], pixels.shape[-1]), transform, margin, 1).to(pixels)
    error = 255.0**2 * ((drawn - warp(pixels, transform)).square() * mask).mean()
    return error / mask.mean().clamp_min(1e-3)


def moved(features: Features, spec: Space, transform: Affine) -> Features:
    """f_s: the transform applied to every map, its translation divided by the level's stride."""
    maps = features
    return {one.name: warp(maps[one.name].float(), transform, one.stride) for one in spec.levels}
