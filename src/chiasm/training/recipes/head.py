"""A head for one task of one's own, from a store's features and a folder of labels. No picture is read again.

    Stored ─► random windows ─► head ─► the task's term

Heads for maps and classes start from the trunk of the shipped head, the one for pictures from the shipped denoiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.contracts import Space, TaskSpec
from chiasm.datasets.folders import rows
from chiasm.datasets.labels import METRES_PER_UNIT
from chiasm.datasets.pictures import held_out
from chiasm.errors import ConfigError
from chiasm.evaluation.meters.metrics import confusion, mean_iou
from chiasm.features.layout import padded
from chiasm.features.working import working_factor
from chiasm.heads.classify import ClassifyHead
from chiasm.heads.denoise import DenoiseHead
from chiasm.heads.dense import DenseHead
from chiasm.heads.kinds import KINDS
from chiasm.heads.saved import HeadModule
from chiasm.training.stored import Stored, batch_of
from chiasm.training.terms import rarity, term

TASKS = ("semantics", "depth", "normals", "edges", "denoise", "classes")
SCORED = 64  # held-out pictures, at most


@dataclass(frozen=True)
class HeadConfig:
    """Every knob of the recipe `head`.

    height, width: of random windows, pixels, multiples of 4. trunk: how fast what the head begins with moves, relative
    to what is new. rare: how much rarer classes count more. memory: GiB of features that are held. metres_per_unit:
    what a step of depth labels is. data: which task, pictures and labels; `train head` fills it in, so that a run is
    not resumed with others.
    """

    steps: Count = 600
    batch: Annotated[int, Range(low=2)] = 8
    height: Annotated[int, Range(low=32)] = 192
    width: Annotated[int, Range(low=32)] = 256
    rate: Positive = 1e-3
    warmup: Annotated[int, Range(low=0)] = 30
    decay: Share = 0.99
    weight_decay: Amount = 0.0
    seed: int = 1
    trunk: Amount = 0.3
    rare: Amount = 0.3
    memory: Positive = 4.0
    metres_per_unit: Positive = METRES_PER_UNIT
    data: str = ""
    validate_every: Count = 300
    save_every: Count = 200


def spec_of(task: str, classes: Sequence[str]) -> TaskSpec:
    """What a head of one's own answers. Raises ConfigError when classes are missing, or given to a task without."""
    if task in ("semantics", "classes"):
        if len(classes) < 2:
            raise ConfigError(f"task {task!r} expects two classes or more, got {len(classes)}; name them, one a line")
        if len(set(classes)) != len(classes):
            twice = next(name for name in classes if classes.count(name) > 1)
            raise ConfigError(f"class {twice!r} is named twice; each class is one line")
        return TaskSpec(task, len(classes), "classes" if task == "semantics" else "label", tuple(classes))
    if classes:
        raise ConfigError(f"task {task!r} has no classes, got {len(classes)}; leave them out")
    known = {
        "depth": TaskSpec("depth", 1, "distance", unit="metre"),
        "normals": TaskSpec("normals", 3, "direction"),
        "edges": TaskSpec("edges", 1, "probability"),
        "denoise": DenoiseHead.tasks[0],
    }
    return known[task]


def class_names(file: Path | None, labels: Path, task: str) -> tuple[str, ...]:
    """Names from a file, one a line; for `classes` without one, those in the table of labels in alphabetical order.

    Raises ConfigError when the file cannot be read.
    """
    if file is None:
        return tuple(sorted({word for _, _, word in rows(labels)})) if task == "classes" else ()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} must be a text file of class names, one a line ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())


def fresh_head(spec: Space, task: TaskSpec, begin: Sequence[nn.Module] = ()) -> HeadModule:
    """A head for the task, filled with whatever fits of the modules in `begin`, later ones last."""
    made: HeadModule
    if task.kind == "picture":
        made = DenoiseHead(spec)
    elif task.kind == "label":
        made = ClassifyHead(spec, (task,))
    else:
        made = DenseHead(spec, (task,))
    own = made.state_dict()
    for module in begin:
        given = {name: x for name, x in module.state_dict().items() if name in own and own[name].shape == x.shape}
        own |= given
    made.load_state_dict(own)
    made.requires_grad_(True)
    if isinstance(made, DenoiseHead):
        made.body.alignment.requires_grad_(False)  # it is the space's
    return made


class MapHead(nn.Module):
    """A head as the loop calls it: with a dict of maps, since Fabric cannot cast a frozen dataclass."""

    def __init__(self, head: HeadModule) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(maps)
        return found


