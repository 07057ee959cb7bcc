"""Verbs that train: space, raw, denoise, trunk, dense, head. One recipe each; the loop and the output are shared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chiasm import durable
from chiasm.cli import options
from chiasm.cli.group import VerbGroup
from chiasm.cli.options import MODEL
from chiasm.cli.terminal import Terminal

if TYPE_CHECKING:
    from torch import nn

    from chiasm.contracts import AnswerKind
    from chiasm.flow.pipeline import Pipeline
    from chiasm.heads.saved import HeadModule
    from chiasm.training.loop import Recipe
    from chiasm.training.recipes.head import HeadConfig, HeadRecipe, Network
    from chiasm.training.stored import Item

# Those of training.recipes.head, which cannot be imported before a verb runs; a test compares them.
OWN_KINDS = ("classes", "distance", "direction", "probability", "picture", "label")
NETWORKS = ("auto", "dense", "linear", "convolutional")
C = TypeVar("C")
Command = Callable[..., Any]


@click.group(cls=VerbGroup)
def train() -> None:
    """Train weights by a recipe."""


@dataclass(frozen=True)
class Asked:
    """What every recipe is asked with."""

    data: tuple[Path, ...]
    out: Path
    config: Path | None
    overrides: tuple[str, ...]
    device: str
    devices: int


def recipe_options(command: Command) -> Command:
    """The options of every recipe, which reach the command as one `Asked`."""
    wanted = [each.name for each in fields(Asked)]

    @wraps(command)
    def gathered(**given: Any) -> Any:
        return command(asked=Asked(**{name: given.pop(name) for name in wanted}), **given)

    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in reversed(
        (
            click.option(
                "--data", required=True, multiple=True, type=folder, help="Folder of photographs; may be given again."
            ),
            click.option(
                "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run."
            ),
            click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file of differences."),
            click.option(
                "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One more difference; may be repeated."
            ),
            click.option(
                "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", help="[default: auto]"
            ),
            click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="How many of them."),
        )
    ):
        gathered = option(gathered)
    return gathered


def _resolved(terminal: Terminal, kind: type[C], config: Path | None, overrides: Sequence[str]) -> C:
    """The config of a recipe. Seeds torch too: networks are made before the loop, which seeds again, begins."""
    import torch

    from chiasm import config as configs

    resolved = configs.load(kind, config, overrides)
    torch.manual_seed(resolved.seed)  # type: ignore[attr-defined]
    if _speaks():
        terminal.event("config", asdict(resolved))  # type: ignore[call-overload]
    return resolved


def _speaks() -> bool:
    """Whether this process is the one that speaks, when there are several devices."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _run(terminal: Terminal, recipe: Recipe[nn.Module], out: Path, device: str, devices: int) -> nn.Module:
    from chiasm.training.loop import Where
    from chiasm.training.loop import train as run

    steps: int = recipe.config.steps
    with terminal.progress("train", steps, unit="steps") as bar:

        def say(line: Mapping[str, object]) -> None:
            terminal.event("validation" if "validation" in line else "step", line)
            terminal.say("  ".join(f"{name} {_figure(value)}" for name, value in line.items()))
            step = line["step"]
            bar.advance(count=(step if isinstance(step, int) else 0) - bar.done)

        return run(recipe, out, Where(device, devices), say)


def _done(terminal: Terminal, out: Path, steps: int, files: Sequence[str]) -> None:
    terminal.event("summary", {"out": out, "steps": steps, "files": list(files)})
    terminal.show(f"{steps} steps; {' and '.join(files)} in {out}")


def _figure(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_figure(item)}" for name, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@train.command("space")
@recipe_options
@options.common
@options.pass_terminal
def train_space(terminal: Terminal, asked: Asked) -> None:
    """Build the space: encoder, decoder and codec tables.

    A run that was interrupted goes on where its last checkpoint was, bit for bit. OUT holds log.jsonl, grids of
    pictures, last.safetensors (the checkpoint), and in the end ns.safetensors (weights) and tables.bin (codec).
    """
    from chiasm.training.export import release
    from chiasm.training.recipes.space import SpaceConfig, SpaceObjective, SpaceRecipe

    resolved = _resolved(terminal, SpaceConfig, asked.config, asked.overrides)
    recipe = SpaceRecipe.load(resolved, asked.data)
    objective = _run(terminal, recipe, asked.out, asked.device, asked.devices)
    if _speaks():
        assert isinstance(objective, SpaceObjective)
        release(objective, recipe, asked.out)
        _done(terminal, asked.out, resolved.steps, ("ns.safetensors", "tables.bin"))


