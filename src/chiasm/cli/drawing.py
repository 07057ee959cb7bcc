"""Verbs that draw pictures, and that make single packet files: reconstruct, pack, unpack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm import durable
from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.outputs import FORMATS, file_names, picture_file
from chiasm.cli.terminal import Terminal, size_words
from chiasm.errors import ChiasmError, PacketError, ShapeError

if TYPE_CHECKING:
    import numpy as np

    from chiasm.flow.pipeline import Pipeline

SUFFIXES = {**{f".{kind}": kind for kind in FORMATS}, ".jpeg": "jpg"}


@click.command()
@options.store_argument
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@options.read_levels
@options.reading
@options.picture_format
@options.common
@options.pass_terminal
@click.pass_context
def reconstruct(
    ctx: click.Context,
    terminal: Terminal,
    store: Path,
    out: Path,
    levels: tuple[str, ...] | None,
    reading: options.Reading,
    kind: str,
) -> None:
    """Draw every picture of STORE again, from the store alone.

    Each file is called after its source and the first digits of its key: holiday-1a2b3c4d.png. A picture that cannot
    be drawn is named and stops nothing.
    """
    with reading.pipeline(store) as pipeline:
        reads = pipeline.drawing.head.reads.names  # what is wrong with all pictures is said once
        for name in levels or ():
            if pipeline.space.level(name).name not in reads:
                raise ShapeError(f"pictures are drawn from {', '.join(reads)}, got level {name!r}; leave it out")
        names = file_names(pipeline.uris(reading.where), kind)
        failed = _draw_all(terminal, names, lambda key: pipeline.reconstruct(key, levels), out, kind)
    if failed:
        ctx.exit(SOME_FAILED)


def _draw_all(
    terminal: Terminal, names: Mapping[str, str], draw: Callable[[str], np.ndarray], out: Path, kind: str
) -> int:
    """Write what `draw` makes of each picture, names: key -> file; how many failed."""
    failed = 0
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
@options.encoding
@options.common
@options.pass_terminal
def pack(
    terminal: Terminal,
    photo: Path,
    out: Path,
    levels: tuple[str, ...] | None,
    quality: int,
    encoding: options.Encoding,
) -> None:
    """Encode one PHOTO into one packet file (.chm)."""
    _require_other(photo, out)
    with terminal.progress("pack", 1) as bar, encoding.pipeline() as pipeline:
        data = pipeline.pack(photo, quality=quality, levels=levels or ())
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
    with terminal.progress("unpack", 1) as bar, Pipeline.load(options.MODEL) as pipeline:
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
