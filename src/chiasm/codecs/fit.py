"""Fit the codec's tables to a space, in closed form, from the features of some pictures.

1. mean and KLT of every level (of what it adds to its doubled parent);  2. per quality, quantise, and by
least squares the integer weights that predict a magnitude from its surroundings;  3. one histogram of symbols
per class of prediction, over all qualities;  4. where in its interval each symbol is best reconstructed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from chiasm.codecs import contexts, entropy
from chiasm.codecs.bands import Symbols, coefficients, quantise
from chiasm.codecs.tables import LevelTables, Tables
from chiasm.codecs.transform import Step, TransformCodec, walk
from chiasm.contracts import Features, Space
from chiasm.features.plane import double

Array = np.ndarray
CLASSES = 64
SMALLEST, LARGEST = 1 / 512, 28.0  # predicted magnitudes of the first and last class
SMOOTH = 0.7  # correlation of neighbours above which a component goes through the wavelet


@dataclass(frozen=True)
class Plan:
    """What is chosen, not fitted: the parent and wavelet depth of each level, the steps of each quality, and
    what the channels of each level are divided by (nothing: by 1)."""

    parents: tuple[str, ...]
    depths: tuple[int, ...]
    steps: tuple[tuple[float, ...], ...]  # 8 qualities x levels
    scales: tuple[Array, ...] = ()  # levels x C


def fit(pictures: Sequence[Features], spec: Space, plan: Plan) -> Tables:
    """Tables for `spec` from the features of some fifty pictures (maps 1 C H/s W/s)."""
    steps = np.array(plan.steps, np.float32)
    levels = [
        fresh(pictures, spec, index, plan, float(steps[:, index].min()), len(steps))
        for index in range(len(spec.levels))
    ]
    even = np.ones((CLASSES, entropy.SYMBOLS))
    tables = Tables(spec.name, tuple(levels), steps, normalised(even), lookup())
    bands = [coefficients(picture, tables) for picture in pictures]
    tables = fit_statistics(tables, bands, thin=False)
    return fit_statistics(tables, bands, thin=True)


def fit_statistics(tables: Tables, bands: Sequence[dict[str, list[Tensor]]], thin: bool) -> Tables:
    """Offsets, weights and distributions of all qualities; thin: of symbols as an encoder with `tables` would
    keep them."""
    counts, codec = np.zeros((CLASSES, entropy.SYMBOLS), np.int64), TransformCodec(tables)
    for quality in range(1, len(tables.steps) + 1):
        symbols = [quantise(each, tables, quality) for each in bands]
        if thin:
            for each, real in zip(symbols, bands, strict=True):
                codec.encode(each, quality, real)
        fit_offsets(tables, bands, symbols, quality)
        fit_weights(tables, symbols, quality)
        counts += histogram(tables, symbols, quality)
    return replace(tables, counts=normalised(smoothed(counts)))


def fresh(
    pictures: Sequence[Features], spec: Space, index: int, plan: Plan, step: float, qualities: int
) -> LevelTables:
    """One level with its transform fitted and everything else still zero."""
    level, parent, depth = spec.levels[index], plan.parents[index], plan.depths[index]
    scale = np.ones(level.channels, np.float32)
    if plan.scales:
        scale = np.ascontiguousarray(plan.scales[index], np.float32)
    aligned = 1.0 / torch.from_numpy(scale)[:, None, None]
    maps = [residual(picture, level.name, parent) * aligned for picture in pictures]
    mean, basis = principal(maps, step)
    smooth = smoothness(maps, basis) > SMOOTH if depth else np.zeros(basis.shape[1], bool)
    basis = np.concatenate([basis[:, smooth], basis[:, ~smooth]], axis=1)
    bands = depth + 2 if smooth.any() else 1
    return LevelTables(
        name=level.name,
        stride=level.stride,
        parent=parent,
        smooth=int(smooth.sum()),
        depth=depth,
        scale=scale,
        mean=mean,
        basis=basis,
        weights=np.zeros((qualities, bands, 3, 3, basis.shape[1], contexts.FEATURES), np.int32),
        offsets=np.zeros((qualities, bands, basis.shape[1], 3), np.float32),
    )


def residual(picture: Features, name: str, parent: str) -> Tensor:
    """C H W of a level, less its doubled parent."""
    x = picture[name].float()
    return (x - double(picture[parent].float()) if parent else x)[0]


def principal(maps: Sequence[Tensor], step: float) -> tuple[Array, Array]:
    """Mean and KLT basis, keeping components whose deviation reaches a tenth of the finest step."""
    channels = maps[0].shape[0]
    total, outer, count = torch.zeros(channels).double(), torch.zeros(channels, channels).double(), 0
    for x in maps:
        flat = x.flatten(1).double()  # C N
        total, outer, count = total + flat.sum(1), outer + flat @ flat.T, count + flat.shape[1]
    mean = total / count
    values, vectors = torch.linalg.eigh(outer / count - mean[:, None] * mean)
    order = values.argsort(descending=True)
    kept = order[values[order].clamp_min(0).sqrt() > 0.1 * step]
    basis = vectors[:, kept if kept.numel() else order[:1]]
    basis = basis * basis.sum(0).sign()  # the sign of an eigenvector is nobody's: fix it
    return mean.float().numpy(), basis.float().numpy()


def smoothness(maps: Sequence[Tensor], basis: Array) -> Array:
    """Correlation of adjacent places for each component, K."""
    across, size = torch.zeros(basis.shape[1]), torch.zeros(basis.shape[1])
    for x in maps:
        y = torch.einsum("ck,chw->khw", torch.from_numpy(basis), x - x.mean(dim=(1, 2), keepdim=True))
        across = across + (y[:, :, 1:] * y[:, :, :-1]).sum((1, 2)) + (y[:, 1:] * y[:, :-1]).sum((1, 2))
        size = size + 2 * y.square().sum((1, 2))
    result: Array = (across / size.clamp_min(1e-9)).numpy()
    return result


def lookup() -> Array:
    """uint8 class of a predicted magnitude given in 1/128: classes are even in its logarithm."""
    size = (np.arange(contexts.LOOKUP) + 0.5) / 128.0
    position = np.log(size / SMALLEST) / np.log(LARGEST / SMALLEST) * (CLASSES - 1)
    found: Array = np.clip(np.round(position), 0, CLASSES - 1).astype(np.uint8)
    return found


def steps_of(tables: Tables, symbols: Symbols, quality: int) -> list[tuple[LevelTables, Step]]:
    """Every pass over one picture's symbols, as it will be coded, but with no component left out."""
    found = []
    for level in tables.levels:
        bands = symbols[level.name]
        everything = np.ones(sum(len(band) for band in bands), bool)
        for step in walk(level, symbols, level.weights[quality - 1], everything):
            step.learn(values_of(step, symbols[level.name]))
            found.append((level, step))
    return found