@train.command("raw")
@recipe_options
@options.common
@options.pass_terminal
def train_raw(terminal: Terminal, asked: Asked) -> None:
    """Bring camera mosaics into the space: the RAW encoder.

    Photographs are seen through synthetic sensors of a pinned range; the shipped encoder and decoder are frozen and
    teach. In the end OUT holds raw.safetensors (weights).
    """
    from chiasm import models
    from chiasm.training.export import write_weights
    from chiasm.training.recipes.raw import RawConfig, RawRecipe, Teacher

    resolved = _resolved(terminal, RawConfig, asked.config, asked.overrides)
    teacher = Teacher(models.encoder(MODEL), models.reconstructor(MODEL), models.codec(models.entry(MODEL).space))
    student = _run(terminal, RawRecipe.load(resolved, asked.data, teacher), asked.out, asked.device, asked.devices)
    if _speaks():
        write_weights(student, "encoder.", asked.out, "raw.safetensors")
        _done(terminal, asked.out, resolved.steps, ("raw.safetensors",))


@train.command("denoise")
@recipe_options
@options.common
@options.pass_terminal
def train_denoise(terminal: Terminal, asked: Asked) -> None:
    """Train the head that reads clean pictures from noisy features.

    The shipped encoder is frozen. In the end OUT holds denoise.safetensors (weights).
    """
    from chiasm import models
    from chiasm.encoders.ns import NS
    from chiasm.heads.denoise import DenoiseHead
    from chiasm.training.export import write_trained_head
    from chiasm.training.recipes.denoise import DenoiseConfig, DenoiseRecipe, SpaceDenoiser

    resolved = _resolved(terminal, DenoiseConfig, asked.config, asked.overrides)
    head = DenoiseHead(NS)
    head.begin(models.reconstructor(MODEL).state_dict())
    network = SpaceDenoiser(models.encoder(MODEL), models.codec(models.entry(MODEL).space), head)
    trained = _run(terminal, DenoiseRecipe.load(resolved, asked.data, network), asked.out, asked.device, asked.devices)
    if _speaks():
        assert isinstance(trained, SpaceDenoiser)
        write_trained_head(trained.head, asked.out, "denoise.safetensors")
        _done(terminal, asked.out, resolved.steps, ("denoise.safetensors",))


@train.command("dense")
@recipe_options
@options.common
@options.pass_terminal
def train_dense(terminal: Terminal, asked: Asked) -> None:
    """Train the head that answers semantics, depth, normals and edges.

    DATA are folders called nyuv2, camvid or bsds500; generated scenes come along. The shipped encoder is frozen. In
    the end OUT holds dense.safetensors, a head that `predict --head` reads.
    """
    from chiasm import models
    from chiasm.encoders.ns import NS
    from chiasm.heads.dense import DenseHead
    from chiasm.training.export import write_trained_head
    from chiasm.training.recipes.dense import DenseConfig, DenseRecipe, SpaceNetwork, specs_of

    resolved = _resolved(terminal, DenseConfig, asked.config, asked.overrides)
    head = DenseHead(NS, specs_of(resolved.tasks))
    network = SpaceNetwork(models.encoder(MODEL), models.codec(NS.name), head)
    _run(terminal, DenseRecipe.load(resolved, asked.data, network), asked.out, asked.device, asked.devices)
    if _speaks():
        write_trained_head(network.head, asked.out, "dense.safetensors")
        _done(terminal, asked.out, resolved.steps, ("dense.safetensors",))


@train.command("trunk")
@recipe_options
@options.common
@options.pass_terminal
def train_trunk(terminal: Terminal, asked: Asked) -> None:
    """Teach the trunk of dense heads what MobileNetV2 sees.

    DATA are folders of photographs; no labels are read. --set teacher=FILE names the quantised TFLite network. In the
    end OUT holds trunk.safetensors, for `train dense --set beginning=...`.
    """
    from chiasm import models
    from chiasm.encoders.ns import NS
    from chiasm.heads.dense import DenseHead
    from chiasm.training.export import write_trunk
    from chiasm.training.recipes.dense import SPECS, SpaceNetwork
    from chiasm.training.recipes.trunk import Lessons, TrunkConfig, TrunkRecipe

    resolved = _resolved(terminal, TrunkConfig, asked.config, asked.overrides)
    network = SpaceNetwork(models.encoder(MODEL), models.codec(NS.name), DenseHead(NS, tuple(SPECS.values())))
    lessons = _run(terminal, TrunkRecipe.load(resolved, asked.data, network), asked.out, asked.device, asked.devices)
    if _speaks():
        assert isinstance(lessons, Lessons)
        write_trunk(lessons.learnt(), asked.out)
        _done(terminal, asked.out, resolved.steps, ("trunk.safetensors",))


