"""What heads answer, at the size of the picture and in the unit of the task: arrays that can be written to files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import TaskSpec
from chiasm.errors import ShapeError
from chiasm.geometry.pinhole import CANONICAL_FOCAL

STRIP = 128  # thousands of places that are raised at a time: fifty classes of a large picture would not fit


@dataclass(frozen=True)
class Answer:
    """What a head says of one picture.

    values, by task: semantics: class ids H x W, uint8 (uint16 for more than 256 classes). depth: float32 H x W, in the
    task's unit. normals: float32 H x W x 3, unit length, x right, y down, z forward. edges: float32 H x W, probability.
    denoise: uint8 H x W x 3, sRGB. classes: float32 K, probabilities. view: degrees along the picture's longer side
    that its metres were computed with; None where nothing was assumed.
    """

    task: TaskSpec
    values: np.ndarray
    view: float | None = None


@torch.inference_mode()
def answer_of(task: TaskSpec, found: Tensor, size: tuple[int, int], stride: int) -> Answer:
    """A head's answer for one picture, 1 C h w (or 1 C), raised bilinearly to H x W.

    size: H and W of the picture. stride: pixels per element of `found`, which begins where the picture begins.
    Raises ShapeError when `found` does not cover the picture.
    """
    if found.ndim == 2:
        return Answer(task, found[0].float().softmax(0).numpy())
    height, width = size
    if found.shape[-2] * stride < height or found.shape[-1] * stride < width:
        raise ShapeError(
            f"{task.name}: {tuple(found.shape)} at stride {stride} does not cover {height} x {width} pixels"
        )
    whole = between(found.float(), -1, 0, width, stride)  # columns once, on the coarse rows
    rows = max(1, (STRIP << 10) // width)
    strips = [_strip(task, whole, (top, min(height, top + rows)), stride) for top in range(0, height, rows)]
    return Answer(task, np.concatenate(strips))


def in_metres(answer: Answer, focal: float, view: float) -> Answer:
    """Canonical depth in metres; any other answer as it is.

    focal: of the camera, in pixels of the picture as the head saw it. view: what that was computed from, in degrees.
    """
    if answer.task.unit != "canonical":
        return answer
    metres = answer.values * np.float32(focal / CANONICAL_FOCAL)
    return Answer(replace(answer.task, unit="metre"), metres, view)


def _strip(task: TaskSpec, whole: Tensor, rows: tuple[int, int], stride: int) -> np.ndarray:
    x = between(whole, -2, *rows, stride)[0]  # C n W
    if task.name == "semantics":
        ids: np.ndarray = x.argmax(0).numpy().astype(np.uint8 if task.channels <= 256 else np.uint16)
        return ids
    if task.unit == "direction":
        x = torch.nn.functional.normalize(x, dim=0)
    if task.unit == "logit":
        x = x.sigmoid()
    if task.unit == "srgb":
        x = x.clamp(0, 1).mul(255.0).round().to(torch.uint8)
    values: np.ndarray = (x[0] if task.channels == 1 else x.permute(1, 2, 0)).contiguous().numpy()
    return values


def between(x: Tensor, axis: int, start: int, stop: int, stride: int) -> Tensor:
    """Places start to stop (in pixels) of one axis of `x`, linear between its elements, constant beyond the last ones.

    Pixel centres lie at +0.5, as in `interpolate` without aligned corners, of which this is a part.
    """
    count = x.shape[axis]
    place = ((torch.arange(start, stop) + 0.5) / stride - 0.5).clamp(0, count - 1)
    before = place.floor().long()
    after = (before + 1).clamp_max(count - 1)
    share = (place - before).view([-1 if axis % x.ndim == i else 1 for i in range(x.ndim)])
    return torch.lerp(x.index_select(axis, before), x.index_select(axis, after), share)
