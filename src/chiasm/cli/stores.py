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
    from chiasm.contracts import Failure, Record
    from chiasm.store import LanceStore, StoreStats, VerifyReport

SHOWN = 20  # failures that a person is shown; --json has all


@click.command()
@click.argument("path", metavar="STORE_OR_CHM", type=click.Path(exists=True, path_type=Path))
@click.option("--images", "listed", is_flag=True, help="Also list every image: key, size, source.")
@options.common
@options.pass_terminal
def inspect(terminal: Terminal, path: Path, listed: bool) -> None:
    """Say what a store or a packet file holds.

    Of a store: images, bytes per level, bits per pixel, space, provenance, and what failed and why. Of a packet
    (.chm): its header.
    """
    if path.is_file():
        _inspect_packet(terminal, path)
        return
    from chiasm.store import open_store

    with open_store(path) as store:
        if listed:
            _list_images(terminal, store)
        failures = store.failures()
        for failure in failures:
            terminal.event("failure", asdict(failure))
        stats = store.stats()
        facts = asdict(stats) | {"bits_per_pixel": stats.bits_per_pixel}
        terminal.event("summary", {"store": path, "space": store.space, "levels": store.levels, **facts})
        terminal.show(_store_page(path, store.space, stats))
        terminal.show(_failure_page(failures))


def _list_images(terminal: Terminal, store: LanceStore) -> None:
    for record in store.scan(()):
        height, width = record.packet.size
        facts = {"key": record.key, "height": height, "width": width, "quality": record.packet.quality}
        sensor = asdict(record.sensor) if record.sensor else None
        terminal.event("image", {**facts, "source_bytes": record.source_bytes, "uris": record.uris, "sensor": sensor})
        camera = f"  {record.sensor}" if record.sensor else ""
        terminal.show(f"{record.key[:12]}  {height} x {width}  {', '.join(record.uris)}{camera}")


def _store_page(path: Path, space: str, stats: StoreStats) -> str:
    rows: list[tuple[object, ...]] = [
        ("store", path),
        ("images", f"{stats.images} from {stats.sources} files of {size_words(stats.source_bytes)}"),
        ("space", space),
    ]
    bpp = stats.bits_per_pixel
    for level, size in stats.level_bytes.items():
        rows.append((f"level {level}", f"{size_words(size)}, {bpp[level]:.3f} bits per pixel"))
    total = sum(stats.level_bytes.values())
    rows.append(("together", f"{size_words(total)}, {sum(bpp.values()):.3f} bits per pixel"))
    groups = (
        ("encoder", stats.feature_ids),
        ("codec", stats.codec_ids),
        ("tables", stats.tables),
        ("camera", stats.sensors),
    )
    for title, counts in groups:
        rows += [(title, f"{name} ({count} images)") for name, count in counts.items()]
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
    from chiasm.flow.pipeline import inspect_packet

    try:
        header: Mapping[str, object] = inspect_packet(path.read_bytes())
    except PacketError as error:
        raise PacketError(f"{path}: {error}") from error
    terminal.event("summary", {"packet": path, **header})
    terminal.show(columns([("packet", path), *((name, _words(value)) for name, value in header.items())]))


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
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

    with open_store(store, "w" if repair else "r") as opened:
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
        "unreadable fragments": len(report.unreadable),
        "damaged tables": len(report.tables),
        "orphaned files (harmless)": len(report.orphans),
    }
    found = [f"{count} {name}" for name, count in counts.items() if count]
    terminal.show("; ".join([words, *found]))
    if report.repaired and not report.sound:
        terminal.show("repaired: encode the sources again to fill the gaps")
    elif not report.sound:
        terminal.show(f"chiasm verify {store} --repair moves what is damaged out of the way")