def _level_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",")) if value else ()


@train.command("head")
@click.option("--store", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Store.")
@click.option("--task", required=True, metavar="NAME", help="What the head is to answer: depth, or any name of yours.")
@click.option("--kind", type=click.Choice(OWN_KINDS), help="Kind of answer, of a task with a name of yours.")
@click.option("--network", type=click.Choice(NETWORKS), default="auto", show_default=True, help="Size of the head.")
@click.option("--levels", callback=_level_names, metavar="NAMES", help="What a linear or convolutional head reads.")
@click.option(
    "--labels", required=True, type=click.Path(exists=True, path_type=Path), help="Folder of labels; CSV for classes."
)
@click.option("--classes", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Names, one a line.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File of the head.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file of differences.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One more difference; may be repeated.")
@options.reading
@options.common
@options.pass_terminal
def train_head(
    terminal: Terminal,
    store: Path,
    task: str,
    kind: AnswerKind | None,
    network: Network,
    levels: tuple[str, ...],
    labels: Path,
    classes: Path | None,
    out: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    reading: options.Reading,
) -> None:
    """Train a head of your own from stored features and labels.

    No picture is read again. TASK is one of semantics, depth, normals, edges, denoise and classes, or any other name
    with --kind. Labels are called as the pictures in STORE: PNGs of class ids (255: unknown), of distances in
    millimetres (16 bits, 0: unknown; other steps: --set metres_per_unit=METRES), of directions as (n + 1) / 2, of
    probabilities in grey; clean pictures for denoise; for a label a CSV file with lines `picture,class`. The run is
    kept in OUT.run, so that the same command goes on. Then: `chiasm predict STORE --head OUT --out FOLDER`.
    """
    from chiasm.heads.saved import write_head
    from chiasm.training.recipes.head import TASKS, HeadConfig, class_names, fresh_head, spec_of
    from chiasm.training.stored import items_of

    resolved = _resolved(terminal, HeadConfig, config, overrides)
    spec = spec_of(task, class_names(classes, labels, (kind or TASKS.get(task)) == "label"), kind)
    with reading.pipeline(store) as pipeline:
        pictures = [(record.key, record.uris, record.size) for record in pipeline.store.scan({})]
        chosen = set(pipeline.keys(reading.where))
        items = [item for item in items_of(pictures, labels, spec) if item.key in chosen]
        head = fresh_head(pipeline.space, spec, network, levels)
        recipe = _own_recipe(terminal, pipeline, head, items, resolved)
        scores = recipe.evaluate(_run(terminal, recipe, Path(f"{out}.run"), reading.device, 1), out, resolved.steps)
    durable.write(out, write_head(head.cpu()))
    _head_done(terminal, out, recipe, scores)


def _head_done(terminal: Terminal, out: Path, recipe: HeadRecipe, scores: Mapping[str, float]) -> None:
    steps, count = recipe.config.steps, len(recipe.training)
    facts = {"out": out, "steps": steps, "pictures": count + len(recipe.held), "scores": scores}
    terminal.event("summary", facts)
    told = ", ".join(f"{name} {value:g}" for name, value in scores.items())
    terminal.show(f"{out}: {steps} steps on {count} pictures; held out: {told or 'no label'}")


def _own_recipe(
    terminal: Terminal, pipeline: Pipeline, head: HeadModule, items: Sequence[Item], config: HeadConfig
) -> HeadRecipe:
    """What a head learns from a store and labels, the head begun as the shipped one where that fits."""
    from chiasm import models
    from chiasm.training.recipes.head import HeadRecipe, begun
    from chiasm.training.stored import PipelineReader, fingerprint, stored_for

    terminal.say(f"{len(items)} of {len(pipeline.store)} stored pictures have a label")
    begun(head, models.beginnings(head.tasks[0].kind, pipeline.space.name))
    stored = stored_for(head, PipelineReader(pipeline, whole=head.margin is not None), pipeline.space, items)
    stored = replace(stored, limit=int(config.memory * 2**30), metres_per_unit=config.metres_per_unit)
    return HeadRecipe.load(replace(config, data=fingerprint(items, head)), stored, head)
