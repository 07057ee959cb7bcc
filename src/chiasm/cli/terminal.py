"""What a verb says: JSON lines or text on stdout, messages on stderr, and a progress bar for a person."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
BARS_A_SECOND = 8


@dataclass
class Bar:
    """Progress of one verb: how many items and bytes, and how fast. Without `display` it only counts."""

    display: Progress | None = None
    task: TaskID | None = None
    unit: str = "images"
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    bytes: int = 0

    def advance(self, size: int = 0, count: int = 1) -> None:
        """`count` more items of together `size` bytes are done."""
        self.done += count
        self.bytes += size
        if self.display is not None and self.task is not None:
            self.display.update(self.task, completed=self.done, speed=self.speed)

    @property
    def speed(self) -> str:
        """Such as "12.3 images/s, 4.5 MB/s"."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        rate = f"{self.done / seconds:.1f} {self.unit}/s"
        return f"{rate}, {self.bytes / seconds / 1e6:.1f} MB/s" if self.bytes else rate


@dataclass
class Terminal:
    """json: print JSON lines and nothing else on stdout. debug: show tracebacks."""

    json: bool = False
    debug: bool = False
    display: Progress | None = None

    def event(self, event: str, facts: Mapping[str, object]) -> None:
        """One line of JSON on stdout; nothing without --json."""
        if self.json:
            click.echo(json.dumps({"event": event, **facts}, default=str))

    def show(self, text: str) -> None:
        """A result for a person, on stdout; nothing with --json."""
        if not self.json:
            click.echo(clean(text))

    def say(self, text: str) -> None:
        """A message on stderr, above the progress bar if there is one."""
        if self.display is not None:
            self.display.console.print(clean(text), markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(clean(text), err=True)

    def warn(self, kind: str, text: str) -> None:
        self.event("warning", {"kind": kind, "message": text})
        self.say(f"warning: {text}")

    def error(self, kind: str, text: str) -> None:
        self.event("error", {"kind": kind, "message": text})
        self.say(f"error: {text}")

    @contextmanager
    def progress(self, doing: str, total: int | None, unit: str = "images") -> Iterator[Bar]:
        """A bar on stderr with speed and time left, when a person watches: on a terminal, without --json."""
        if self.json or not sys.stderr.isatty():
            yield Bar(unit=unit)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        with Progress(*columns, console=console, refresh_per_second=BARS_A_SECOND, transient=True) as display:
            self.display = display
            try:
                yield Bar(display, display.add_task(doing, total=total, speed=""), unit)
            finally:
                self.display = None


def clean(text: str) -> str:
    r"""The text with control characters as \xNN: a file name must not steer the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells as aligned text; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells), default=0))]
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        pairs = zip(row, texts, widths, strict=False)
        lines.append(
            "  ".join(text.rjust(w) if isinstance(cell, int | float) else text.ljust(w) for cell, text, w in pairs)
        )
    return "\n".join(line.rstrip() for line in lines)


def size_words(count: float) -> str:
    """Bytes for a person: "1.23 MB" (1 MB = 1,000,000 bytes)."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.2f} {unit}"
        count /= 1000
    raise AssertionError("the loop returns")
