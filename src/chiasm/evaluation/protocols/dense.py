"""Protocol `evaluate dense`: depth, classes, normals and edges read from features, coded and not.

    picture ──► encoder ──► features [──► codec ──► features] ──► head ──► task -> map ──► raised to H x W ──► scores

| protocol   | scored on                              | what                                                       |
|------------|----------------------------------------|------------------------------------------------------------|
| nyuv2      | 327 of the 654 test pictures, 320x240, | 39 classes, depth clipped to 0.001-10 m, normals, edges    |
|            | 4 pixels at the border left out        | between classes (partners within 0.011 of the diagonal)    |
| camvid     | 62 test pictures                       | 11 classes                                                 |
| bsds500    | 100 val pictures                       | edges of each annotator (within 0.0075 of the diagonal)    |
| middlebury | both views of Cones and Teddy          | depth up to scale and shift, against disparity             |
| cityscapes | 500 val pictures, 1024x512             | CamVid's 11 classes, of streets that no head was shown     |
| hypersim   | every frame that is there, 512x384     | what nyuv2 scores, rendered                                |
| sceneflow  | every left picture that is there       | what middlebury scores, rendered                           |
| nyuv2-full | the 654 test pictures, 640x480, 8      | what nyuv2 scores, from unrounded depth; not Eigen's crop  |
|            | pixels at the border left out          |                                                            |

Heads answer depth for the canonical camera; it is scored in metres where a picture's camera is known. Pictures are seen
as `predict` sees them: smaller where the longer side has more than `features.working.WORKING` pixels.

The last four are ready for those who own these sets, and have not been run on them.

Beside the heads stand what can be said without looking (`priors.py`), from the training part of the same set. Test and
training pictures of CamVid are of the same drives, which flatters everybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol as Shape

import torch
from torch import Tensor

from chiasm import models
from chiasm.contracts import AnswerKind, Features, Sample, TaskSpec
from chiasm.errors import ConfigError, nearest
from chiasm.evaluation.baselines.priors import CONSTANT, Predict, priors
from chiasm.evaluation.meters.depth import DepthMeter, DisparityMeter
from chiasm.evaluation.meters.edges import BSDS_REACH, NYU_REACH, EdgeMeter
from chiasm.evaluation.meters.normals import NormalsMeter
from chiasm.evaluation.meters.semantics import SemanticsMeter, raised
from chiasm.features import layout
from chiasm.features.working import working_factor
from chiasm.flow.pipeline import Pipeline
from chiasm.geometry import pinhole as geometry
from chiasm.heads.saved import HeadModule

OURS = "ours"
QUALITIES = (2, 4, 6, 8)
ROOM = ("semantics", "depth", "normals", "edges")  # what is scored of rooms
TRAINING = 200  # pictures that priors are made of, spread evenly over the training part

Annotators = Callable[[int], Tensor]  # place of a sample -> bool A x H x W
Encode = Callable[[Tensor, int], Features]  # B 3 H W, factor -> features at 1 / factor of the size
Heads = Callable[[Features], Mapping[str, Tensor]]  # features -> task -> 1 C h w
Curve = tuple[tuple[float, float, float], ...]


class Meter(Shape):
    """What collects a task's errors over a set."""

    def add(self, predicted: Tensor, target: Tensor, valid: Tensor, /) -> None: ...

    def scores(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class Protocol:
    """A pinned way of scoring. tasks: what is scored; reach: of the edges' partners, as a share of the diagonal.

    disparity: depth is known up to a factor only, and scored aligned.
    """

    name: str
    tasks: tuple[str, ...]
    classes: tuple[str, ...] = ()
    reach: float = BSDS_REACH
    disparity: bool = False


@dataclass(frozen=True)
class Opened:
    """A protocol with its data. training: for priors, perhaps empty; annotators: None when targets have one map."""

    protocol: Protocol
    samples: Sequence[Sample]
    training: Sequence[Sample] = ()
    annotators: Annotators | None = None


@dataclass(frozen=True)
class DenseReport:
    """scores: task -> way -> measure -> value; classes: way -> class -> IoU, None where the class does not appear;

    curves: way -> (threshold, recall, precision) of its edges. pictures: how many were scored; training: how many the
    priors are made of.
    """

    protocol: str
    pictures: int
    training: int
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    classes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)


