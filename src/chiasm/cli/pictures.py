"""Verbs on pictures: encode, reconstruct, pack, unpack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm import durable
from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.outputs import FORMATS, file_names, picture_file
from chiasm.cli.terminal import Terminal, size_words
from chiasm.errors import ChiasmError, PacketError

if TYPE_CHECKING:
    import numpy as np

    from chiasm.flow.encode import Progress, Summary
    from chiasm.flow.pipeline import Pipeline

MODEL = "ns-rgb"
picture_format = click.option(
    "--format", "kind", type=click.Choice(tuple(FORMATS)), default="png", show_default=True, help="Of the files."
)
SUFFIXES = {**{f".{kind}": kind for kind in FORMATS}, ".jpeg": "jpg"}


@click.command()
@click.argument("pictures", metavar="PHOTOS_OR_FOLDERS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Store to add to; made if needed.")
@options.written_levels
@options.quality
@click.option("--retry", is_flag=True, help="Also try again what failed before.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Decoding processes.")
@options.common
@options.pass_terminal
@click.pass_context
def encode(
    ctx: click.Context,
    terminal: Terminal,
    pictures: tuple[Path, ...],
    store: Path,
    levels: tuple[str, ...],
    quality: int,
    retry: bool,
    workers: int,
) -> None:
    """Encode photographs and RAW files into a store.

    Folders are searched through. What the store has already is skipped, so the same command can be run again. A
    picture that cannot be read is noted in the store's errors table and stops nothing.
    """
    from chiasm.flow.pipeline import Pipeline
    from chiasm.images import find

    paths = find(pictures)
    if not paths:
        raise click.UsageError(f"there is no picture in {', '.join(map(str, pictures))}; name files or other folders")

    def report(progress: Progress) -> None:
        bar.advance(progress.source_bytes)
        terminal.event("picture", {name: getattr(progress, name) for name in ("uri", "outcome", "message")})
        if progress.message and progress.outcome in ("failed", "stored"):
            known = progress.message.startswith(progress.uri)
            terminal.say(progress.message if known else f"{progress.uri}: {progress.message}")

    with (
        Pipeline.load(MODEL, store=store, writable=True) as pipeline,
        terminal.progress("encode", len(paths)) as bar,
    ):
        summary = pipeline.encode(
            paths, levels=levels, quality=quality, retry=retry, workers=workers, report=report
        )
    _summarise(terminal, summary, store)
    if summary.failed:
        ctx.exit(SOME_FAILED)


def _summarise(terminal: Terminal, summary: Summary, store: Path) -> None:
    streams, seconds = dict(summary.stream_bytes), summary.seconds
    facts = {name: getattr(summary, name) for name in ("stored", "known", "failed", "source_bytes", "seconds")}
    terminal.event("summary", {"store": store, **facts, "stream_bytes": streams})
    parts = ", ".join(f"{level} {size_words(size)}" for level, size in streams.items())
    counts = f"{summary.stored} stored, {summary.known} known already, {summary.failed} failed"
    terminal.show(f"{counts} in {seconds:.1f} s ({summary.stored / max(seconds, 1e-6):.1f} images/s)")
    if summary.stored:
        terminal.show(f"{size_words(summary.source_bytes)} of files became {parts}")
    if summary.failed:
        terminal.show(f"chiasm inspect {store} lists what failed and why")


@click.command()
@click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@options.read_levels
@picture_format
@options.common
@options.pass_terminal
@click.pass_context
def reconstruct(
    ctx: click.Context, terminal: Terminal, store: Path, out: Path, levels: tuple[str, ...] | None, kind: str
) -> None:
    """Draw every picture of STORE again, from the store alone.

    Each file is called after its source and the first digits of its key: holiday-1a2b3c4d.png. A picture that cannot
    be drawn is named and stops nothing.
    """
    from chiasm.flow.pipeline import Pipeline

    with Pipeline.load(MODEL, store=store) as pipeline:
        failed = _draw_all(terminal, pipeline, lambda key: pipeline.reconstruct(key, levels), out, kind)
    if failed:
        ctx.exit(SOME_FAILED)


def _draw_all(
    terminal: Terminal, pipeline: Pipeline, draw: Callable[[str], np.ndarray], out: Path, kind: str
) -> int:
    """Write what `draw` makes of every stored picture; how many failed."""
    failed = 0
    names = file_names({record.key: record.uris for record in pipeline.store.scan(())}, kind)
    with terminal.progress("draw", len(names)) as bar:
        for key, name in names.items():
            try:
                data = picture_file(draw(key), kind, key[:12])
            except ChiasmError as error:
                failed += 1
                bar.advance()
                terminal.event("picture", {"key": key, "outcome": "failed", "message": str(error)})
                terminal.say(f"{name}: {error}")
                continue
            durable.write(out / name, data)
            bar.advance(len(data))
            terminal.event("picture", {"key": key, "outcome": "written", "file": out / name})
    drawn = len(names) - failed
    terminal.event("summary", {"out": out, "written": drawn, "failed": failed})
    terminal.show(f"{drawn} pictures in {out}, {failed} failed")
    return failed


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Packet to write.")
@options.written_levels
@options.quality
@options.common
@options.pass_terminal
def pack(terminal: Terminal, photo: Path, out: Path, levels: tuple[str, ...], quality: int) -> None:
    """Encode one PHOTO into one packet file (.chm)."""
    from chiasm.flow.pipeline import Pipeline

    _require_other(photo, out)
    with terminal.progress("pack", 1) as bar, Pipeline.load(MODEL) as pipeline:
        data = pipeline.pack(photo, quality=quality, levels=levels)
        durable.write(out, data)
        bar.advance(len(data))
    source = photo.stat().st_size
    terminal.event("summary", {"file": out, "bytes": len(data), "source_bytes": source, "quality": quality})
    terminal.show(f"{out}: {size_words(len(data))} from {size_words(source)}")


@click.command()
@click.argument("packet", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Picture to write.")
@options.read_levels
@options.common
@options.pass_terminal
def unpack(terminal: Terminal, packet: Path, out: Path, levels: tuple[str, ...] | None) -> None:
    """Draw the picture of one PACKET file (.chm).

    The suffix of the output decides the format: png, jpg or webp.
    """
    from chiasm.flow.pipeline import Pipeline

    kind = SUFFIXES.get(out.suffix.lower())
    if kind is None:
        raise click.BadParameter(f"{out} must end in {', '.join(SUFFIXES)}", param_hint="--out")
    _require_other(packet, out)
    with terminal.progress("unpack", 1) as bar, Pipeline.load(MODEL) as pipeline:
        pixels = _unpacked(pipeline, packet, levels)
        data = picture_file(pixels, kind, str(packet))
        durable.write(out, data)
        bar.advance(len(data))
    height, width = pixels.shape[:2]
    terminal.event("summary", {"file": out, "bytes": len(data), "height": height, "width": width})
    terminal.show(f"{out}: {height} x {width} pixels, {size_words(len(data))}")


def _unpacked(pipeline: Pipeline, packet: Path, levels: tuple[str, ...] | None) -> np.ndarray:
    try:
        return pipeline.unpack(packet.read_bytes(), levels)
    except PacketError as error:
        raise PacketError(f"{packet}: {error}") from error


def _require_other(source: Path, out: Path) -> None:
    if out.exists() and out.samefile(source):
        raise click.UsageError(f"{out} is the file that is read; write to another one")
