"""The verb that reads tasks from a store: predict."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm import durable
from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.outputs import file_names
from chiasm.cli.pictures import MODEL, picture_format
from chiasm.cli.terminal import Terminal
from chiasm.errors import ChiasmError

if TYPE_CHECKING:
    from chiasm.cli.answers import ContactSheet
    from chiasm.flow.pipeline import Pipeline
    from chiasm.heads.answers import Answer


def _tasks(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """"depth,edges" as names, each checked against the heads there are."""
    from chiasm.errors import nearest
    from chiasm.models import ENTRIES

    if value is None:
        return ()
    names = tuple(name.strip() for name in value.split(","))
    known = [task for entry in ENTRIES.values() for task in entry.tasks]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no task {name!r}; {nearest(name, known)}", ctx, param)
    if len(set(names)) != len(names):
        raise click.BadParameter(f"expected each task once, got {value!r}", ctx, param)
    return names


@click.command()
@click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--task", "tasks", callback=_tasks, metavar="NAMES", help="What to read: depth,edges and so on.")
@click.option("--head", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of your own head.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@click.option(
    "--field-of-view", "view", type=click.FloatRange(1, 170), default=63.0, show_default=True, metavar="DEGREES",
    help="Of the camera, along the longer side: metres of the shipped head depend on it.",
)  # fmt: skip
@click.option("--arrays", is_flag=True, help="Also write the numbers themselves, one .npz for each picture.")
@picture_format
@options.common
@options.pass_terminal
@click.pass_context
def predict(
    ctx: click.Context,
    terminal: Terminal,
    store: Path,
    tasks: tuple[str, ...],
    head: Path | None,
    out: Path,
    view: float,
    arrays: bool,
    kind: str,
) -> None:
    """Read tasks' answers for every picture of STORE from its features.

    No picture is read again. Each file is called after its source, the first digits of its key, and the
    task: holiday-1a2b3c4d.depth.png; contact-sheet.png shows them side by side. --format is that of pictures (denoise).
    """
    from chiasm.cli.answers import ContactSheet
    from chiasm.flow.pipeline import Pipeline
    from chiasm.models import head_of

    if not tasks and head is None:
        raise click.UsageError("expected a task or a head; add --task semantics,depth,normals,edges or --head FILE")
    with Pipeline.load(MODEL, store=store) as pipeline:
        own = head_of(head, pipeline.spec.name) if head else None
        answered = partial(pipeline.predict, tasks=tasks, head=own, view=view)
        job = _Job(terminal, pipeline, answered, out, kind, arrays)
        failed = job.run(ContactSheet())
    if failed:
        ctx.exit(SOME_FAILED)


class _Job:
    """All pictures of a store, one after the other."""

    def __init__(
        self,
        terminal: Terminal,
        pipeline: Pipeline,
        answered: Callable[[str], Mapping[str, Answer]],
        out: Path,
        kind: str,
        arrays: bool,
    ) -> None:
        self.terminal, self.pipeline, self.answered = terminal, pipeline, answered
        self.out, self.kind, self.arrays = out, kind, arrays
        self.classes: list[tuple[str, str, str, str]] = []  # key, name, class, probability

    def run(self, sheet: ContactSheet) -> int:
        """Write everything; how many pictures failed."""
        failed, terminal = 0, self.terminal
        names = file_names({record.key: record.uris for record in self.pipeline.store.scan(())}, "")
        with terminal.progress("predict", len(names)) as bar:
            for key, name in names.items():
                try:
                    files = self._picture(key, name.removesuffix("."), sheet)
                except ChiasmError as error:
                    failed += 1
                    bar.advance()
                    terminal.event("picture", {"key": key, "outcome": "failed", "message": str(error)})
                    terminal.say(f"{name}: {error}")
                    continue
                for file, data in files.items():
                    durable.write(self.out / file, data)
                bar.advance(sum(map(len, files.values())))
                written = [str(self.out / file) for file in files]
                terminal.event("picture", {"key": key, "outcome": "written", "files": written})
        self._finish(sheet)
        done = len(names) - failed
        terminal.event("summary", {"out": self.out, "written": done, "failed": failed})
        terminal.show(f"{done} pictures in {self.out}, {failed} failed")
        return failed

    def _picture(self, key: str, name: str, sheet: ContactSheet) -> Mapping[str, bytes]:
        from chiasm.cli.answers import answer_file

        answers = self.answered(key)
        maps = [answer for answer in answers.values() if answer.values.ndim > 1]
        files = {}
        for answer in maps:
            suffix, data = answer_file(answer, self.kind, key[:12])
            files[f"{name}.{suffix}"] = data
        if self.arrays:
            files[f"{name}.npz"] = _packed(answers)
        for answer in answers.values():
            if answer.values.ndim == 1:
                self._classified(key, name, answer)
        if maps and not sheet.full:
            sheet.add(self.pipeline.reconstruct(key), maps)
        return files

    def _classified(self, key: str, name: str, answer: Answer) -> None:
        best = int(answer.values.argmax())
        self.classes.append((key, name, answer.task.classes[best], f"{answer.values[best]:.4f}"))

    def _finish(self, sheet: ContactSheet) -> None:
        """What is written once for all pictures."""
        if data := sheet.file():
            durable.write(self.out / "contact-sheet.png", data)
        if self.classes:
            file = io.StringIO()
            csv.writer(file).writerows([("key", "picture", "class", "probability"), *self.classes])
            durable.write(self.out / "classes.csv", file.getvalue().encode())


def _packed(answers: Mapping[str, Answer]) -> bytes:
    import numpy as np

    file, arrays = io.BytesIO(), {name: answer.values for name, answer in answers.items()}
    for view in {answer.view for answer in answers.values() if answer.view is not None}:
        arrays["field_of_view"] = np.array(view, np.float32)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
