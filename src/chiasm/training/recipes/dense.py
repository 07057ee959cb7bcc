"""Stage 3 of arXiv:2509.20481 for what is seen: one head for semantics, depth, normals and edges on the frozen space.

    sets ─► random view ─► E0 (frozen) ─► codec, now and then ──► head ─► a term per task ─┬─► weighting ─► loss
                                                                      └─► consistency terms ──┘

A picture need not have every target: NYUv2 has all four, CamVid classes, BSDS500 edges, generated scenes what they are
asked for. The network is the space's encoder with a head behind it, or any other that answers from pixels: the pixel
networks of the comparison are trained by this recipe too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from chiasm.codecs.transform import TransformCodec
from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.contracts import Features, TaskSpec
from chiasm.datasets import bsds500, camvid, joined, nyuv2
from chiasm.datasets.augment import Augment, augmented, canonical
from chiasm.datasets.batches import Mixture, SampleSet, collate
from chiasm.datasets.joined import Joined
from chiasm.datasets.kept import Kept
from chiasm.encoders.ns import SpaceEncoder
from chiasm.errors import ConfigError
from chiasm.evaluation.meters.metrics import confusion, mean_iou
from chiasm.features.layout import pad, padded
from chiasm.heads.dense import GRID, DenseHead
from chiasm.scenes.generated import Scenes
from chiasm.training.coding import Coding, qualities
from chiasm.training.terms import consistency, rarity, term
from chiasm.training.weighting import Way, Weighting

SPECS = {
    "semantics": joined.SEMANTICS,
    "depth": TaskSpec("depth", 1, "distance", unit="canonical"),
    "normals": TaskSpec("normals", 3, "direction"),
    "edges": TaskSpec("edges", 1, "probability"),
}
VALIDATED = 24  # samples of each set that are scored
FRESH = tuple(f"head.trunk.{part}." for part in ("whole", "top", "across", "smooth"))  # parts that nobody taught


@dataclass(frozen=True)
class DenseConfig:
    """Every knob of the recipe `dense`.

    tasks: that are learnt. height, width: of the largest random views. smallest: of them, as a share of that; each
    batch draws its size. zoom: lowest and highest, at the largest size. fill: least share of a view's sides that its
    picture fills. colours: how far they are changed, relative to what `Augment` does by itself. odds: of NYUv2, CamVid,
    BSDS500, generated rooms and streets, as far as they are there. scenes: how many rooms, and as many streets, there
    are. coded: share of pictures whose features go through the codec. weighting: see
    `training.weighting`. balance: what the terms of semantics, depth, normals and edges are multiplied with before.
    rare: how much rarer classes count more, as a power of their share. surface, outline: weights of the consistency
    terms. beginning: a `trunk.safetensors` of the recipe `trunk`, none when empty; trunk: how fast the trunk's
    taught parts move, relative to the rest.
    """

    tasks: tuple[str, ...] = ("semantics", "depth", "normals", "edges")
    steps: Count = 20_000
    batch: Annotated[int, Range(low=2)] = 8
    height: Annotated[int, Range(low=64)] = 224
    width: Annotated[int, Range(low=64)] = 288
    smallest: Annotated[float, Range(low=0.2, high=1.0)] = 0.5
    zoom: tuple[float, float] = (0.6, 1.6)
    fill: Share = 0.9
    colours: Amount = 1.0
    rate: Positive = 1.2e-3
    warmup: Annotated[int, Range(low=0)] = 200
    decay: Share = 0.998
    weight_decay: Amount = 0.05
    seed: int = 1
    odds: tuple[float, ...] = (4.0, 2.0, 1.0, 0.7, 0.3)
    scenes: Count = 150
    coded: Share = 0.6
    weighting: Way = "dwa"
    balance: tuple[float, ...] = (1.0, 2.5, 4.0, 4.0)
    rare: Amount = 0.4
    surface: Amount = 0.2
    outline: Amount = 0.1
    beginning: str = ""
    trunk: Positive = 0.3
    validate_every: Count = 1_000
    save_every: Count = 250


def specs_of(tasks: Sequence[str]) -> tuple[TaskSpec, ...]:
    """What the recipe learns for each of these names. Raises ConfigError for another, none, or one named twice."""
    if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(SPECS):
        raise ConfigError(f"expected tasks among {', '.join(SPECS)}, each once, got {', '.join(tasks) or 'none'}")
    return tuple(SPECS[task] for task in tasks)


class SpaceNetwork(nn.Module):
    """A frozen encoder, its codec, and the head that learns."""

    def __init__(self, encoder: SpaceEncoder, codec: TransformCodec, head: DenseHead) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.coding = Coding(codec, encoder.alignment)
        self.head = head

    def features(self, pixels: Tensor, quality: Tensor) -> Features:
        """pixels: B 3 H W; quality: B, of the codec, 0 for features that are not coded."""
        with torch.no_grad():
            return self.coding.maps(self.encoder(pixels), quality)

    def forward(self, pixels: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """The head's answers; see `features`."""
        found: dict[str, Tensor] = self.head(self.features(pixels, quality))
        return found


