"""Verbs on stored features themselves: features (to a file), derive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.terminal import Terminal, size_words

if TYPE_CHECKING:
    from chiasm.flow.derive import Derived

SUFFIXES = (".npz", ".safetensors", ".parquet")


@click.command()
@options.store_argument
@click.option("--level", required=True, metavar="NAME", help="Level to write; `chiasm inspect` lists them.")
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@options.reading
@options.common
@options.pass_terminal
def features(terminal: Terminal, store: Path, level: str, out: Path, reading: options.Reading) -> None:
    """Write one level of every picture of STORE to one file.

    The suffix decides the format. npz, safetensors: of a vector `features` (N x D) with `keys`, of a map one array
    C x h x w under each key. parquet: columns key, uri, shape and values, a row a picture. float32.
    """
    from chiasm.flow.exchange import write_features

    if out.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{out} must end in {', '.join(SUFFIXES)}", param_hint="--out")
    with reading.pipeline(store) as pipeline:
        uris = pipeline.uris(reading.where)
        with terminal.progress("read", len(uris)) as bar:
            write_features(pipeline, level, uris, out, bar.advance)
    size = out.stat().st_size
    terminal.event("summary", {"file": out, "pictures": len(uris), "level": level, "bytes": size})
    terminal.show(f"{out}: {level} of {len(uris)} pictures, {size_words(size)}")


@click.command()
@options.store_argument
@options.written_levels
@click.option("--replace", is_flag=True, help="Renew what another deriver made.")
@options.wait
@options.reading
@options.common
@options.pass_terminal
@click.pass_context
def derive(
    ctx: click.Context,
    terminal: Terminal,
    store: Path,
    levels: tuple[str, ...] | None,
    replace: bool,
    wait: float,
    reading: options.Reading,
) -> None:
    """Add levels that are computed from stored ones; no picture is read.

    pooled_LEVEL: the mean of a map as one vector, for search and probes. What is there already is skipped, unless the
    level that it was derived from has been replaced.
    """

    def report(derived: Derived) -> None:
        bar.advance()
        terminal.event("picture", {"key": derived.key, "outcome": derived.outcome, "message": derived.message})
        if derived.message:
            terminal.say(f"{derived.key[:12]}: {derived.message}")

    with (
        reading.pipeline(store, writable=True, wait=wait) as pipeline,
        terminal.progress("derive", len(pipeline.store)) as bar,
    ):
        counts = pipeline.derive(levels or (), replace=replace, where=reading.where, report=report)
    terminal.event("summary", {"store": store, **counts})
    terminal.show(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts["failed"]:
        ctx.exit(SOME_FAILED)
