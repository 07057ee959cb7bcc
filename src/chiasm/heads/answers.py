"""What heads answer, at the size of the picture and in the unit of the task: arrays that can be written to files.

    answer C h w ──View: where a pixel lies in the encoder's input──► bilinear between elements ──► values H x W

Of class logits only the largest is wanted. Where the same class is largest at the four elements around a pixel it is
largest between them too, so logits are interpolated only where classes meet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Size, TaskSpec, View
from chiasm.errors import ShapeError
from chiasm.features.views import Axis, axes
from chiasm.geometry.pinhole import CANONICAL_FOCAL
from chiasm.heads.kinds import KINDS, largest

STRIP = 128  # thousands of places that are raised at a time
GATHERED = 1 << 18  # logits that are gathered at a time: what fits into a processor's cache


@dataclass(frozen=True)
class Answer:
    """What a head says of one picture.

    values, by the task's kind: classes: ids H x W, uint8 (uint16 for more than 256 classes). distance: float32 H x W,
    in the task's unit. direction: float32 H x W x 3, unit length. probability: float32 H x W. picture:
    uint8 H x W x 3, sRGB. label: float32 C, probabilities. vector: float32 C. view: degrees along the picture's longer
    side that its metres were computed with; None where nothing was assumed.
    """

    task: TaskSpec
    values: np.ndarray
    view: float | None = None


@torch.inference_mode()
def answer_of(task: TaskSpec, found: Tensor, size: Size, stride: float, view: View) -> Answer:
    """A head's answer for one picture, 1 C h w (or 1 C), raised bilinearly to H x W.

    size: H and W of the picture. stride: pixels of the encoder's input per element of `found`. view: where the picture
    lies in that input. Places that the encoder did not see get the nearest value, as do those beyond the last element
    of a convolution that rounds its size down. Raises ShapeError when more than one element is missing.
    """
    rule = KINDS[task.kind]
    if found.ndim == 2:
        return Answer(task, rule.values(found[0].float()).cpu().numpy())
    if any(have < edge // stride - 1 for have, edge in zip(found.shape[-2:], view.size, strict=True)):
        raise ShapeError(
            f"{task.name}: {tuple(found.shape)} at stride {stride:g} does not cover the {view.size[0]} x "
            f"{view.size[1]} pixels that the encoder saw; give the whole answer"
        )
    x = found[0].float()  # C h w
    rows, columns = axes(view, size, x, stride)
    if rule.values is largest:
        return Answer(task, _ids(x, rows, columns).cpu().numpy())
    whole = columns.between(x, -1)  # columns once, on the coarse rows
    step = max(1, (STRIP << 10) // size[1])
    parts = [rows.part(top, top + step) for top in range(0, size[0], step)]
    strips = [_array(rule.values(part.between(whole, -2))) for part in parts]
    return Answer(task, np.concatenate(strips))


def in_metres(answer: Answer, focal: float, view: float) -> Answer:
    """Canonical distances in metres; any other answer as it is.

    focal: of the camera, in pixels of the picture as the head saw it. view: what that was computed from, in degrees.
    """
    if answer.task.unit != "canonical":
        return answer
    metres = answer.values * np.float32(focal / CANONICAL_FOCAL)
    return Answer(replace(answer.task, unit="metre"), metres, view)


def _array(values: Tensor) -> np.ndarray:
    """C H W as an array, H x W or H x W x C."""
    arranged: np.ndarray = (values[0] if len(values) == 1 else values.permute(1, 2, 0)).contiguous().cpu().numpy()
    return arranged


def _ids(logits: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Logits C h w to the largest class of every pixel, H W: uint8, or uint16 for more than 256 classes."""
    count, width = logits.shape[0], logits.shape[2]
    low = largest(logits)  # h w
    right, below = (torch.cat([low.narrow(dim, 1, low.shape[dim] - 1), low.narrow(dim, -1, 1)], dim) for dim in (1, 0))
    across = torch.cat([below[:, 1:], below[:, -1:]], 1)
    alike = (low == right) & (low == below) & (low == across)  # of the four elements that start at each one
    ids = low.to(torch.uint8 if count <= 256 else torch.int32)
    ids = ids.index_select(0, rows.before).index_select(1, columns.before)  # H W
    mixed = ~alike.index_select(0, rows.before).index_select(1, columns.before)
    table = logits.flatten(1).t().contiguous()  # hw C
    places = mixed.flatten().nonzero()[:, 0]
    for part in torch.split(places, max(1, GATHERED // count)):
        row, column = part // ids.shape[1], part % ids.shape[1]
        upper, lower = rows.before[row] * width, rows.after[row] * width
        left, beside = columns.before[column], columns.after[column]
        along, down = columns.share[column][:, None], rows.share[row][:, None]
        top = torch.lerp(table[upper + left], table[upper + beside], along)
        bottom = torch.lerp(table[lower + left], table[lower + beside], along)
        ids.view(-1)[part] = torch.lerp(top, bottom, down).argmax(1).to(ids.dtype)
    return ids if count <= 256 else ids.to(torch.uint16)
