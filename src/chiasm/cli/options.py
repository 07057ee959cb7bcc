"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from chiasm.cli.terminal import Terminal

Verb = TypeVar("Verb", bound=Callable[..., Any])
pass_terminal = click.make_pass_decorator(Terminal, ensure=True)


def _levels(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """ "detail,context" as names."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise click.BadParameter(f"expected names separated by commas, each once, got {value!r}", ctx, param)
    return names


def _json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Terminal).json |= value


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Terminal).debug |= value


def common(verb: Verb) -> Verb:
    """--json and --debug, which every verb has and hands to its terminal."""
    debug = click.option(
        "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_debug, help="Show tracebacks."
    )
    lines = click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=_json, help="JSON lines on stdout."
    )
    return lines(debug(verb))


quality = click.option(
    "--quality",
    type=click.IntRange(1, 8),
    default=5,
    show_default=True,
    help="1 is smallest, 8 is closest to the picture.",
)
written_levels = click.option(
    "--levels", callback=_levels, metavar="NAMES", default="context,detail", show_default=True, help="Levels to keep."
)
read_levels = click.option("--levels", callback=_levels, metavar="NAMES", help="Draw from these alone.  [default: all]")
