"""The verb that fills a store: encode."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.terminal import Bar, Terminal, size_words

if TYPE_CHECKING:
    from chiasm.flow.encode import Progress, Summary
    from chiasm.images import Gathered


@dataclass(frozen=True)
class Renewing:
    """What is done again, with how many processes, how long another writer is waited for, and what uris begin at."""

    replace: bool
    retry: bool
    workers: int
    wait: float
    root: Path | None


RENEWING = options.as_one(
    "renewing",
    Renewing,
    click.option("--replace", is_flag=True, help="Renew levels of another quality or encoder."),
    click.option("--retry", is_flag=True, help="Also try again what failed before."),
    click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Decoding processes."),
    options.wait,
    click.option(
        "--root", type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Uris of files below it are relative to it.  [default: absolute]",
    ),
)  # fmt: skip


@click.command()
@click.argument("pictures", metavar="PHOTOS_OR_FOLDERS...", nargs=-1, required=True)
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Store to add to; made if needed.")
@options.written_levels
@options.quality
@options.encoding
@RENEWING
@options.common
@options.pass_terminal
@click.pass_context
def encode(
    ctx: click.Context,
    terminal: Terminal,
    pictures: tuple[str, ...],
    store: Path,
    levels: tuple[str, ...] | None,
    quality: int,
    encoding: options.Encoding,
    renewing: Renewing,
) -> None:
    """Encode photographs and RAW files into a store.

    Folders are searched through; patterns and URLs do, too, and - reads names from standard input, one a line or each
    ended by a null byte. What the store has already is skipped, so the same command can be run again; further
    levels, and those of another encoder, are added beside. A level that is there at another quality, or from other
    weights, stays unless --replace is given. A picture that cannot be read is noted in the store's errors table and
    stops nothing.
    """
    gathered = _gathered(pictures, renewing.root)
    with (
        encoding.pipeline(store, renewing.wait) as pipeline,
        terminal.progress("encode", len(gathered.sources)) as bar,
    ):
        summary = pipeline.encode(
            gathered,
            levels=levels or (),
            quality=quality,
            replace=renewing.replace,
            retry=renewing.retry,
            workers=renewing.workers,
            report=partial(_report, terminal, bar),
        )
    _summarise(terminal, summary, store)
    if summary.failed:
        ctx.exit(SOME_FAILED)


def _gathered(pictures: tuple[str, ...], root: Path | None) -> Gathered:
    """The pictures to encode; naming none is a wrong command line."""
    from chiasm.images import gather

    found = gather(pictures, root)
    if not found.sources:
        told = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in found.skipped.items())
        others = f" (there are {told})" if told else ""
        raise click.UsageError(f"there is no picture in {', '.join(pictures)}{others}; name files or other folders")
    return found


def _report(terminal: Terminal, bar: Bar, progress: Progress) -> None:
    bar.advance(progress.source_bytes)
    terminal.event("picture", {name: getattr(progress, name) for name in ("uri", "outcome", "message")})
    if progress.message and progress.outcome in ("failed", "stored"):
        known = progress.message.startswith(progress.uri)
        terminal.say(progress.message if known else f"{progress.uri}: {progress.message}")


def _summarise(terminal: Terminal, summary: Summary, store: Path) -> None:
    seconds = summary.seconds
    terminal.event("summary", {"store": store, **asdict(summary)})
    parts = ", ".join(f"{level} {size_words(size)}" for level, size in summary.level_bytes.items())
    counts = f"{summary.stored} stored, {summary.known} known already, {summary.failed} failed"
    terminal.show(f"{counts} in {seconds:.1f} s ({summary.stored / max(seconds, 1e-6):.1f} images/s)")
    if summary.stored:
        terminal.show(f"{size_words(summary.source_bytes)} of files became {parts}")
    if summary.skipped:
        told = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in summary.skipped.items())
        terminal.show(f"passed over in folders, being no pictures: {told}")
    if summary.kept:
        terminal.show(f"{summary.kept} keep levels of another quality or encoder; --replace renews them")
    if summary.failed:
        terminal.show(f"chiasm inspect {store} lists what failed and why")