def values_of(step: Step, bands: list[Array]) -> list[Array]:
    return [bands[step.band][(step.components, slice(None), *where)] for where in step.rectangles]


class _Moments:
    """Normal equations of one regression per (level, band, pass, orientation, component)."""

    def __init__(self, tables: Tables) -> None:
        f = contexts.FEATURES
        self.left = {x.name: np.zeros((*x.weights.shape[1:5], f, f)) for x in tables.levels}
        self.right = {x.name: np.zeros((*x.weights.shape[1:5], f)) for x in tables.levels}

    def add(self, level: LevelTables, step: Step, bands: list[Array], first: bool) -> None:
        """Weighted by 1 / (prediction + 0.1)^2: a Laplace scale is as uncertain as it is large."""
        for features, values, prediction in zip(step.features, values_of(step, bands), step.predictions, strict=True):
            full = [np.broadcast_to(x, values.shape) for x in features]
            weight = np.ones(values.shape) if first else 1.0 / (prediction / contexts.UNIT + 0.1) ** 2
            for k, component in enumerate(step.components):
                for o in range(values.shape[1]):
                    rows = np.zeros((contexts.FEATURES, values[k, o].size))
                    rows[-1] = 1.0
                    for index, x in enumerate(full):
                        rows[index] = x[k, o].ravel()
                    weighted, place = rows * weight[k, o].ravel(), (step.band, step.index, o, component)
                    self.left[level.name][place] += weighted @ rows.T
                    self.right[level.name][place] += weighted @ np.abs(values[k, o]).ravel()


