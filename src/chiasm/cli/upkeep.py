"""Verbs that change a store without encoding: label, remove, merge, compact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.terminal import Terminal, size_words


@click.command()
@options.store_argument
@click.argument("table", metavar="LABELS.CSV", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.wait
@options.common
@options.pass_terminal
@click.pass_context
def label(ctx: click.Context, terminal: Terminal, store: Path, table: Path, wait: float) -> None:
    """Add the columns of a CSV file to the pictures of STORE.

    Its first line names the columns. One of them is `key` (or its first digits) or `uri` (a path, or the end of one);
    the others become columns that --where filters by, in every verb. A line whose picture is not stored is named.
    """
    from chiasm.flow.label import label_from_csv
    from chiasm.store import open_store

    with open_store(store, "r+", wait) as opened:
        report = label_from_csv(opened, table)
    for name, reason in report.unknown.items():
        terminal.event("unknown", {"name": name, "message": reason})
        terminal.say(f"{name}: {reason}")
    facts = {"labelled": report.labelled, "columns": report.columns, "unknown": len(report.unknown)}
    terminal.event("summary", {"store": store, **facts})
    terminal.show(f"{report.labelled} pictures have {', '.join(report.columns)}; {len(report.unknown)} lines fit none")
    if report.unknown:
        ctx.exit(SOME_FAILED)


@click.command()
@options.store_argument
@click.argument("names", nargs=-1)
@options.where
@click.option("--space", default="", metavar="NAME", help="Remove a level of this space, of all pictures.")
@click.option("--level", default="", metavar="NAME", help="Which one.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@options.wait
@options.common
@options.pass_terminal
def remove(
    terminal: Terminal,
    store: Path,
    names: tuple[str, ...],
    where: str,
    space: str,
    level: str,
    dry_run: bool,
    wait: float,
) -> None:
    """Remove pictures, or one level of all, from STORE.

    Pictures are those of NAMES, or of --where. NAMES are keys, first digits of keys, or paths. Their sources are never
    touched. Space on the disk is freed by `chiasm compact`.
    """
    from chiasm.store import open_store

    if bool(space) != bool(level):
        raise click.UsageError("--space and --level go together: name both, or neither")
    if sum((bool(names), bool(where), bool(level))) != 1:
        raise click.UsageError("expected one of: NAMES, --where, or --space with --level")
    with open_store(store, "r" if dry_run else "r+", 0.0 if dry_run else wait) as opened:
        if level:
            count = opened.remove_level(space, level, dry_run)
            what = f"level {level} of {space}, of {count} pictures"
        else:
            keys = list(dict.fromkeys(opened.get(name, {}).key for name in names)) or opened.keys(where)
            if not dry_run and keys:
                opened.remove(keys)
            count, what = len(keys), f"{len(keys)} pictures"
    terminal.event("summary", {"store": store, "removed": 0 if dry_run else count, "matched": count})
    terminal.show(f"would remove {what}" if dry_run else f"removed {what}")


@click.command()
@options.store_argument
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.wait
@options.common
@options.pass_terminal
def merge(terminal: Terminal, store: Path, other: Path, wait: float) -> None:
    """Add to STORE what only OTHER has.

    Pictures, levels, labels and sources come along; OTHER is not changed. A level that was coded on top of another one
    than the one in STORE (as detail is on context) cannot be read there, and is left out.
    """
    from chiasm.store import open_store

    with open_store(store, "r+", wait) as opened, open_store(other) as source:
        counts = asdict(opened.merge(source))
    terminal.event("summary", {"store": store, "other": other, **counts})
    terminal.show(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))


@click.command()
@options.store_argument
@options.wait
@options.common
@options.pass_terminal
def compact(terminal: Terminal, store: Path, wait: float) -> None:
    """Rewrite STORE in few large files.

    That frees the space of what was removed or replaced.
    """
    from chiasm.store import open_store

    with open_store(store, "r+", wait) as opened:
        freed = opened.compact()
    terminal.event("summary", {"store": store, "freed": freed})
    terminal.show(f"{size_words(freed)} freed")
