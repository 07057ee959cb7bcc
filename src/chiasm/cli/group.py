"""The group of all verbs: what goes wrong below becomes one sentence and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import click

from chiasm.cli.terminal import Terminal
from chiasm.errors import ChiasmError, nearest

SOME_FAILED, STOPPED, BUG, INTERRUPTED, HUNG_UP = 1, 3, 70, 130, 141


class VerbGroup(click.Group):
    """Verbs in the order in which they were added, with a suggestion for a mistyped one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"there is no {args[0]!r}; {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _until_nobody_reads(ctx):  # --help prints here
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb. Only the outermost group turns errors into exit codes."""
        if ctx.parent is not None:
            return super().invoke(ctx)
        terminal = ctx.ensure_object(Terminal)
        with warnings.catch_warnings(), _until_nobody_reads(ctx):
            warnings.showwarning = _OneLine(terminal)
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
                raise
            except (KeyboardInterrupt, Exception) as error:
                ctx.exit(_explain(terminal, error))


@contextmanager
def _until_nobody_reads(ctx: click.Context) -> Iterator[None]:
    """Exit without a word when the reader of what is printed has gone, as with `| head -1`."""
    try:
        yield
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:  # Python will flush both once more at its end
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    os.dup2(nowhere.fileno(), stream.fileno())
        ctx.exit(HUNG_UP)


def _explain(terminal: Terminal, error: BaseException) -> int:
    """Say what stopped the verb; returns its exit code."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, KeyboardInterrupt):
        terminal.error("Interrupted", "interrupted; the same command goes on where this one stopped")
        return INTERRUPTED
    if isinstance(error, ChiasmError | OSError):
        terminal.error(type(error).__name__, str(error))
        if terminal.debug:
            terminal.say(trace)
        return STOPPED
    terminal.error(type(error).__name__, f"this is a bug in chiasm, please report it\n{trace}")
    return BUG


class _OneLine:
    """What `warnings.showwarning` becomes: one line through the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self.terminal.warn(category.__name__, str(message))
