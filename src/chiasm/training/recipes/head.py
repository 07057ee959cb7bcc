"""A head for one task of one's own, from a store's features and a folder of labels. No picture is read again.

    Stored ─► random windows ─► head ─► the task's term

On `context` and `detail`, heads for maps and labels start from the trunk of the shipped head, the one for pictures from
the shipped denoiser; on any other space a linear or a small convolutional head starts from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.contracts import AnswerKind, Features, Size, Space, TaskSpec, View
from chiasm.datasets.folders import rows
from chiasm.datasets.labels import METRES_PER_UNIT
from chiasm.datasets.pictures import held_out
from chiasm.errors import ConfigError
from chiasm.evaluation.meters.metrics import confusion, mean_iou
from chiasm.features import views
from chiasm.heads.classify import ClassifyHead
from chiasm.heads.denoise import DenoiseHead
from chiasm.heads.dense import DenseHead
from chiasm.heads.kinds import KINDS
from chiasm.heads.linear import ConvHead, LinearHead, PooledHead
from chiasm.heads.saved import HeadModule, check_task
from chiasm.training.stored import Stored, batch_of
from chiasm.training.terms import DRAWN, rarity, term

Network = Literal["auto", "dense", "linear", "convolutional"]
# Kinds of tasks that are known by their names.
TASKS: Mapping[str, AnswerKind] = {
    "semantics": "classes", "depth": "distance", "normals": "direction", "edges": "probability", "denoise": "picture",
    "classes": "label",
}  # fmt: skip
SCORED = 64  # held-out pictures, at most
LINEAR = 30.0  # how fast linear layers on standardised features move: CamVid's mIoU is half as large at 1
LARGEST = 8  # pictures whose sizes bound that of windows
MEASURED = 64  # pictures that means and deviations of features are taken from, at most


@dataclass(frozen=True)
class HeadConfig:
    """Every knob of the recipe `head`.

    height, width: of random windows, in pixels of what the encoder saw, rounded down to whole elements. trunk: how fast
    what the head begins with moves, relative to what is new. rare: how much rarer classes count more. memory: GiB of
    features that are held. metres_per_unit: what a step of depth labels is. data: which task, pictures, labels and
    network; `train head` fills it in, so that a run is not resumed with others.
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


def spec_of(task: str, classes: Sequence[str], kind: AnswerKind | None = None) -> TaskSpec:
    """What a head of one's own answers. kind: None for that of a task that is known by its name.

    Distances are in metres. Raises ConfigError when a kind is missing, a name cannot be one, or classes are missing or
    given to a kind without.
    """
    kind = kind or TASKS.get(task)
    if kind is None or kind == "vector":
        raise ConfigError(
            f"task {task!r} expects a kind of answer, got {kind or 'none'}; add --kind with one of "
            f"{', '.join(name for name in KINDS if name != 'vector')}"
        )
    if kind in ("classes", "label"):
        if len(classes) < 2:
            raise ConfigError(f"task {task!r} expects two classes or more, got {len(classes)}; name them, one a line")
        if len(set(classes)) != len(classes):
            twice = next(name for name in classes if classes.count(name) > 1)
            raise ConfigError(f"class {twice!r} is named twice; each class is one line")
    elif classes:
        raise ConfigError(f"task {task!r} has no classes, got {len(classes)}; leave them out")
    channels = len(classes) or (3 if kind in ("direction", "picture") else 1)
    spec = TaskSpec(task, channels, kind, tuple(classes), "metre" if kind == "distance" else "")
    try:
        check_task(spec)
    except ValueError as error:
        raise ConfigError(f"expected a task that a head can answer, but {error}; name another") from error
    return spec


def class_names(file: Path | None, labels: Path, table: bool) -> tuple[str, ...]:
    """Names from a file, one a line; without one those in a table of labels, in alphabetical order.

    Raises ConfigError when the file cannot be read.
    """
    if file is None:
        return tuple(sorted({word for _, _, word in rows(labels)})) if table else ()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} must be a text file of class names, one a line ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())


def fresh_head(spec: Space, task: TaskSpec, network: Network = "auto", reads: Sequence[str] = ()) -> HeadModule:
    """An untrained head for a task on any space.

    network: auto is the one of the shipped heads where the space has `context` and `detail`, else `linear`. `linear`
    averages where the task is of the whole picture. reads: levels; none for those that the network reads by itself
    (all maps; of the whole picture the vectors, or all maps where there is none).
    Raises ConfigError when the network does not answer such a task or has levels of its own, ShapeError for an unknown
    level, or a vector that is to be read place by place.
    """
    own = {"context", "detail"} <= set(spec.names)
    chosen = network if network != "auto" else "dense" if own and not reads else "linear"
    if chosen == "dense":
        if reads or not own:
            what = f"levels {', '.join(reads)}" if reads else f"space {spec.name!r}"
            raise ConfigError(f"the network dense reads context and detail, got {what}; add --network linear")
        if task.kind == "picture":
            return DenoiseHead(spec)
        return ClassifyHead(spec, (task,)) if task.kind == "label" else DenseHead(spec, (task,))
    maps = tuple(level.name for level in spec.levels if level.stride)
    vectors = tuple(level.name for level in spec.levels if not level.stride)
    if task.kind == "picture":
        raise ConfigError(
            f"a picture, as {task.name!r} is, is answered by the network dense from context and detail alone, got "
            f"{chosen} on space {spec.name!r}; encode the pictures with ns-rgb, or name another task"
        )
    if chosen == "convolutional" and KINDS[task.kind].whole:
        raise ConfigError(f"the network {chosen} does not answer a {task.kind}, as {task.name!r} is; name another")
    if KINDS[task.kind].whole:
        return PooledHead(spec, (task,), tuple(reads) or vectors or maps)
    return (ConvHead if chosen == "convolutional" else LinearHead)(spec, (task,), tuple(reads) or maps)


