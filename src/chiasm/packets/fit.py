"""Fit the codec's tables to a space, in closed form, from the features of some pictures.

1. mean and KLT of every level (of what it adds to its doubled parent);  2. per quality, quantise, and by least squares
the integer weights that predict a magnitude from its surroundings;  3. one histogram of symbols per class of
prediction, over all qualities;  4. where in its interval each symbol is best reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Features, FeatureSpec
from chiasm.features.plane import double
from chiasm.packets import contexts, entropy
from chiasm.packets.codec import TransformCodec, _differs, _flattened
from chiasm.packets.tables import LevelTables, Tables
from chiasm.packets.transform import Symbols, coefficients, quantise

Array = np.ndarray
CLASSES = 64
SMALLEST, LARGEST = 1 / 512, 28.0  # predicted magnitudes of the first and last class


@dataclass(frozen=True)
class Plan:
    """What is chosen, not fitted: the parent and wavelet depth of each level, and the steps of each quality."""

    parents: tuple[str, ...]
    depths: tuple[int, ...]
    steps: tuple[tuple[float, ...], ...]  # 8 qualities x levels


def fit(pictures: Sequence[Features], spec: FeatureSpec, plan: Plan) -> Tables:
    """Tables for `spec` from the features of some fifty pictures (maps 1 C H/s W/s)."""
    steps = np.array(plan.steps, np.float32)
    levels = []
    for index, level in enumerate(spec.levels):
        mean, basis = principal(pictures, level.name, plan.parents[index], float(steps[:, index].min()))
        shape = (len(steps), plan.depths[index] + 1, 3, basis.shape[1], contexts.FEATURES)
        offsets = np.zeros((len(steps), plan.depths[index] + 1, basis.shape[1], 3), np.float32)
        levels.append(
            LevelTables(
                level.name, level.stride, plan.parents[index], plan.depths[index], mean, basis, np.zeros(shape, np.int32), offsets
            )
        )
    even = np.full((CLASSES, entropy.SYMBOLS), entropy.TOTAL // entropy.SYMBOLS, np.int64)
    tables = Tables(spec.space, tuple(levels), steps, normalised(even), lookup())
    bands = [coefficients(picture, tables) for picture in pictures]
    for quality in range(1, len(steps) + 1):
        symbols = [quantise(each, tables, quality) for each in bands]
        fit_offsets(tables, bands, symbols, quality)
        fit_weights(tables, symbols, quality)
    return replace(tables, counts=histograms(tables, bands))


def principal(pictures: Sequence[Features], name: str, parent: str, step: float) -> tuple[Array, Array]:
    """Mean and KLT basis, keeping components whose deviation reaches a tenth of the finest step."""
    total, outer, count = 0.0, 0.0, 0
    for picture in pictures:
        x = picture.maps[name].float()
        if parent:
            x = x - double(picture.maps[parent].float())
        flat = x[0].flatten(1).double()  # C N
        total, outer, count = total + flat.sum(1), outer + flat @ flat.T, count + flat.shape[1]
    mean = torch.as_tensor(total) / count
    values, vectors = torch.linalg.eigh(torch.as_tensor(outer) / count - mean[:, None] * mean)
    order = values.argsort(descending=True)
    kept = order[values[order].clamp_min(0).sqrt() > 0.1 * step]
    basis = vectors[:, kept if kept.numel() else order[:1]]
    basis = basis * basis.sum(0).sign()  # the sign of an eigenvector is nobody's: fix it
    return mean.float().numpy(), basis.float().numpy()


def lookup() -> Array:
    """uint8 class of a predicted magnitude given in 1/128: classes are even in its logarithm."""
    size = (np.arange(contexts.LOOKUP) + 0.5) / 128.0
    position = np.log(size / SMALLEST) / np.log(LARGEST / SMALLEST) * (CLASSES - 1)
    found: Array = np.clip(np.round(position), 0, CLASSES - 1).astype(np.uint8)
    return found


Visit = Callable[[LevelTables, int, int, list[Array], Array], None]


def walk(tables: Tables, symbols: Symbols, visit: Visit) -> None:
    """Show every group of components, as it will be coded, to visit(level, band, first component, features, values)."""
    codec = TransformCodec(tables)
    for level in tables.levels:
        bands = symbols[level.name]
        for r, surroundings in codec._bands(level, symbols, codec._shapes(level, bands)):
            source = _flattened(bands, r, level)
            for start, stop in contexts.groups(level.components):
                visit(level, r, start, surroundings.features(start, stop), source[start:stop])
                surroundings.learn(bands[r][start:stop])


class _Moments:
    """Normal equations of one regression per (level, band, orientation, component), weighted by 1 / (prediction + 0.1)^2."""

    def __init__(self, tables: Tables, quality: int) -> None:
        self.quality = quality
        f = contexts.FEATURES
        self.left = {x.name: np.zeros((*x.weights.shape[1:4], f, f)) for x in tables.levels}
        self.right = {x.name: np.zeros((*x.weights.shape[1:4], f)) for x in tables.levels}

    def visit(self, level: LevelTables, r: int, start: int, features: list[Array], values: Array) -> None:
        count, n = values.shape[:2]
        full = [np.broadcast_to(x, values.shape) for x in features]
        for k in range(count):
            for o in range(n):
                rows = np.stack([*(x[k, o].ravel() for x in full), np.ones(values[k, o].size, np.int32)]).astype(np.float64)
                target = np.abs(values[k, o]).ravel().astype(np.float64)
                old = level.weights[self.quality - 1, r, o, start + k].astype(np.float64) / contexts.UNIT
                weight = 1.0 / (np.maximum(old @ rows, 0.0) + 0.1) ** 2 if old.any() else np.ones(len(target))
                self.left[level.name][r, o, start + k] += (rows * weight) @ rows.T
                self.right[level.name][r, o, start + k] += (rows * weight) @ target


def fit_weights(tables: Tables, symbols: Sequence[Symbols], quality: int, rounds: int = 3) -> None:
    """Write the integer weights of one quality into `tables`, by reweighted non-negative least squares."""
    from scipy.optimize import nnls

    for _ in range(rounds):
        moments = _Moments(tables, quality)
        for each in symbols:
            walk(tables, each, moments.visit)
        for level in tables.levels:
            left, right = moments.left[level.name], moments.right[level.name]
            for place in np.ndindex(*left.shape[:3]):
                scale = np.sqrt(np.maximum(np.diag(left[place]), 1e-9))
                matrix = left[place] / np.outer(scale, scale) + 1e-4 * np.eye(len(scale))
                factor = np.linalg.cholesky(matrix)
                solved = nnls(factor.T, np.linalg.solve(factor, right[place] / scale))[0] / scale
                level.weights[quality - 1][place] = np.round(np.minimum(solved, 32.0) * contexts.UNIT).astype(np.int32)


def fit_offsets(tables: Tables, bands: Sequence[dict[str, list[Tensor]]], symbols: Sequence[Symbols], quality: int) -> None:
    """Write how far below m a magnitude of 1, 2, or more lies on average: the centroid of its interval."""
    for index, level in enumerate(tables.levels):
        step = float(tables.steps[quality - 1, index])
        for r in range(level.depth + 1):
            below, count = np.zeros((level.components, 3)), np.zeros((level.components, 3))
            for real, rounded in zip(bands, symbols, strict=True):
                size = np.abs(rounded[level.name][r])
                gap = size - np.abs(real[level.name][r][0].numpy()) / step
                for slot, chosen in enumerate((size == 1, size == 2, size > 2)):
                    below[:, slot] += (gap * chosen).sum(axis=(1, 2, 3))
                    count[:, slot] += chosen.sum(axis=(1, 2, 3))
            level.offsets[quality - 1, r] = below / (count + 20.0)


def histograms(tables: Tables, bands: Sequence[dict[str, list[Tensor]]]) -> Array:
    """Integer counts of symbols for each class of prediction, pooled over pictures, levels and qualities."""
    counts = np.zeros((CLASSES, entropy.SYMBOLS), np.int64)

    def visit(level: LevelTables, r: int, start: int, features: list[Array], values: Array) -> None:
        count, n = values.shape[:2]
        weights = level.weights[quality - 1, r, :n, start : start + count]
        kind = contexts.classes(contexts.predicted(features, weights), tables.classes)
        symbols = entropy.symbol_of(np.abs(values)).ravel()
        pairs = np.broadcast_to(kind, values.shape).ravel().astype(np.int64) * entropy.SYMBOLS + symbols
        counts.ravel()[:] += np.bincount(pairs, minlength=counts.size)

    for quality in range(1, len(tables.steps) + 1):
        for each in bands:
            walk(tables, quantise(each, tables, quality), visit)
    return normalised(smoothed(counts))


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
    whole = np.maximum(1, np.round(share * entropy.TOTAL)).astype(np.int64)
    for row in whole:
        row[row.argmax()] += entropy.TOTAL - row.sum()
    return whole


def sample(pictures: Sequence[Tensor], encode: Callable[[Tensor], Features]) -> Iterator[Features]:
    """Features of 1 3 H W pictures, cropped to whole cells."""
    for picture in pictures:
        height, width = (n // 4 * 4 for n in picture.shape[-2:])
        yield encode(picture[..., :height, :width])