class PixelNetwork(nn.Module):
    """A head behind a stem of convolutions that learn with it: nothing is stored, every task starts at the pixels.

    The stem has the shapes, and about the size, of the space's encoder.
    """

    def __init__(self, head: DenseHead, width: int = 64) -> None:
        super().__init__()
        layers = ((3, width, 2), (width, width, 1), (width, width, 1))
        self.fine = nn.Sequential(*(_layer(*each) for each in layers))
        self.coarse = nn.Sequential(*(_layer(width, width, stride) for stride in (2, 1, 1)))
        self.head = head

    def features(self, pixels: Tensor, quality: Tensor) -> Features:
        """pixels: B 3 H W; quality is not read."""
        fine = self.fine(4.0 * (pixels - 0.5))  # B w H/2 W/2
        return {"context": self.coarse(fine), "detail": fine}

    def forward(self, pixels: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """The head's answers; see `features`."""
        found: dict[str, Tensor] = self.head(self.features(pixels, quality))
        return found


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class DenseObjective(nn.Module):
    """The network and the weights of its losses."""

    def __init__(self, network: nn.Module, tasks: Sequence[str], way: Way) -> None:
        super().__init__()
        self.network = network
        self.weighting = Weighting(tasks, way)

    def forward(self, pixels: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """Answers of the network; see `SpaceNetwork`."""
        found: dict[str, Tensor] = self.network(pixels, quality)
        return found


@dataclass(frozen=True)
class DenseRecipe:
    """The recipe `dense`: sets to learn from and sets to be scored on."""

    config: DenseConfig
    mixture: Mixture
    held_out: Mapping[str, SampleSet]
    network: nn.Module

    @staticmethod
    def load(config: DenseConfig, folders: Sequence[Path], network: nn.Module) -> DenseRecipe:
        """Sets below `folders`, by their names: nyuv2, camvid, bsds500; generated rooms and streets come along.

        Raises ConfigError when a folder is of another name, no folder is given, no set has a task of the config, or
        what it begins with does not fit.
        """
        known = {"nyuv2": _nyuv2, "camvid": _camvid, "bsds500": _bsds500}
        _checked(config, folders, tuple(known))
        sets: list[tuple[SampleSet, float]] = []
        held_out: dict[str, SampleSet] = {}
        for folder in folders:
            training, held_out[folder.name] = known[folder.name](folder)
            sets.append((training, config.odds[list(known).index(folder.name)]))
        for kind, odds in zip(("room", "street"), config.odds[len(known) :], strict=True):
            generated = Kept(Scenes(kind, config.scenes, 1))  # type: ignore[arg-type]
            sets.append((Joined(generated, ("depth", "normals", "semantics")), odds))
        used = [(held, odds) for held, odds in sets if odds > 0 and set(held.tasks) & set(config.tasks)]
        known_tasks = {task for held, _ in used for task in held.tasks}
        if absent := [task for task in config.tasks if task not in known_tasks]:
            raise ConfigError(
                f"no set of {', '.join(held_out)} has targets of {', '.join(absent)}; add one that has, or name the "
                "other tasks: --set 'tasks=[...]'"
            )
        if config.beginning:
            begin(network, Path(config.beginning))
        return DenseRecipe(config, Mixture(*map(tuple, zip(*used, strict=True))), held_out, network)

    @cached_property
    def specs(self) -> tuple[TaskSpec, ...]:
        return specs_of(self.config.tasks)

    @cached_property
    def rarity(self) -> Tensor:
        """Weights of the joint classes, from the sets in proportion to their odds."""
        counts = torch.zeros(joined.SEMANTICS.channels)
        for held, odds in zip(self.mixture.sets, self.mixture.odds, strict=True):
            if isinstance(held, Joined) and "semantics" in held.tasks and not isinstance(held.held, Kept):
                own = torch.zeros_like(counts)
                for index in range(0, len(held), 8):
                    sample = held[index]
                    own += torch.bincount(sample.targets["semantics"][0][sample.valid["semantics"]], minlength=len(own))
                counts += odds * own / own.sum()
        return rarity(counts, self.config.rare) if counts.sum() else torch.ones_like(counts)

    def views(self, share: float) -> Augment:
        """Of `share` of the largest size, rounded to the trunk's coarsest cells; the zoom follows the share."""
        config = self.config
        height, width = (max(1, round(share * edge / GRID)) * GRID for edge in (config.height, config.width))
        zoom = (share * config.zoom[0], share * config.zoom[1])
        plain = Augment(height, width, zoom, fill=config.fill)
        names = ("brightness", "contrast", "saturation", "hue", "gamma", "balance", "grey", "blur", "noise", "jpeg")
        return replace(plain, **{name: config.colours * getattr(plain, name) for name in names})

    def modules(self) -> DenseObjective:
        return DenseObjective(self.network, self.config.tasks, self.config.weighting)

    def pace(self, name: str) -> float:
        within = name.removeprefix("network.")
        if self.config.beginning and within.startswith("head.trunk.") and not within.startswith(FRESH):
            return self.config.trunk
        return 0.1 if name.endswith("log_variance") else 1.0

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]:
        """One step's loss terms: a function of its arguments, and of what the weighting remembers."""
        config = self.config
        samples = self.mixture.draw(config.batch, draws)
        views = self.views(float(config.smallest + (1 - config.smallest) * torch.rand((), generator=draws)))
        batch = collate([augmented(sample, views, draws) for sample in samples], self.specs).to(device)
        quality = qualities(config.batch, config.coded, draws)
        answers = module(batch.pixels.contiguous(memory_format=torch.channels_last), quality)
        weights = self.rarity.to(device)
        terms = {spec.name: term(spec, answers[spec.name], batch, weights) for spec in self.specs}
        weighed = {name: config.balance[list(SPECS).index(name)] * value for name, value in terms.items()}
        total = cast(DenseObjective, module).weighting(weighed, step)
        for name, value in consistency(self.specs, answers, batch).items():
            terms[name] = value
            total = total + getattr(config, name) * value
        return {**terms, "loss": total}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Scores on held-out samples, not coded: mIoU by set, depth RMSE in metres, mean angle, the edges' loss."""
        device = next(module.parameters()).device
        found: dict[str, float] = {}
        for name, held in self.held_out.items():
            count = min(VALIDATED, len(held))
            chosen = [index * len(held) // count for index in range(count)]
            scores = _scores(module, [canonical(held[index]) for index in chosen], self.specs, device)
            found |= {f"{name} {task}": round(value, 4) for task, value in scores.items()}
        return found


def _scores(
    module: nn.Module, samples: Sequence[SampleSet | object], specs: Sequence[TaskSpec], device: torch.device
) -> dict[str, float]:
    counts = torch.zeros(joined.SEMANTICS.channels, joined.SEMANTICS.channels, dtype=torch.int64)
    sums: dict[str, list[float]] = {}
    for sample in samples:
        batch = collate([sample], specs)  # type: ignore[list-item]
        height, width = batch.pixels.shape[-2:]
        pixels = pad(batch.pixels, padded((height, width), 4)).to(device)
        answers = module(pixels, torch.zeros(1, dtype=torch.int64))
        for spec in specs:
            target, valid = batch.targets[spec.name], batch.valid[spec.name]
            if not bool(valid.any()):
                continue
            answer = answers[spec.name].float().cpu()
            grown = nn.functional.interpolate(answer, pixels.shape[-2:], mode="bilinear", align_corners=False)
            grown = grown[..., :height, :width]
            if spec.kind == "classes":
                ids = torch.where(valid, target, 255)[0, 0]
                counts += confusion(grown.argmax(1)[0], ids.to(torch.uint8), len(counts), 255)
            elif spec.kind == "distance":
                sums.setdefault("depth", []).append(float((grown - target)[valid].square().mean()))
            elif spec.kind == "direction":
                cosine = nn.functional.cosine_similarity(grown, target, dim=1)[:, None][valid]
                sums.setdefault("normals", []).append(float(cosine.clamp(-1, 1).acos().rad2deg().mean()))
            else:
                sums.setdefault("edges", []).append(float(term(spec, grown, batch)))
    found = {name: sum(values) / len(values) for name, values in sums.items()}
    if "depth" in found:
        found["depth"] = found["depth"] ** 0.5
    return found | ({"semantics": mean_iou(counts)} if int(counts.sum()) else {})


def begin(network: nn.Module, file: Path) -> None:
    """Give a network what the recipe `trunk` taught it. Raises ConfigError when the file is not of such a network."""
    wanted = {
        name for name in network.state_dict()
        if name.startswith(("head.trunk.", "fine.", "coarse.")) and not name.startswith(FRESH)
    }  # fmt: skip
    try:
        held = load_file(file)
        if other := sorted(wanted ^ set(held)):
            raise ConfigError(
                f"{file}: expected a trunk that was taught to this network, which has {len(wanted)} parts, got "
                f"{len(held)}, differing in {other[0]}; see `train trunk`"
            )
        network.load_state_dict(held, strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        told = str(error).splitlines()[-1].strip()
        raise ConfigError(f"{file}: expected a trunk of the recipe `trunk`, got {told}; see `train trunk`") from error


def _checked(config: DenseConfig, folders: Sequence[Path], known: Sequence[str]) -> None:
    """Raises ConfigError when config and folders do not go together."""
    if len(config.odds) != len(known) + 2 or len(config.balance) != len(SPECS):
        raise ConfigError(
            f"expected {len(known) + 2} odds and a balance of {len(SPECS)}, got {list(config.odds)} and "
            f"{list(config.balance)}"
        )
    if config.height % GRID or config.width % GRID:
        raise ConfigError(f"expected views of multiples of {GRID} pixels, got {config.height} x {config.width}")
    unknown = [folder for folder in folders if folder.name not in known]
    if unknown or not folders:
        raise ConfigError(
            f"expected folders called {', '.join(known)}, got {', '.join(map(str, unknown or folders)) or 'none'}"
        )


def _nyuv2(folder: Path) -> tuple[SampleSet, SampleSet]:
    tasks = ("semantics", "depth", "normals", "edges")
    training, held_out = (Joined(nyuv2.NYUv2.load(folder, part), tasks, nyuv2.CLASSES) for part in ("train", "val"))
    return training, held_out


def _camvid(folder: Path) -> tuple[SampleSet, SampleSet]:
    training, held_out = (
        Joined(camvid.CamVid.load(folder, part), ("semantics",), camvid.CLASSES) for part in ("train", "val")
    )
    return training, held_out


def _bsds500(folder: Path) -> tuple[SampleSet, SampleSet]:
    training, held_out = (bsds500.BSDS500.load(folder, part) for part in ("train", "val"))
    return training, held_out
