"""Scores of pictures and of label maps. Everything is per picture; whoever wants a mean takes it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from chiasm.errors import ShapeError

PSNR_CAP = 100.0  # dB given to identical pictures: finite, so that a mean and a JSON file can hold it
SSIM_WINDOW = 11  # pixels, Gaussian of sigma 1.5 (Wang et al. 2004)


def quantised(picture: Tensor) -> Tensor:
    """Float pixels in [0, 1] (clipped first) to the uint8 a file or a screen holds. uint8 passes through."""
    if picture.dtype == torch.uint8:
        return picture
    return (picture.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def unit(picture: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; floats pass through unclipped. Raises ShapeError on any other dtype."""
    if picture.dtype == torch.uint8:
        return picture.float() / 255
    if picture.is_floating_point():
        return picture
    raise ShapeError(f"a picture is uint8, or float in [0, 1]; got {picture.dtype}; convert it first")


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB with peak 1: -10 log10 of the mean squared error over all values of a
    picture.

    a, b: ... C H W, uint8 or float in [0, 1]. Returns float64 `...`: one number per picture, the mean squared
    error being over C, H and W together (all RGB values, not luma). It is at most PSNR_CAP, which identical
    pictures get. Raises ShapeError when the shapes differ.
    """
    _alike(a, b)
    error = (_exact(a) - _exact(b)).square().mean((-3, -2, -1))
    return -10 * torch.log10(error.clamp_min(10 ** (-PSNR_CAP / 10)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), 11-pixel Gaussian window, mean over positions and RGB.

    a, b: B C H W, uint8 or float in [0, 1], H and W at least 11. Returns float B. Raises ShapeError
    otherwise.
    """
    _alike(a, b)
    if a.ndim != 4 or min(a.shape[-2:]) < SSIM_WINDOW:
        raise ShapeError(f"ssim wants B C H W with H, W >= {SSIM_WINDOW}, got {tuple(a.shape)}; use larger pictures")
    score = structural_similarity_index_measure(unit(a), unit(b), data_range=1.0, reduction="none")
    if not isinstance(score, Tensor):  # torchmetrics returns a pair only when asked for the full map
        raise ShapeError("structural_similarity_index_measure returned more than the score; pin torchmetrics>=1.6")
    return score.reshape(a.shape[0])


def confusion(predicted: Tensor, target: Tensor, classes: int, void: int | None = None) -> Tensor:
    """Counts of (target class, predicted class), int64 classes x classes; sums over pictures are plain sums.

    predicted, target: integer label maps of one shape. Positions whose target is `void` are not counted.
    Raises ShapeError on differing shapes, or a label outside [0, classes) where it counts.
    """
    _alike(predicted, target)
    kept = torch.ones_like(target, dtype=torch.bool) if void is None else target != void
    truth, guess = target[kept].long(), predicted[kept].long()
    both = torch.cat([truth.flatten(), guess.flatten()])
    if both.numel() and not 0 <= int(both.min()) <= int(both.max()) < classes:
        raise ShapeError(
            f"labels must be 0 to {classes - 1}, got {int(both.min())} to {int(both.max())}; mark others void"
        )
    return torch.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def class_iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class, float64 K; NaN for a class that neither target nor prediction
    has."""
    hits = counts.diagonal().double()
    return hits / (counts.sum(0) + counts.sum(1) - counts.diagonal()).double()  # 0 / 0 = NaN: the class is absent


def mean_iou(counts: Tensor) -> float:
    """Mean of the classes' intersection over union, absent classes left out; NaN when all are absent."""
    return float(class_iou(counts).nanmean())


def _exact(picture: Tensor) -> Tensor:
    return picture.double() / 255 if picture.dtype == torch.uint8 else unit(picture).double()


def _alike(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ShapeError(f"both must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}; crop or resize one")
