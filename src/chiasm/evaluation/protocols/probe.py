"""Linear probe: how much of what things are can a single 1x1 convolution read?

CamVid, 11 classes. Inputs are everything a space stores for a 4x4 block of pixels, whitened by the
training part: 320 numbers for context and detail, 48 for the pixels themselves, which is the baseline. Same
pictures, same positions, same optimiser, same steps, same seed for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from chiasm.contracts import Features
from chiasm.datasets.camvid import CLASSES, VOID
from chiasm.errors import ImageError, ShapeError
from chiasm.evaluation.meters.distances import stride_of
from chiasm.evaluation.meters.metrics import class_iou, confusion, mean_iou
from chiasm.evaluation.protocols.pictures import Picture, read_picture

CELL = 4  # pixels: edge of the block that gets one vector of inputs

Embed = Callable[[Tensor], Tensor]  # float B 3 H W in [0, 1] to B inputs H/4 W/4


@dataclass(frozen=True)
class Labelled:
    """A picture with the class of each pixel: uint8 H x W, 0 to 10, void 11."""

    picture: Picture
    labels: Tensor


@dataclass(frozen=True)
class ProbeSettings:
    """Pinned training of the probe. train, test: pictures, spread evenly over each part. positions: blocks
    that are drawn from each training picture. batch: positions per step. rate: AdamW's, falling to 0 along a
    cosine."""

    train: int = 200
    test: int = 60
    positions: int = 2000
    batch: int = 4096
    steps: int = 1500
    rate: float = 1e-2
    seed: int = 0


@dataclass(frozen=True)
class ProbeScore:
    """miou and accuracy in [0, 1] over all test pixels that are not void; iou: class -> score, None where
    absent."""

    inputs: int
    miou: float
    accuracy: float
    iou: dict[str, float | None]


def read_camvid(part: Path, limit: int) -> list[Labelled]:
    """`limit` pictures of a part (train, val or test), spread evenly over it in order of name.

    part holds images/NAME.jpg and labels/NAME.png, of one size. Raises ImageError when it does not.
    """
    paths = sorted((part / "images").glob("*.jpg"))
    if not paths:
        raise ImageError(f"{part / 'images'} must hold .jpg pictures, and holds none; pass the CamVid folder", "empty")
    chosen = sorted({int(index) for index in np.linspace(0, len(paths) - 1, min(limit, len(paths)))})
    return [Labelled(read_picture(path), _read_labels(part, path.stem)) for path in (paths[index] for index in chosen)]


def stacked(features: Features, height: int) -> Tensor:
    """All maps of a picture `height` pixels high as B inputs H/4 W/4: finer ones unshuffled into the block.

    Raises ShapeError for a level coarser than 4 pixels, or one that does not divide 4.
    """
    parts = []
    for level, values in features.items():
        stride = stride_of(values, height)
        if CELL % stride:
            raise ShapeError(
                f"level {level!r} has stride {stride}, and the probe reads 1, 2 and 4; leave the level out"
            )
        parts.append(F.pixel_unshuffle(values, CELL // stride))
    return torch.cat(parts, 1)


def pixel_blocks(pixels: Tensor) -> Tensor:
    """The baseline: B 3 H W to the B 48 H/4 W/4 values of the blocks."""
    return F.pixel_unshuffle(pixels, CELL)


def probe(embed: Embed, train: Sequence[Labelled], test: Sequence[Labelled], settings: ProbeSettings) -> ProbeScore:
    """Trains the probe on `train` and scores it on `test`, whose logits are raised bilinearly to the labels'
    size."""
    inputs, targets = _positions(embed, train, settings)
    weight, bias = _fit((inputs, targets), _whitening(inputs), settings)
    counts = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    with torch.no_grad():
        for item in test:
            logits = F.conv2d(embed(item.picture.batch), weight[:, :, None, None], bias)  # 1 11 H/4 W/4
            logits = F.interpolate(logits, item.labels.shape, mode="bilinear", align_corners=False)
            counts += confusion(logits.argmax(1)[0], item.labels, len(CLASSES), VOID)
    scores = class_iou(counts).tolist()
    iou = {name: None if math.isnan(score) else score for name, score in zip(CLASSES, scores, strict=True)}
    accuracy = float(counts.diagonal().sum() / counts.sum())
    return ProbeScore(inputs.shape[1], mean_iou(counts), accuracy, iou)


def block_targets(labels: Tensor) -> Tensor:
    """H x W labels to 12 x H/4 x W/4: the share of each class, void last, among a block's 16 pixels."""
    shares = F.one_hot(labels.long(), VOID + 1).permute(2, 0, 1).float()
    return F.avg_pool2d(shares[None], CELL)[0]


def _read_labels(part: Path, name: str) -> Tensor:
    path = part / "labels" / f"{name}.png"
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image))
    except (OSError, ValueError) as fault:
        raise ImageError(f"{path} must hold the labels of {name}: {fault}; copy it there", "unreadable") from fault


def _positions(embed: Embed, items: Sequence[Labelled], settings: ProbeSettings) -> tuple[Tensor, Tensor]:
    """fp16 N x inputs and fp32 N x 11: fp16, since 320 inputs of 400,000 blocks would be 0.5 GB in fp32."""
    generator = torch.Generator().manual_seed(settings.seed)
    inputs, targets = [], []
    with torch.no_grad():
        for item in items:
            found, shares = embed(item.picture.batch)[0].flatten(1), block_targets(item.labels).flatten(1)
            chosen = torch.randperm(found.shape[1], generator=generator)[: settings.positions]
            inputs.append(found[:, chosen].T.half())
            targets.append(shares[:VOID, chosen].T)
    return torch.cat(inputs), torch.cat(targets)


def _whitening(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and matrix (inputs x inputs) that make the training inputs uncorrelated, of variance 1.

    Still linear, so the probe can say no more than before; but neighbouring pixels are so alike that a probe
    on merely standardised ones is far from its optimum after any affordable number of steps, and would be too
    weak a baseline. Directions of under 1e-5 of the mean variance, where fp16 is noise, are not raised to 1.
    """
    size = inputs.shape[1]
    total, products = torch.zeros(size).double(), torch.zeros(size, size).double()
    for part in torch.split(inputs, 65536):
        exact = part.double()
        total += exact.sum(0)
        products += exact.T @ exact
    mean = total / len(inputs)
    covariance = products / len(inputs) - mean[:, None] * mean
    deviation = covariance.diagonal().clamp_min(1e-12).sqrt()
    values, vectors = torch.linalg.eigh(covariance / deviation[:, None] / deviation)
    return mean.float(), ((vectors / (values.clamp_min(0) + 1e-5).sqrt()).T / deviation).float()


def _fit(
    data: tuple[Tensor, Tensor], whitening: tuple[Tensor, Tensor], settings: ProbeSettings
) -> tuple[Tensor, Tensor]:
    """Softmax regression from 0. A block's loss is the mean cross-entropy of its pixels that are not void."""
    (inputs, targets), (mean, matrix) = data, whitening
    weight = torch.zeros(targets.shape[1], inputs.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=settings.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.steps):
        chosen = torch.randint(len(inputs), (settings.batch,), generator=generator)
        logits = F.linear(inputs[chosen].float() - mean, weight @ matrix, bias)
        shares = targets[chosen]
        loss = -(shares * logits.log_softmax(1)).sum() / shares.sum().clamp_min(1e-6)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    folded = weight.detach() @ matrix  # back to the inputs as they come
    return folded, bias.detach() - folded @ mean
