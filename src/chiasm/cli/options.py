"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chiasm.cli.outputs import FORMATS
from chiasm.cli.terminal import Terminal

if TYPE_CHECKING:
    from chiasm.flow.pipeline import Pipeline
    from chiasm.flow.runtime import Runtime

MODEL = "ns-rgb"
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")

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
    help="Of the codec transform: 1 is smallest, 8 is closest to the picture.",
)
written_levels = click.option(
    "--levels", callback=_levels, metavar="NAMES", help="Levels to keep, as context,detail.  [default: all]"
)
read_levels = click.option("--levels", callback=_levels, metavar="NAMES", help="Draw from these alone.  [default: all]")
picture_format = click.option(
    "--format", "kind", type=click.Choice(tuple(FORMATS)), default="png", show_default=True, help="Of the files."
)
store_argument = click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
where = click.option(
    "--where", default="", metavar="SQL", help="Only pictures for which this holds, as: split = 'val' and rating > 3"
)
wait = click.option(
    "--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="For another writer.  [default: do not]"
)
device = click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="To compute on.")
precision = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="Of convolutions."
)


def as_one(name: str, kind: type[Any], *options: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
    """Options that reach a verb as one argument `name`, a `kind` whose fields are called as the options."""
    wanted = [each.name for each in fields(kind)]

    def decorated(command: Verb) -> Verb:
        @wraps(command)
        def gathered(**given: Any) -> Any:
            return command(**{name: kind(**{each: given.pop(each) for each in wanted})}, **given)

        verb: Any = gathered
        for option in reversed(options):
            verb = option(verb)
        return verb  # type: ignore[no-any-return]

    return decorated


@dataclass(frozen=True)
class Encoding:
    """Which encoder, how its levels are coded, and where it runs."""

    encoder: str
    weights: Path | None
    layers: tuple[str, ...] | None
    view: str
    codec: str
    device: str
    precision: str
    accepted: bool

    def pipeline(self, store: Path | None = None, wait: float = 0.0) -> Pipeline:
        """With a store, one that writes to it."""
        from chiasm.flow.pipeline import Pipeline
        from chiasm.models import Model

        model = Model(self.encoder, self.weights, self.layers or (), self.view, self.accepted)
        runtime, writable = _runtime(self.device, self.precision), store is not None
        return Pipeline.of(model, store=store, writable=writable, wait=wait, codec=self.codec, runtime=runtime)


encoding = as_one(
    "encoding",
    Encoding,
    click.option(
        "--encoder", default=MODEL, show_default=True, metavar="NAME",
        help="Or timm:NAME, hf:NAME_OR_FOLDER, onnx:FILE, tflite:FILE; `chiasm models` lists them.",
    ),
    click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Local ones, of a foreign encoder."),
    click.option("--layers", callback=_levels, metavar="NAMES", help="Of a foreign encoder: names or numbers."),
    click.option("--view", default="", metavar="VIEW", help="What it sees: native, longest:518, square:224."),
    click.option("--codec", default="", metavar="NAME", help="Of maps: transform, plain-fp16, plain-bf16, plain-int8."),
    device,
    precision,
    click.option("--accept-licence", "accepted", is_flag=True, help="Once, of an encoder whose licence binds."),
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What of a store is read, and where heads run."""

    space: str
    where: str
    device: str

    def pipeline(self, store: Path, *, writable: bool = False, wait: float = 0.0) -> Pipeline:
        from chiasm.flow.pipeline import Pipeline

        runtime = _runtime(self.device)
        return Pipeline.of(None, store=store, space=self.space, writable=writable, wait=wait, runtime=runtime)


space = click.option("--space", default="", metavar="NAME", help="Space to read.  [default: the only one, or ns-1]")
reading = as_one("reading", Reading, space, where, device)


def _runtime(device: str, precision: str = "auto") -> Runtime:
    from chiasm.flow.runtime import Runtime

    return Runtime.chosen(device, precision)
