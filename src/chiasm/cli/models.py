"""Verbs on models: zoo, train, evaluate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from chiasm.cli import options
from chiasm.cli.group import VerbGroup
from chiasm.cli.pictures import MODEL
from chiasm.cli.terminal import Bar, Terminal, columns
from chiasm.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor

    from chiasm.validation.pictures import Picture
    from chiasm.validation.space import Space

T = TypeVar("T")
R = TypeVar("R")

data_root = click.option(
    "--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of pictures."
)
report_folder = click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the report."
)
limit = click.option("--limit", type=click.IntRange(1), help="Take only the first pictures.")


@click.command()
@click.argument("name", required=False)
@options.common
@options.pass_terminal
def zoo(terminal: Terminal, name: str | None) -> None:
    """List the models, or print the card of NAME.

    A card holds data, licence, scores, the command that made the weights, and their hash.
    """
    from chiasm.zoo import ENTRIES, entry

    if name is not None:
        card = entry(name).card
        terminal.event("summary", dict(card))
        terminal.show(columns([(key, _words(value)) for key, value in card.items()]))
        return
    for found in ENTRIES.values():
        terminal.event("entry", {"name": found.name, "space": found.space, "role": found.role})
    terminal.event("summary", {"entries": len(ENTRIES)})
    terminal.show(columns([(found.name, found.space, found.role) for found in ENTRIES.values()]))


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)


@click.group(cls=VerbGroup)
def train() -> None:
    """Train weights by a recipe."""


@train.command("space")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photographs; may be given again.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file of differences.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One more difference; may be repeated.")
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", help="[default: auto]")
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="How many of them.")
@options.common
@options.pass_terminal
def train_space(
    terminal: Terminal,
    data: tuple[Path, ...],
    out: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    device: str,
    devices: int,
) -> None:
    """Build the space: encoder, decoder and codec tables.

    A run that was interrupted goes on where its last checkpoint was, bit for bit. OUT holds log.jsonl, grids of
    pictures, last.safetensors (the checkpoint), and in the end ns.safetensors (weights) and tables.bin (codec).
    """
    from chiasm import config as configs
    from chiasm.training.export import release
    from chiasm.training.loop import Where
    from chiasm.training.loop import train as run
    from chiasm.training.recipes.space import SpaceConfig, SpaceObjective, SpaceRecipe

    resolved = configs.load(SpaceConfig, config, overrides)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # with several devices, the process that speaks
    if first:
        terminal.event("config", asdict(resolved))
    recipe = SpaceRecipe.load(resolved, data)
    with terminal.progress("train", resolved.steps, unit="steps") as bar:

        def say(line: Mapping[str, object]) -> None:
            terminal.event("validation" if "validation" in line else "step", line)
            terminal.say("  ".join(f"{name} {_figure(value)}" for name, value in line.items()))
            step = line["step"]
            bar.advance(count=(step if isinstance(step, int) else 0) - bar.done)

        objective = run(recipe, out, Where(device, devices), say)
    if first:
        assert isinstance(objective, SpaceObjective)
        release(objective, recipe, out)
        terminal.event("summary", {"out": out, "steps": resolved.steps})
        terminal.show(f"{resolved.steps} steps; weights and tables in {out}")


def _figure(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_figure(item)}" for name, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@click.group(cls=VerbGroup)
def evaluate() -> None:
    """Measure by the pinned protocols, and write a report."""


@evaluate.command("space")
@data_root
@report_folder
@click.option(
    "--compare",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="ns.safetensors of another training run, measured beside; may be repeated.",
)
@limit
@options.common
@options.pass_terminal
def evaluate_space(terminal: Terminal, data: Path, out: Path, compare: tuple[Path, ...], limit: int | None) -> None:
    """What the space is worth before it is coded.

    Measures reconstruction, equivariance, feature shift and a linear probe, beside other weights and pixels. DATA
    holds kodak/ and, for the probe, camvid/; without a kodak/ the pictures in DATA itself are used.
    """
    from chiasm.pipeline import Pipeline
    from chiasm.validation.pictures import find_set, read_folder
    from chiasm.validation.report import write_space
    from chiasm.validation.space import Space, evaluate_space

    pictures = read_folder(find_set(data, ("kodak",)) or data, limit)
    with Pipeline.load(MODEL) as pipeline, terminal.progress("evaluate", None, unit="encodings") as bar:
        spaces = {MODEL: Space(*pipeline.space())} | {_run_name(path): _space_of(path) for path in compare}
        counted = {name: Space(_counted(space.encode, bar), space.decode) for name, space in spaces.items()}
        report = evaluate_space(counted, pictures, find_set(data, ("camvid",)))
    for reason in report.skipped:
        terminal.warn("Skipped", reason)
    _written(terminal, out, write_space(report, out), len(pictures))


@evaluate.command("codec")
@data_root
@report_folder
@limit
@options.common
@options.pass_terminal
def evaluate_codec(terminal: Terminal, data: Path, out: Path, limit: int | None) -> None:
    """Rate and distortion beside JPEG, WebP and AVIF.

    Codes the pictures in DATA (not those in folders below it) at every quality. Real bytes, headers included.
    """
    from chiasm.pipeline import Pipeline
    from chiasm.validation.classical import families
    from chiasm.validation.codec import QUALITIES, Coded, evaluate_codec
    from chiasm.validation.pictures import read_folder
    from chiasm.validation.report import write_codec

    pictures = read_folder(data, limit)
    with Pipeline.load(MODEL) as pipeline:
        with terminal.progress("JPEG, WebP, AVIF", len(pictures)) as bar:
            measure: Callable[[Picture], object] = _counted(families, bar)
            rivals = [measure(picture) for picture in pictures]
        with terminal.progress("chiasm", len(pictures) * len(QUALITIES), unit="packets") as bar:

            def roundtrip(pixels: Tensor, quality: int) -> Coded:
                made = pipeline.roundtrip(pixels, quality)
                bar.advance(made.total)
                return Coded(made.streams, made.total, made.pixels, made.coarse)

            report = evaluate_codec(pictures, roundtrip, classical=rivals)  # type: ignore[arg-type]
    _written(terminal, out, write_codec(report, out), len(pictures))


def _counted(function: Callable[[T], R], bar: Bar) -> Callable[[T], R]:
    """The same function, each call of which moves the bar."""

    def called(argument: T) -> R:
        result = function(argument)
        bar.advance()
        return result

    return called


def _run_name(weights: Path) -> str:
    return weights.resolve().parent.name if weights.stem == "ns" else weights.stem


def _space_of(weights: Path) -> Space:
    """Encoder and decoder of a training run. Raises ZooError when the file holds other weights."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from chiasm.contracts import Features
    from chiasm.encoders.space import NS, SpaceEncoder
    from chiasm.tasks.reconstruct import ReconstructHead
    from chiasm.validation.space import Space

    encoder, decoder = SpaceEncoder("rgb").eval(), ReconstructHead(NS).eval()
    try:
        held = {name: value.float() for name, value in load_file(weights).items()}
        for prefix, module in (("encoder.", encoder), ("decoder.", decoder)):
            own = {name.removeprefix(prefix): x for name, x in held.items() if name.startswith(prefix)}
            module.load_state_dict(own)
    except (SafetensorError, RuntimeError) as error:
        raise ZooError(f"{weights} does not hold weights of the recipe space ({error}); name ns.safetensors") from error

    @torch.no_grad()
    def encode(pixels: Tensor) -> Features:
        return encoder(pixels)  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(features: Features) -> Tensor:
        return decoder(features)  # type: ignore[no-any-return]

    return Space(encode, decode)


def _written(terminal: Terminal, out: Path, files: Sequence[Path], pictures: int) -> None:
    terminal.event("summary", {"out": out, "pictures": pictures, "files": [str(file) for file in files]})
    terminal.show(f"{pictures} pictures measured; the report is {out / 'report.md'}")