def begun(head: HeadModule, modules: Sequence[HeadModule]) -> HeadModule:
    """The head, filled with whatever fits of the others, later ones last; ready to learn.

    What a head has for its one task comes from the first task of the same kind.
    """
    own = head.state_dict()
    for module in modules:
        first = next((i for i, task in enumerate(module.tasks) if task.kind == head.tasks[0].kind), None)
        for name, x in module.state_dict().items():
            wanted, (part, _, rest) = name, name.partition(".")
            if part in ("own", "branches", "last") and isinstance(module, DenseHead):
                number, _, rest = rest.partition(".")
                wanted = f"{part}.0.{rest}" if int(number) == first else ""
            if wanted in own and own[wanted].shape == x.shape:
                own[wanted] = x
    head.load_state_dict(own)
    head.requires_grad_(True)
    if isinstance(head, DenoiseHead):
        head.body.alignment.requires_grad_(False)  # it is the space's
    return head


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
        training = stored.of(kept)
        if isinstance(head, LinearHead | ConvHead | PooledHead):
            step = max(1, len(kept) // MEASURED)
            given = (training[index][0] for index in range(0, len(kept), step))
            head.standard.measure(head.joined({name: x.float() for name, x in maps.items()}) for maps in given)
        return HeadRecipe(config, training, stored.of(scored), head)

    def modules(self) -> MapHead:
        return MapHead(self.head)

    def pace(self, name: str) -> float:
        if isinstance(self.head, LinearHead | PooledHead):
            return LINEAR
        return self.config.trunk if name.startswith("head.trunk.") else 1.0

    @cached_property
    def window(self) -> Size:
        """Height and width of windows: no larger than the largest picture, which would be border for the most part."""
        unit, strides = self.training.grid, self.training.strides
        if not strides:
            return unit, unit
        name, stride = next(iter(strides.items()))
        large = sorted(range(len(self.training)), key=lambda index: -math.prod(self.training.items[index].size))
        shapes = [self.training[index][0][name].shape for index in large[:LARGEST]]
        largest = [max(shape[axis] * stride for shape in shapes) for axis in (-2, -1)]
        wanted = (max(unit, n // unit * unit) for n in (self.config.height, self.config.width))
        height, width = (min(want, -(-have // unit) * unit) for want, have in zip(wanted, largest, strict=True))
        return height, width

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
        maps = {name: x.to(device) for name, x in features.items()}
        maps = {name: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for name, x in maps.items()}
        answers = module(maps)
        weights = None if self.rarity is None else self.rarity.to(device)
        return {"loss": term(task, answers[task.name], batch.to(device), weights)}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """The score of the task's kind on whole held-out items; nothing where no pixel was valid."""
        device, task = next(module.parameters()).device, self.training.task
        rule = KINDS[task.kind]
        counts = torch.zeros(max(task.channels, 2), max(task.channels, 2), dtype=torch.int64)
        values: list[float] = []
        for index in range(len(self.held)):
            features, target, valid = self.held[index]
            answer = module({name: x.float().to(device) for name, x in features.items()})[task.name].float().cpu()
            if not rule.whole:
                answer = self._raised(answer, features, (target.shape[-2], target.shape[-1]))
            if rule.meter == "overlap":
                ids = torch.where(valid, target, -1)[0, 0]
                counts += confusion(answer.argmax(1)[0], ids, task.channels, -1)
            elif bool(valid.any()):
                values.append(METERS[rule.meter](answer, target, valid))
        if rule.meter == "overlap":
            return {rule.score: round(mean_iou(counts), 4)} if counts.any() else {}
        return {rule.score: round(sum(values) / len(values), 4)} if values else {}

    def _raised(self, answer: Tensor, features: Features, size: Size) -> Tensor:
        """An answer for every place at the pixels of the encoder's input, where `predict` would lay it."""
        maps = [(stride, features[name].shape[-2:]) for name, stride in self.held.strides.items()]
        return views.raised(answer, View(size), size, views.stride_of(answer.shape[-2:], maps, size))


def _angle(answer: Tensor, target: Tensor, valid: Tensor) -> float:
    cosine = F.cosine_similarity(answer, target, dim=1)[:, None][valid]
    return float(cosine.clamp(-1, 1).acos().rad2deg().mean())


def _psnr(answer: Tensor, target: Tensor, valid: Tensor) -> float:
    square = (answer.clamp(0, 1) - target).square().mean(dim=1, keepdim=True)[valid]
    return float(-10 * square.mean().clamp_min(1e-10).log10())


def _entropy(answer: Tensor, target: Tensor, valid: Tensor) -> float:
    return float(F.binary_cross_entropy_with_logits(answer[valid], (target[valid] >= DRAWN).float()))


# One picture's score by the meters' names in `heads.kinds`; `overlap` is counted over all pictures.
METERS: Mapping[str, Callable[[Tensor, Tensor, Tensor], float]] = {
    "distance": lambda answer, target, valid: float((answer - target)[valid].square().mean().sqrt()),
    "angle": _angle,
    "entropy": _entropy,
    "psnr": _psnr,
    "accuracy": lambda answer, target, valid: float(answer.argmax(1).eq(target).float().mean()),
}
