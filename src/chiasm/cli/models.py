"""Verbs on models: models, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from chiasm.cli import options
from chiasm.cli.group import VerbGroup
from chiasm.cli.options import MODEL
from chiasm.cli.terminal import Bar, Terminal, columns
from chiasm.errors import ModelError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from chiasm.evaluation.protocols.pictures import Picture

MOST_LISTED = 40  # networks of a library
T = TypeVar("T")
R = TypeVar("R")

data_root = click.option(
    "--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of pictures."
)
report_folder = click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the report."
)
PROTOCOLS = ("nyuv2", "camvid", "bsds500", "middlebury", "cityscapes", "hypersim", "sceneflow", "nyuv2-full")
limit = click.option("--limit", type=click.IntRange(1), help="Take only the first pictures.")


@click.command()
@click.argument("name", required=False)
@options.common
@options.pass_terminal
def models(terminal: Terminal, name: str | None) -> None:
    """List the models, search them for NAME, or print its card.

    A card holds data, licence, scores, the command that made the weights, and their hash. Of public networks, any of
    timm and transformers can be an encoder; families that are often asked for are listed with licence and size.
    """
    from chiasm.encoders.catalogue import FAMILIES
    from chiasm.models import ENTRIES, entry

    if name in ENTRIES:
        card = entry(name).card
        terminal.event("summary", dict(card))
        terminal.show(columns([(key, _words(value)) for key, value in card.items()]))
        return
    word = (name or "").partition(":")[2] or (name or "")
    entries = [each for each in ENTRIES.values() if word in each.name]
    families = [each for each in FAMILIES if word in each.name or any(part in word for part in each.parts) or not word]
    listed = _listed(terminal, word) if word else []
    if not entries and not families and not listed:
        raise ModelError(f"no model called {name!r}; {nearest(word, [*ENTRIES, *(each.name for each in FAMILIES)])}")
    for found in entries:
        terminal.event("entry", {"name": found.name, "space": found.space, "role": found.role})
    for family in families:
        terminal.event("family", asdict(family))
    for each in listed:
        terminal.event("model", {"name": each})
    counts = {"entries": len(entries), "families": len(families), "models": len(listed)}
    terminal.event("summary", counts)
    rows = [(found.name, found.space, found.role) for found in entries]
    rows += [
        (each.example, f"{each.parameters} M", each.licence + (" (accept it once)" if each.binding else ""))
        for each in families
    ]
    terminal.show(columns([*rows, *((each, "", "") for each in listed)]))


def _listed(terminal: Terminal, word: str) -> list[str]:
    """Networks of timm with this word in their names, where timm is installed."""
    try:
        from timm import list_models
    except ImportError:
        terminal.say('to search timm too: pip install "chiasm[timm]"')
        return []
    return [f"timm:{name}" for name in list_models(f"*{word}*")[:MOST_LISTED]]


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)


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
@options.device
@options.common
@options.pass_terminal
def evaluate_space(
    terminal: Terminal, data: Path, out: Path, compare: tuple[Path, ...], limit: int | None, device: str
) -> None:
    """What the space is worth before it is coded.

    Measures reconstruction, equivariance, feature shift and a linear probe, beside other weights and pixels. DATA
    holds kodak/ and, for the probe, camvid/; without a kodak/ the pictures in DATA itself are used.
    """
    from chiasm.evaluation.protocols.pictures import find_set, read_folder
    from chiasm.evaluation.protocols.space import Space, evaluate_space
    from chiasm.evaluation.reports.files import write_space
    from chiasm.flow.pipeline import Pipeline
    from chiasm.models import space_of

    pictures = read_folder(find_set(data, ("kodak",)) or data, limit)
    with (
        Pipeline.load(MODEL, device=device, precision="float32") as pipeline,
        terminal.progress("evaluate", None, unit="encodings") as bar,
    ):
        spaces = {MODEL: Space(pipeline.encode_pixels, pipeline.drawing)} | {
            _run_name(path): Space(*space_of(path)) for path in compare
        }
        counted = {name: Space(_counted(space.encode, bar), space.decode) for name, space in spaces.items()}
        report = evaluate_space(counted, pictures, find_set(data, ("camvid",)))
    for reason in report.skipped:
        terminal.warn("Skipped", reason)
    _written(terminal, out, write_space(report, out), len(pictures))


@evaluate.command("codec")
@data_root
@report_folder
@limit
@options.device
@options.common
@options.pass_terminal
def evaluate_codec(terminal: Terminal, data: Path, out: Path, limit: int | None, device: str) -> None:
    """Rate and distortion beside JPEG, WebP and AVIF.

    Codes the pictures in DATA (not those in folders below it) at every quality. Real bytes, headers included.
    """
    from chiasm.evaluation.baselines.classical import families
    from chiasm.evaluation.protocols.codec import QUALITIES, Coded, evaluate_codec, roundtrip
    from chiasm.evaluation.protocols.pictures import read_folder
    from chiasm.evaluation.reports.files import write_codec
    from chiasm.flow.pipeline import Pipeline

    pictures = read_folder(data, limit)
    with Pipeline.load(MODEL, device=device) as pipeline:
        with terminal.progress("JPEG, WebP, AVIF", len(pictures)) as bar:
            measure: Callable[[Picture], object] = _counted(families, bar)
            rivals = [measure(picture) for picture in pictures]
        with terminal.progress("chiasm", len(pictures) * len(QUALITIES), unit="packets") as bar:

            def coded(pixels: Tensor, quality: int) -> Coded:
                made = roundtrip(pipeline, pixels, quality)
                bar.advance(made.total)
                return made

            report = evaluate_codec(pictures, coded, classical=rivals)  # type: ignore[arg-type]
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


@evaluate.command("raw")
@data_root
@report_folder
@limit
@options.device
@options.common
@options.pass_terminal
def evaluate_raw(terminal: Terminal, data: Path, out: Path, limit: int | None, device: str) -> None:
    """Where mosaics land, and what they develop to.

    The photographs in DATA/kodak, or in DATA itself, are seen by the pinned unseen sensors with and without noise; the
    RAW encoder is compared with classical demosaicing and with the encoder of photographs.
    """
    from chiasm.evaluation.protocols.pictures import find_set, read_folder
    from chiasm.evaluation.protocols.raw import CASES, RawSpace, evaluate_raw
    from chiasm.evaluation.reports.files import write_raw
    from chiasm.flow.pipeline import Pipeline

    pictures = read_folder(find_set(data, ("kodak",)) or data, limit)
    total = len(pictures) * CASES
    with Pipeline.load(MODEL, device=device) as pipeline, terminal.progress("evaluate", total, unit="mosaics") as bar:
        space = RawSpace(pipeline.encode_raw, pipeline.encode_pixels, pipeline.drawing, pipeline.coded)
        report = evaluate_raw(space, pictures, tell=bar.advance)
    _written(terminal, out, write_raw(report, out), len(pictures))


@evaluate.command("denoise")
@data_root
@report_folder
@limit
@options.device
@options.common
@options.pass_terminal
def evaluate_denoise(terminal: Terminal, data: Path, out: Path, limit: int | None, device: str) -> None:
    """What the denoising head reads from noisy features, coded and not.

    DATA holds kodak/ and, for real noise, polyu/; without a kodak/ the pictures in DATA itself are used.
    """
    from chiasm.evaluation.protocols.denoising import SIGMAS, evaluate_denoise, read_pairs, smoothed, ways_of
    from chiasm.evaluation.protocols.pictures import find_set, read_folder
    from chiasm.evaluation.reports.files import write_denoise
    from chiasm.flow.pipeline import Pipeline
    from chiasm.models import head as head_of

    pictures = read_folder(find_set(data, ("kodak",)) or data, limit)
    folder = find_set(data, ("polyu",))
    real = read_pairs(folder, limit) if folder else []
    with Pipeline.load(MODEL, device=device) as pipeline:
        head = head_of("denoise", pipeline.space.name)
        ways = ways_of(pipeline.encode_pixels, pipeline.coded, lambda features: head(features)["denoise"])
        ways["non-local means"] = smoothed
        total = len(pictures) * (len(SIGMAS) + 1) + len(real)
        with terminal.progress("evaluate", total, unit="pairs") as bar:
            report = evaluate_denoise(ways, pictures, real, tell=bar.advance)
    _written(terminal, out, write_denoise(report, out), len(pictures))


@evaluate.command("dense")
@click.option("--protocol", required=True, type=click.Choice(PROTOCOLS), help="Which set, and how it is scored.")
@data_root
@report_folder
@limit
@options.device
@options.common
@options.pass_terminal
def evaluate_dense(terminal: Terminal, protocol: str, data: Path, out: Path, limit: int | None, device: str) -> None:
    """What heads read: classes, depth, normals, edges.

    DATA holds a folder called as the protocol. Heads are measured on features as encoded and as coded, beside what can
    be said without looking.
    """
    from chiasm.evaluation.protocols import dense
    from chiasm.evaluation.reports.files import write_dense
    from chiasm.evaluation.reports.sheets import COLUMNS, sheet
    from chiasm.flow.pipeline import Pipeline

    opened = dense.opened(protocol, data, limit)
    with Pipeline.load(MODEL, device=device) as pipeline:
        ways = dense.ways_of(pipeline, dense.heads_of(opened.protocol, pipeline.space.name))
        with terminal.progress("evaluate", len(opened.samples), unit="pictures") as bar:
            report = dense.evaluate_dense(opened, ways, tell=bar.advance)
        shown = [opened.samples[index] for index in range(min(COLUMNS, len(opened.samples)))]
        drawn = sheet(opened.protocol, shown, ways[dense.OURS])
    _written(terminal, out, write_dense(report, drawn, out), len(opened.samples))


@evaluate.command("head")
@options.store_argument
@click.option("--head", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its file.")
@click.option("--labels", required=True, type=click.Path(exists=True, path_type=Path), help="As of `train head`.")
@click.option(
    "--metres-per-unit",
    type=click.FloatRange(min=0, min_open=True),
    default=0.001,
    show_default=True,
    metavar="METRES",
    help="A step of depth labels.",
)
@options.reading
@options.common
@options.pass_terminal
def evaluate_head(
    terminal: Terminal, store: Path, head: Path, labels: Path, metres_per_unit: float, reading: options.Reading
) -> None:
    """What a head of your own answers, against labels.

    Its pictures are those of STORE that LABELS says something of (and for which --where holds): name others than it was
    trained on. The score is that of the kind of its first task: miou, rmse, angle, cross_entropy, psnr or accuracy.
    """
    from chiasm.models import head_of
    from chiasm.training.recipes.head import HeadConfig, HeadRecipe
    from chiasm.training.stored import PipelineReader, items_of, stored_for

    with reading.pipeline(store) as pipeline:
        network = head_of(head, pipeline.space)
        pictures = [(record.key, record.uris, record.size) for record in pipeline.store.scan({})]
        chosen = set(pipeline.keys(reading.where))
        items = [item for item in items_of(pictures, labels, network.tasks[0]) if item.key in chosen]
        stored = stored_for(network, PipelineReader(pipeline, network.margin is not None), pipeline.space, items)
        stored = replace(stored, limit=0, metres_per_unit=metres_per_unit)  # each is read once, so nothing is held
        recipe = HeadRecipe(HeadConfig(), stored, stored, network)
        scores = recipe.evaluate(recipe.modules(), head, 0)
    task = network.tasks[0].name
    terminal.event("summary", {"head": head, "task": task, "pictures": len(items), "scores": scores})
    told = ", ".join(f"{name} {value:g}" for name, value in scores.items())
    terminal.show(f"{head}, {task}: {told or 'no label'} on {len(items)} pictures")


def _written(terminal: Terminal, out: Path, files: Sequence[Path], pictures: int) -> None:
    terminal.event("summary", {"out": out, "pictures": pictures, "files": [str(file) for file in files]})
    terminal.show(f"{pictures} pictures measured; the report is {out / 'report.md'}")