def fit_weights(tables: Tables, symbols: Sequence[Symbols], quality: int, rounds: int = 2) -> None:
    """Write the integer weights of one quality into `tables`, by reweighted non-negative least squares."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    for round_ in range(rounds):
        moments = _Moments(tables)
        for each in symbols:
            for level, step in steps_of(tables, each, quality):
                moments.add(level, step, each[level.name], first=round_ == 0)
        for level in tables.levels:
            left, right = moments.left[level.name], moments.right[level.name]
            for place in np.ndindex(*left.shape[:4]):
                scale = np.sqrt(np.maximum(np.diag(left[place]), 1e-9))
                matrix = left[place] / np.outer(scale, scale) + 1e-4 * np.eye(len(scale))
                factor = np.linalg.cholesky(matrix)
                solved = nnls(factor.T, np.linalg.solve(factor, right[place] / scale))[0] / scale
                level.weights[quality - 1][place] = np.round(np.minimum(solved, 32.0) * contexts.UNIT).astype(np.int32)


def fit_offsets(
    tables: Tables, bands: Sequence[dict[str, list[Tensor]]], symbols: Sequence[Symbols], quality: int
) -> None:
    """Write how far below m a magnitude of 1, 2, or more lies on average: the centroid of its interval."""
    for index, level in enumerate(tables.levels):
        step = float(tables.steps[quality - 1, index])
        for r in range(level.bands if not level.smooth else level.bands - 1):
            below, count = np.zeros((level.components, 3)), np.zeros((level.components, 3))
            for real, rounded in zip(bands, symbols, strict=True):
                size = np.abs(rounded[level.name][r])
                gap = size - np.abs(real[level.name][r].numpy()) / step
                for slot, chosen in enumerate((size == 1, size == 2, size > 2)):
                    below[: len(size), slot] += (gap * chosen).sum(axis=(1, 2, 3))
                    count[: len(size), slot] += chosen.sum(axis=(1, 2, 3))
            level.offsets[quality - 1, r] = below / (count + 20.0)


def histogram(tables: Tables, symbols: Sequence[Symbols], quality: int) -> Array:
    """Counts of symbols for each class of prediction, pooled over pictures, levels and components."""
    counts = np.zeros(CLASSES * entropy.SYMBOLS, np.int64)
    for each in symbols:
        for level, step in steps_of(tables, each, quality):
            for values, prediction in zip(values_of(step, each[level.name]), step.predictions, strict=True):
                kind = contexts.classes(prediction, tables.classes).astype(np.int64)
                pairs = kind * entropy.SYMBOLS + entropy.symbol_of(np.abs(values))
                counts += np.bincount(pairs.ravel(), minlength=len(counts))
    return counts.reshape(CLASSES, entropy.SYMBOLS)


def smoothed(counts: Array) -> Array:
    """Lend a little of its neighbours' counts to each class, so that a rare one is not noise."""
    lent = counts.astype(np.float64) * 16
    lent[1:] += counts[:-1]
    lent[:-1] += counts[1:]
    result: Array = lent / 16 + 0.02
    return result


def normalised(counts: Array) -> Array:
    """Rows of positive integers that sum to 2^16, nearest to `counts`."""
    share = counts / counts.sum(axis=1, keepdims=True)
    whole: Array = np.maximum(1, np.round(share * entropy.TOTAL)).astype(np.int64)
    for row in whole:
        row[row.argmax()] += entropy.TOTAL - row.sum()
    return whole