@dataclass(frozen=True)
class HeadRecipe:
    """The recipe `head`: items to learn from, items to be scored on, and the head."""

    config: HeadConfig
    training: Stored
    held: Stored
    head: HeadModule

    @staticmethod
    def load(config: HeadConfig, stored: Stored, head: HeadModule) -> HeadRecipe:
        """One picture in ten, by its key's hash, is scored and not trained on; where there is none, the last one.

        Raises ConfigError for fewer than two pictures.
        """
        keys = [item.key for item in stored.items]
        aside = {key for key in keys if held_out(key)} or set(keys[-1:])
        if len(set(keys)) < 2:
            raise ConfigError(f"expected two labelled pictures or more, of which one is held out, got {len(set(keys))}")
        if aside == set(keys):
            aside = {keys[-1]}
        kept = [item for item in stored.items if item.key not in aside]
        scored = [item for item in stored.items if item.key in aside][:SCORED]
        return HeadRecipe(config, replace(stored, items=kept, held={}), replace(stored, items=scored, held={}), head)

    def modules(self) -> MapHead:
        return MapHead(self.head)

    def pace(self, name: str) -> float:
        return self.config.trunk if name.startswith("head.trunk.") else 1.0

    @cached_property
    def window(self) -> tuple[int, int]:
        """Height and width of windows: no larger than the largest picture, which would be border for the most part."""
        sizes = [item.size for item in self.training.items]
        factors = [1 if self.training.whole else working_factor(size) for size in sizes]
        seen = [padded(size, 4 * factor) for size, factor in zip(sizes, factors, strict=True)]
        largest = [max(size[axis] // factor for size, factor in zip(seen, factors, strict=True)) for axis in (0, 1)]
        return min(self.config.height // 4 * 4, largest[0]), min(self.config.width // 4 * 4, largest[1])

    @cached_property
    def rarity(self) -> Tensor | None:
        """Weights of classes, of at most 64 items."""
        task = self.training.task
        if task.kind != "classes":
            return None
        counts = torch.zeros(task.channels)
        for index in range(0, len(self.training), max(1, len(self.training) // 64)):
            _, target, valid = self.training[index]
            counts += torch.bincount(target[valid], minlength=task.channels)
        return rarity(counts, self.config.rare) if counts.sum() else None

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]:
        """One step's loss: a function of its arguments."""
        config, task = self.config, self.training.task
        picks = torch.randint(len(self.training), (config.batch,), generator=draws).tolist()
        features, batch = batch_of([self.training.window(pick, self.window, draws) for pick in picks], task)
        maps = {name: x.to(device).contiguous(memory_format=torch.channels_last) for name, x in features.items()}
        answers = module(maps)
        weights = None if self.rarity is None else self.rarity.to(device)
        return {"loss": term(task, answers[task.name], batch.to(device), weights)}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """One score on whole held-out items: miou, accuracy, rmse (metres), angle (degrees), psnr, or the loss.

        Nothing where no pixel was valid.
        """
        device, task = next(module.parameters()).device, self.training.task
        counts = torch.zeros(max(task.channels, 2), max(task.channels, 2), dtype=torch.int64)
        values: list[float] = []
        for index in range(len(self.held)):
            features, target, valid = self.held[index]
            given = {name: x.float().to(device) for name, x in features.items()}
            answer = module(given)[task.name].float().cpu()
            if task.kind == "label":
                values.append(float(answer.argmax(1).eq(target).float()))
                continue
            grown = F.interpolate(answer, target.shape[-2:], mode="bilinear", align_corners=False)
            if task.kind == "classes":
                ids = torch.where(valid, target, -1)[0, 0]
                counts += confusion(grown.argmax(1)[0], ids, task.channels, -1)
            elif bool(valid.any()):
                values.append(_error(task, grown, target, valid))
        if task.kind == "classes":
            return {"miou": round(mean_iou(counts), 4)} if counts.any() else {}
        return {_score_name(task): round(sum(values) / len(values), 4)} if values else {}


def _error(task: TaskSpec, answer: Tensor, target: Tensor, valid: Tensor) -> float:
    """One picture's score, in the words of `_score_name`."""
    if task.kind == "direction":
        cosine = F.cosine_similarity(answer, target, dim=1)[:, None][valid]
        return float(cosine.clamp(-1, 1).acos().rad2deg().mean())
    if task.kind == "picture":
        square = (answer.clamp(0, 1) - target).square().mean(dim=1, keepdim=True)[valid]
        return float(-10 * square.mean().clamp_min(1e-10).log10())
    if task.kind == "probability":
        edge = target >= 0.3
        return float(F.binary_cross_entropy_with_logits(answer[valid], edge[valid].float()))
    return float((answer - target)[valid].square().mean().sqrt())


def _score_name(task: TaskSpec) -> str:
    return KINDS[task.kind].score
