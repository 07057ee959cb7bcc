"""What an answer costs against its target, whatever network gave it; a picture without a target costs nothing.

    classes      cross-entropy, each class weighted by how rare it is
    distance     scale-invariant error of its logarithm (Eigen et al. 2014, arXiv 1406.2283), and of its slopes
    direction    1 - cosine
    probability  cross-entropy, yes and no in balance; what few people drew does not count (RCF, 1612.02103)
    picture      absolute error
    label        cross-entropy
    vector       squared error

Consistency (M2H, arXiv 2510.17363, says which pairs, not how; the forms are ours): directions against the normals of
the distance by back-projection, and probabilities against where the classes that were answered meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.contracts import TaskSpec
from chiasm.datasets.batches import Batch
from chiasm.geometry import pinhole as geometry
from chiasm.heads.kinds import KINDS

DRAWN = 0.3  # share of annotators from which on an edge is one; below it, and above 0, nobody can tell
SCALE_FREE = 0.5  # of the scale-invariant error: 1 would forgive a wrong scale altogether
SLOPE = 0.5
SMOOTHED = 0.05  # of the target of a class that is spread over all
LEAST = 16  # pixels that a term of places needs
COARSEST = 4  # pixels: logits of classes that lie further apart are interpolated first


def term(task: TaskSpec, answer: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """The loss of one task, a scalar; 0 with a gradient of 0 where no picture of the batch has a target.

    answer: as the head gives it, float32 B C h w (or B C). weights: of classes.
    """
    rule = KINDS[task.kind]
    target, valid = batch.targets[task.name].to(answer.device), batch.valid[task.name].to(answer.device)
    if int(valid.sum()) < (1 if rule.whole else LEAST):
        return answer.sum() * 0.0
    return LOSSES[rule.loss](answer, target, valid, weights)


def _label(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    return F.cross_entropy(answer[valid], target[valid], label_smoothing=SMOOTHED)


def _vector(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    return (answer[valid] - target[valid]).square().mean()


def _picture(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    return 10.0 * ((answer - target).abs() * valid).sum() / (3 * valid.sum())


def _classes(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    factor = target.shape[-1] // answer.shape[-1]
    if factor > COARSEST:
        finer = max(part for part in range(1, factor + 1) if not factor % part and factor // part >= COARSEST)
        answer, factor = F.interpolate(answer, scale_factor=float(finer), mode="bilinear"), factor // finer
    # One pixel of each cell, next to its centre: which of the four there is all the same, and a mean is no class.
    ids = torch.where(valid, target, -1)[:, 0, factor // 2 :: factor, (factor - 1) // 2 :: factor]
    if not bool((ids >= 0).any()):
        return answer.sum() * 0.0
    return F.cross_entropy(answer, ids, weights, ignore_index=-1, label_smoothing=SMOOTHED)


def _probability(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    factor = target.shape[-1] // answer.shape[-1]
    share = F.max_pool2d(target, factor)
    known = (F.max_pool2d((~valid).float(), factor) == 0) & ((share >= DRAWN) | (share == 0))
    edge = (share >= DRAWN).float()
    each = F.binary_cross_entropy_with_logits(answer, edge, reduction="none") * known
    count = known.sum(dim=(1, 2, 3)).clamp_min(1)
    rare = ((edge * known).sum(dim=(1, 2, 3)) / count).clamp(0.01, 0.5).view(-1, 1, 1, 1)
    balance = torch.where(edge > 0, 1.0 - rare, 1.1 * rare)
    return (each * balance).sum() / count.sum() * 4.0


def shrunk(x: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Means over the valid pixels of each place of `size`; a place is valid when half of its pixels are."""
    share = F.adaptive_avg_pool2d(valid.float(), size)
    mean = F.adaptive_avg_pool2d(x * valid, size) / share.clamp_min(1e-6)
    return mean, share >= 0.5