def opened(name: str, data: Path, limit: int | None = None) -> Opened:
    """The protocol `name` on DATA/name: its first `limit` scored samples, and 200 training samples.

    Raises ConfigError for an unknown name or missing files.
    """
    readers = {
        "nyuv2": _nyuv2, "camvid": _camvid, "bsds500": _bsds500, "middlebury": _middlebury, "cityscapes": _cityscapes,
        "hypersim": _hypersim, "sceneflow": _sceneflow, "nyuv2-full": _nyuv2_full,
    }  # fmt: skip
    if name not in readers:
        raise ConfigError(f"no dense protocol called {name!r}; {nearest(name, readers)}")
    found = readers[name](data / name)
    samples = _Part(found.samples, range(min(limit or len(found.samples), len(found.samples))))
    return Opened(found.protocol, samples, _Part(found.training, _spread(len(found.training))), found.annotators)


def evaluate_dense(data: Opened, ways: Mapping[str, Predict], tell: Callable[[], None] = lambda: None) -> DenseReport:
    """Every way, and the priors, on every sample; `tell` is called after each. Raises ShapeError for wrong maps."""
    held = data.protocol
    if held.disparity:  # no metres to learn a constant from, and aligned all constants are one
        known: dict[str, Predict] = {CONSTANT: lambda pixels: {"depth": torch.ones(1, 1, 1, 1)}}
    else:
        known = priors(data.training, held.tasks, len(held.classes)) if len(data.training) else {}
    meters = {way: _meters(held, flat=way == CONSTANT and way in known) for way in (*ways, *known)}
    for index in range(len(data.samples)):
        sample = data.samples[index]
        drawn = data.annotators(index) if data.annotators else None
        for way, predict in (*ways.items(), *known.items()):
            with torch.inference_mode():
                maps = dict(predict(sample.frame.pixels[None]))
                if way in ways and "depth" in maps and sample.camera and not held.disparity:  # priors know metres
                    maps["depth"] = geometry.metric(maps["depth"], sample.camera)
                _score(meters[way], maps, sample, drawn)
        tell()
    return _report(data, meters)


def predictor(pipeline: Pipeline, heads: Heads, quality: int | None = None) -> Predict:
    """A way: pixels 1 3 H W in [0, 1] to features, through the codec at a quality if one is given, to the heads' maps.

    H and W need be no multiple of the grid: the right and lower border is repeated up to one. The maps are raised by
    bilinear resampling and cropped to H x W.
    """
    encode = pipeline.coder.encode

    def seen(pixels: Tensor, factor: int) -> Features:
        features = encode(pixels) if quality is None else pipeline.coded(encode(pixels), quality)
        return pipeline.smaller(features, factor)

    return reading(seen, heads, pipeline.spec.grid)


def reading(encode: Encode, heads: Heads, grid: int) -> Predict:
    """The same of any encoder: it gets multiples of `grid`, and a factor by which it is to see them smaller.

    What it gives covers the picture grown to a multiple of `grid` times that factor.
    """
    return partial(_predicted, encode, heads, grid)


def ways_of(pipeline: Pipeline, heads: Heads, qualities: Sequence[int] = QUALITIES) -> dict[str, Predict]:
    """The ways of our own: uncoded, and coded at these qualities."""
    coded = {f"{OURS} at quality {quality}": predictor(pipeline, heads, quality) for quality in qualities}
    return {OURS: predictor(pipeline, heads)} | coded


