"""A sheet of pictures, their targets and what was read: one column for each picture, rows below each other.

classes as colours of a fixed palette, depth on a perceptual scale (bar in its unit), normals as RGB = (n + 1) / 2,
edges dark on white. What is not known of a target is grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from chiasm.contracts import AnswerKind, Sample
from chiasm.datasets.vocabulary import palette
from chiasm.evaluation.baselines.priors import Predict
from chiasm.evaluation.meters.depth import METRES, aligned
from chiasm.evaluation.meters.semantics import raised
from chiasm.evaluation.protocols.dense import Protocol, task_of
from chiasm.geometry import pinhole as geometry

UNKNOWN = 0.5  # grey
SCALE = "viridis_r"  # near is bright
COLUMNS = 4  # pictures of a report
WIDTH = 2.6  # inches of a picture

Colours = NDArray[np.float64]  # H W 3 in [0, 1]
Range = tuple[float, float]


def sheet(protocol: Protocol, samples: Sequence[Sample], predict: Predict) -> Figure:
    """One column for each sample: the picture, then for each task of the protocol its target and its prediction.

    A task that `predict` does not answer has its target alone.
    """
    columns = [_column(protocol, sample, predict) for sample in samples]
    titles = list(dict.fromkeys(title for column in columns for title in column))
    heights = [sample.frame.size[0] / sample.frame.size[1] for sample in samples]
    size = (WIDTH * len(columns) + 0.8, WIDTH * max(heights) * len(titles) + 0.3)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(titles), len(columns), squeeze=False)
    for place, (sample, column) in enumerate(zip(samples, columns, strict=True)):
        axes[0][place].set_title(sample.name, fontsize=8)
        for row, title in enumerate(titles):
            _show(figure, axes[row][place], column.get(title))
            if place == 0:
                axes[row][0].set_ylabel(title, fontsize=8)
    return figure


def coloured(kind: AnswerKind, values: Tensor, valid: Tensor | None = None, span: Range = METRES) -> Colours:
    """A map C x H x W of an answer as colours: class ids 1 H W, distances, directions, or shares in [0, 1].

    valid: bool H x W, false becomes grey. span: the depths at the ends of the scale.
    """
    if kind == "classes":
        found = palette()[values[0].numpy() % 256] / 255.0
    elif kind == "distance":
        share = (values[0].double() - span[0]) / max(span[1] - span[0], 1e-12)
        found = colormaps[SCALE](share.clamp(0, 1).numpy())[..., :3]
    elif kind == "direction":
        found = ((F.normalize(values.double(), dim=0) + 1) / 2).permute(1, 2, 0).numpy()
    else:
        found = np.repeat(1 - values.double().clamp(0, 1).permute(1, 2, 0).numpy(), 3, axis=2)
    known = np.ones(found.shape[:2], bool) if valid is None else valid.numpy()
    return np.where(known[..., None], found, UNKNOWN)


def _column(protocol: Protocol, sample: Sample, predict: Predict) -> dict[str, tuple[Colours, Range | None]]:
    with torch.inference_mode():
        answers = predict(sample.frame.pixels[None])
    pixels = sample.frame.pixels.clamp(0, 1).permute(1, 2, 0).double().numpy()
    found: dict[str, tuple[Colours, Range | None]] = {"input": (pixels, None)}
    for task in protocol.tasks:
        target, valid = sample.targets[task], sample.valid[task]
        kind = task_of(protocol, task).kind
        answer = _answer(kind, answers[task], target) if task in answers else None
        if kind == "distance" and sample.camera and answer is not None and not protocol.disparity:
            answer = geometry.metric(answer, sample.camera)
        if kind == "distance" and protocol.disparity:
            target = torch.where(valid, 1 / target.clamp_min(1e-12), 0.0)
            answer = None if answer is None else _fitted(1 / answer.clamp_min(METRES[0]), target, valid)
        span = _span(target, valid) if kind == "distance" else METRES
        bar = span if kind == "distance" else None
        found[f"{task}, target"] = (coloured(kind, target, valid, span), bar)
        if answer is not None:
            found[f"{task}, read"] = (coloured(kind, answer, None, span), bar)
    return found


def _answer(kind: AnswerKind, answer: Tensor, target: Tensor) -> Tensor:
    """A head's answer at the size and in the form of its target."""
    maps = raised(answer, target.shape[-2:])
    if kind == "classes":
        return maps.argmax(1)
    return maps[0].sigmoid() if kind == "probability" else maps[0]


def _fitted(inverse: Tensor, disparity: Tensor, valid: Tensor) -> Tensor:
    """Inverse depth 1 H W by the scale and shift that fit it to what is known of the disparity."""
    x, found = inverse[0].double(), inverse[0].double()
    line = aligned(x[valid], disparity[0][valid].double())
    low, high = int(x[valid].argmin()), int(x[valid].argmax())
    run = x[valid][high] - x[valid][low]
    scale = (line[high] - line[low]) / run if float(run) > 0 else torch.zeros_like(run)
    return (line[low] + scale * (found - x[valid][low]))[None]


def _span(target: Tensor, valid: Tensor) -> Range:
    known = target[0][valid]
    return (float(known.min()), float(known.max())) if len(known) else METRES


def _show(figure: Figure, axes: Axes, cell: tuple[Colours, Range | None] | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if cell is None:
        return
    axes.imshow(cell[0], interpolation="nearest")
    if cell[1] is not None:
        bar = figure.colorbar(ScalarMappable(Normalize(*cell[1]), SCALE), ax=axes, shrink=0.9)
        bar.ax.tick_params(labelsize=6)