def _distance(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    log, known = shrunk(target.clamp_min(1e-3).log(), valid, (answer.shape[-2], answer.shape[-1]))
    if not bool(known.any()):
        return answer.sum() * 0.0
    error = (answer.clamp_min(1e-3).log() - log) * known
    count = known.sum(dim=(1, 2, 3)).clamp_min(1)
    square = error.square().sum(dim=(1, 2, 3)) / count
    scale = error.sum(dim=(1, 2, 3)) / count
    some = known.any(dim=3).any(dim=2)[:, 0]
    spread = (square - SCALE_FREE * scale.square()).clamp_min(1e-6).sqrt()[some].mean()
    return spread + SLOPE * (_slope(error, known, -1) + _slope(error, known, -2))


def _slope(error: Tensor, known: Tensor, axis: int) -> Tensor:
    count = error.shape[axis] - 1
    both = known.narrow(axis, 0, count) & known.narrow(axis, 1, count)
    steps = (error.narrow(axis, 1, count) - error.narrow(axis, 0, count)).abs()
    return (steps * both).sum() / both.sum().clamp_min(1)


def _direction(answer: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    mean, known = shrunk(target, valid, (answer.shape[-2], answer.shape[-1]))
    cosine = F.cosine_similarity(answer, mean, dim=1)[:, None]
    return ((1.0 - cosine) * known).sum() / known.sum().clamp_min(1)


LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "class_entropy": _classes,
    "log_distance": _distance,
    "cosine": _direction,
    "rare_entropy": _probability,
    "absolute": _picture,
    "label_entropy": _label,
    "squared": _vector,
}


def consistency(tasks: Sequence[TaskSpec], answers: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Terms between the first tasks of two kinds: `surface` (distance, direction), `outline` (probability, classes)."""
    names = {task.kind: task.name for task in reversed(tasks)}
    found = {}
    if "distance" in names and "direction" in names:
        found["surface"] = _surface(names["distance"], names["direction"], answers, batch)
    if "probability" in names and "classes" in names:
        found["outline"] = _outline(names["probability"], names["classes"], answers, batch)
    return found


def _surface(distance: str, direction: str, answers: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """1 - cosine between directions and normals of distances, where both are learnt and the camera is known."""
    depth, normals, valid = answers[distance], answers[direction], batch.valid
    seen = batch.seen & valid[distance].flatten(1).any(1) & valid[direction].flatten(1).any(1)
    if not bool(seen.any()):
        return depth.sum() * 0.0
    factor = batch.pixels.shape[-1] / depth.shape[-1]
    fx, fy, cx, cy = batch.cameras[seen].unbind(1)
    small = torch.stack([fx / factor, fy / factor, (cx + 0.5) / factor - 0.5, (cy + 0.5) / factor - 0.5], dim=1)
    bent = geometry.normals_from_neighbours(depth[seen], small)  # one factor for all depths turns no normal
    known = F.adaptive_avg_pool2d(valid[direction][seen].float(), (depth.shape[-2], depth.shape[-1])) >= 0.5
    cosine = F.cosine_similarity(bent, normals[seen], dim=1)[:, None]
    return ((1.0 - cosine) * known).sum() / known.sum().clamp_min(1)


def _outline(probability: str, classes: str, answers: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Mean distance between the probability and where classes meet, on pictures whose classes are learnt."""
    edges = answers[probability]
    learnt = batch.valid[classes].flatten(1).any(1) & batch.valid[probability].flatten(1).any(1)
    if not bool(learnt.any()):
        return edges.sum() * 0.0
    ids = answers[classes][learnt].detach().argmax(1, keepdim=True)
    meet = torch.zeros_like(ids, dtype=torch.float32)
    meet[..., :, :-1] += (ids[..., :, 1:] != ids[..., :, :-1]).float()
    meet[..., :-1, :] += (ids[..., 1:, :] != ids[..., :-1, :]).float()
    near = F.max_pool2d(edges[learnt].sigmoid(), edges.shape[-1] // ids.shape[-1])
    return (near - meet.clamp(0, 1)).abs().mean()


def rarity(counts: Tensor, power: float) -> Tensor:
    """Weights of classes in cross-entropy from their shares: rare ones count more, but a pixel counts 1 on average.

    A class that was never seen counts as much as the rarest that was.
    """
    share = (counts.double() / counts.sum()).clamp_min(float(counts[counts > 0].min() / counts.sum()))
    weight = share ** (-power)
    scaled: Tensor = weight / (weight * counts / counts.sum()).sum()
    return scaled.float()