def heads_of(protocol: Protocol, space: str) -> Heads:
    """The shipped heads for the tasks of a protocol, as one. Raises ModelError for a task without a head."""
    heads: list[HeadModule] = []
    for task in protocol.tasks:
        if all(task != answered.name for head in heads for answered in head.tasks):
            heads.append(models.head(task, space))
    return joined([selected(head, protocol) for head in heads])


def selected(head: HeadModule, protocol: Protocol) -> Heads:
    """The head with the logits of the protocol's classes only, found by their names, in the protocol's order.

    A head of more classes is so asked which of the protocol's a place is most of. Raises ConfigError when it lacks one.
    """
    name, places = next(((task.name, task.classes) for task in head.tasks if task.kind == "classes"), ("", ()))
    if not protocol.classes or places == protocol.classes or not places:
        return head
    missing = [name for name in protocol.classes if name not in places]
    if missing:
        raise ConfigError(
            f"protocol {protocol.name!r} scores {len(protocol.classes)} classes, of which the head does not know "
            f"{missing[0]!r}; evaluate a head that was trained on them"
        )
    chosen = torch.tensor([places.index(name) for name in protocol.classes])

    def answer(features: Features) -> dict[str, Tensor]:
        found = dict(head(features))
        return {**found, name: found[name][:, chosen]}

    return answer


def joined(heads: Sequence[Heads]) -> Heads:
    """Several heads as one; each answers its own tasks."""
    return lambda features: {task: answer for head in heads for task, answer in head(features).items()}


def task_of(protocol: Protocol, task: str) -> TaskSpec:
    """What a head must answer for a task of this protocol."""
    specs = {
        "semantics": TaskSpec("semantics", len(protocol.classes), "classes", protocol.classes),
        "depth": TaskSpec("depth", 1, "distance", unit="relative" if protocol.disparity else "metre"),
        "normals": TaskSpec("normals", 3, "direction"),
        "edges": TaskSpec("edges", 1, "probability"),
    }
    return specs[task]


class _Part(Sequence[Sample]):
    """Some samples of a dataset, read when asked for."""

    def __init__(self, whole: _Indexed, places: Sequence[int]) -> None:
        self.whole, self.places = whole, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.whole[self.places[index]]


