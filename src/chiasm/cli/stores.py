"""Verbs on stores: inspect, verify."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.terminal import Terminal, columns, size_words
from chiasm.errors import PacketError

if TYPE_CHECKING:
    from chiasm.contracts import Failure, Record, Space
    from chiasm.store import LanceStore, StoreStats, VerifyReport

SHOWN = 20  # failures that a person is shown; --json has all


@click.command()
@click.argument("path", metavar="STORE_OR_CHM", type=click.Path(exists=True, path_type=Path))
@click.option("--images", "listed", is_flag=True, help="Also list every image: key, size, source, levels.")
@options.where
@options.common
@options.pass_terminal
def inspect(terminal: Terminal, path: Path, listed: bool, where: str) -> None:
    """Say what a store or a packet file holds.

    Of a store: images, spaces, levels with their bytes, encoders and codecs, columns, and what failed and why. Of a
    packet (.chm): its header. --where is of --images.
    """
    if where and not listed:
        raise click.UsageError("--where says which images --images lists; add --images")
    if path.is_file():
        _inspect_packet(terminal, path)
        return
    from chiasm.store import open_store

    with open_store(path) as store:
        if listed:
            _list_images(terminal, store, where)
        failures = store.failures()
        for failure in failures:
            terminal.event("failure", asdict(failure))
        stats, spaces = store.stats(), store.spaces()
        facts = asdict(stats) | {"bits_per_pixel": stats.bits_per_pixel}
        terminal.event("summary", {"store": path, "spaces": {name: asdict(x) for name, x in spaces.items()}, **facts})
        terminal.show(_store_page(path, spaces, stats))
        terminal.show(_failure_page(failures))


def _list_images(terminal: Terminal, store: LanceStore, where: str) -> None:
    for record in store.scan({}, where):
        height, width = record.size
        made = {space: store.made([record.key], space).get(record.key, {}) for space in store.spaces()}
        levels = {space: {name: codec for name, (_, codec) in found.items()} for space, found in made.items() if found}
        facts = {"key": record.key, "height": height, "width": width, "source_bytes": record.source_bytes}
        told = {"uris": record.uris, "levels": levels, "capture": asdict(record.capture), "columns": record.columns}
        terminal.event("image", facts | told)
        words = [f"{space} {'+'.join(names)}" for space, names in levels.items()]
        words += [str(record.capture.sensor)] if record.capture.sensor else []
        words += [f"{name}={value}" for name, value in record.columns.items() if value is not None]
        terminal.show("  ".join([record.key[:12], f"{height} x {width}", ", ".join(record.uris), *words]))


def _store_page(path: Path, spaces: Mapping[str, Space], stats: StoreStats) -> str:
    rows: list[tuple[object, ...]] = [
        ("store", path),
        ("images", f"{stats.images} from {stats.sources} files of {size_words(stats.source_bytes)}"),
    ]
    for name, levels in stats.levels.items():
        rows.append(("space", f"{name}, grid {spaces[name].grid}"))
        for level, found in levels.items():
            facts = spaces[name].level(level)
            shape = f"{facts.channels} x H/{facts.stride} x W/{facts.stride}" if facts.stride else f"{facts.channels}"
            bpp = f"{stats.bits_per_pixel[name][level]:.3f} bits per pixel"
            rows.append((f"  {level}", f"{shape}, {found.rows} images, {size_words(found.bytes)}, {bpp}"))
            rows += [("", f"  by {one} ({count})") for one, count in found.encoders.items()]
            rows += [("", f"  in {one} ({count})") for one, count in found.codecs.items()]
    rows += [("camera", f"{name} ({count} images)") for name, count in stats.sensors.items()]
    rows += [("column", f"{name} ({kind})") for name, kind in stats.columns.items()]
    return columns(rows)


def _failure_page(failures: list[Failure]) -> str:
    if not failures:
        return "errors    none"
    reasons = Counter(failure.reason for failure in failures)
    lines = ["errors    " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())]
    lines += [f"  {failure.reason}: {_named(failure)}" for failure in failures[:SHOWN]]
    if len(failures) > SHOWN:
        lines.append(f"  and {len(failures) - SHOWN} more; --json lists all")
    return "\n".join(lines)


def _named(failure: Failure) -> str:
    known = failure.message.startswith(failure.uri)
    return failure.message if known else f"{failure.uri}: {failure.message}"


def _inspect_packet(terminal: Terminal, path: Path) -> None:
    from chiasm.codecs.packet import describe

    try:
        header: Mapping[str, object] = describe(path.read_bytes())
    except PacketError as error:
        raise PacketError(f"{path}: {error}") from error
    terminal.event("summary", {"packet": path, **header})
    rows: list[tuple[object, ...]] = [("packet", path)]
    for name, value in header.items():
        if name == "levels" and isinstance(value, Mapping):
            rows += [(f"  {level}", _words(facts)) for level, facts in value.items()]
        else:
            rows.append((name, _words(value)))
    terminal.show(columns(rows))


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items() if item != "")
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@click.command()
@click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repair", is_flag=True, help="Move what is damaged to the errors table; the next encode redoes it.")
@options.common
@options.pass_terminal
@click.pass_context
def verify(ctx: click.Context, terminal: Terminal, store: Path, repair: bool) -> None:
    """Read and decode all of STORE; name what is damaged.

    Exits with 1 when something was, repaired or not. A repair keeps the damaged bytes in the store's quarantine
    folder.
    """
    from chiasm.flow.read import Reader
    from chiasm.store import open_store

    with open_store(store, "r+" if repair else "r") as opened:
        reader = Reader(opened)
        with terminal.progress("verify", len(opened)) as bar:

            def check(record: Record) -> str | None:
                levels = [each for found in record.spaces.values() for each in found.values()]
                bar.advance(sum(len(each.coded.data) for each in levels))
                return reader.check(record)

            report = opened.verify(check, repair=repair)
    _report(terminal, store, report)
    if not report.sound:
        ctx.exit(SOME_FAILED)


def _report(terminal: Terminal, store: Path, report: VerifyReport) -> None:
    for key, reason in report.bad.items():
        terminal.event("bad", {"key": key, "message": reason})
        terminal.say(f"{key[:12]}: {reason}")
    for uri, key in report.lost.items():
        terminal.event("lost", {"uri": uri, "key": key})
        terminal.say(f"{uri}: its image {key[:12]} is gone")
    terminal.event("summary", {"store": store, "sound": report.sound, **asdict(report)})
    words = f"{store}: {report.rows} images read, {'all sound' if report.sound else 'not sound'}"
    counts = {
        "damaged": len(report.bad),
        "doubled": len(report.duplicates),
        "lost": len(report.lost),
        "unreadable data files": sum(report.unreadable.values()),
        "damaged tables": len(report.tables),
        "orphaned files (harmless)": len(report.orphans),
    }
    found = [f"{count} {name}" for name, count in counts.items() if count]
    terminal.show("; ".join([words, *found]))
    if report.repaired and not report.sound:
        terminal.show("repaired: encode the sources again to fill the gaps")
    elif not report.sound:
        terminal.show(f"chiasm verify {store} --repair moves what is damaged out of the way")