def _spread(count: int) -> list[int]:
    kept = min(count, TRAINING)
    return [index * count // kept for index in range(kept)]


def _nyuv2(folder: Path) -> Opened:
    from chiasm.datasets.nyuv2 import CLASSES, NYUv2

    protocol = Protocol("nyuv2", ROOM, CLASSES, NYU_REACH)
    return Opened(protocol, _whole(NYUv2.load(folder, "test")), _whole(NYUv2.load(folder, "train")))


def _camvid(folder: Path) -> Opened:
    from chiasm.datasets.camvid import CLASSES, CamVid

    protocol = Protocol("camvid", ("semantics",), CLASSES)
    return Opened(protocol, _whole(CamVid.load(folder, "test")), _whole(CamVid.load(folder, "train")))


def _bsds500(folder: Path) -> Opened:
    from chiasm.datasets.bsds500 import BSDS500

    scored = BSDS500.load(folder, "val")
    training = _whole(BSDS500.load(folder, "train"))
    return Opened(Protocol("bsds500", ("edges",)), _whole(scored), training, scored.annotations)


def _middlebury(folder: Path) -> Opened:
    from chiasm.datasets.middlebury import Middlebury

    protocol = Protocol("middlebury", ("depth",), disparity=True)
    return Opened(protocol, _whole(Middlebury.load(folder)))


def _cityscapes(folder: Path) -> Opened:
    from chiasm.datasets.camvid import CLASSES
    from chiasm.datasets.cityscapes import Cityscapes

    there = (folder / "leftImg8bit" / "train").is_dir()
    training = _whole(Cityscapes.load(folder, "train")) if there else ()
    return Opened(Protocol("cityscapes", ("semantics",), CLASSES), _whole(Cityscapes.load(folder, "val")), training)


def _hypersim(folder: Path) -> Opened:
    from chiasm.datasets.hypersim import Hypersim
    from chiasm.datasets.nyuv2 import CLASSES

    protocol = Protocol("hypersim", ROOM, CLASSES, NYU_REACH)
    return Opened(protocol, _whole(Hypersim.load(folder)))


def _sceneflow(folder: Path) -> Opened:
    from chiasm.datasets.sceneflow import SceneFlow

    return Opened(Protocol("sceneflow", ("depth",), disparity=True), _whole(SceneFlow.load(folder)))


def _nyuv2_full(folder: Path) -> Opened:
    from chiasm.datasets.nyuv2 import CLASSES
    from chiasm.datasets.nyuv2_full import NYUv2Full

    protocol = Protocol("nyuv2-full", ROOM, CLASSES, NYU_REACH)
    return Opened(protocol, _whole(NYUv2Full.load(folder, "test")), _whole(NYUv2Full.load(folder, "train")))


class _Indexed(Shape):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def _whole(dataset: _Indexed) -> _Part:
    return _Part(dataset, range(len(dataset)))


@torch.inference_mode()
def _predicted(
    encode: Encode, heads: Heads, grid: int, pixels: Tensor
) -> Mapping[str, Tensor]:
    size = int(pixels.shape[-2]), int(pixels.shape[-1])
    factor = working_factor(size)
    maps = dict(heads(encode(layout.pad(pixels, layout.padded(size, grid)), factor)))
    if "depth" in maps:  # canonical for the small picture, whose focal length in pixels is as much shorter
        maps["depth"] = maps["depth"] / factor
    whole = layout.padded(size, grid * factor)
    return {task: layout.crop(raised(x, whole), size) for task, x in maps.items()}


def _meters(protocol: Protocol, flat: bool) -> dict[str, Meter]:
    """flat: the same probability everywhere, of which thinning would leave a line nobody meant."""
    meters: dict[AnswerKind, Callable[[], Meter]] = {
        "classes": lambda: SemanticsMeter(protocol.classes),
        "distance": DisparityMeter if protocol.disparity else DepthMeter,
        "direction": NormalsMeter,
        "probability": lambda: EdgeMeter(protocol.reach, ridges=not flat),
    }
    return {task: meters[task_of(protocol, task).kind]() for task in protocol.tasks}


def _score(meters: Mapping[str, Meter], maps: Mapping[str, Tensor], sample: Sample, drawn: Tensor | None) -> None:
    """Add one way's answers for one sample. A task that the way does not answer is passed over."""
    for task, meter in meters.items():
        if task not in maps:
            continue
        target, valid = sample.targets[task], sample.valid[task]
        if isinstance(meter, EdgeMeter):
            probability = raised(maps[task], target.shape[-2:]).sigmoid()
            meter.add(probability[0, 0], target > 0 if drawn is None else drawn, valid)
        elif isinstance(meter, DisparityMeter):  # the target is 1 / disparity
            meter.add(maps[task], torch.where(valid, 1 / target.clamp_min(1e-12), 0.0), valid)
        else:
            meter.add(maps[task], target, valid)


def _report(data: Opened, meters: Mapping[str, Mapping[str, Meter]]) -> DenseReport:
    scores: dict[str, dict[str, dict[str, float]]] = {task: {} for task in data.protocol.tasks}
    classes: dict[str, dict[str, float | None]] = {}
    curves: dict[str, Curve] = {}
    for way, each in meters.items():
        for task, meter in each.items():
            found = meter.scores()
            if all(map(math.isnan, found.values())):  # the way does not answer this task
                continue
            scores[task][way] = found
            if isinstance(meter, EdgeMeter):
                curves[way] = meter.score().curve
            if isinstance(meter, SemanticsMeter):
                classes[way] = meter.iou()
    return DenseReport(data.protocol.name, len(data.samples), len(data.training), scores, classes, curves)
