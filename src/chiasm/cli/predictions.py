"""The verb that reads tasks from a store: predict."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chiasm import durable
from chiasm.cli import options
from chiasm.cli.group import SOME_FAILED
from chiasm.cli.outputs import file_names
from chiasm.cli.terminal import Terminal
from chiasm.errors import ChiasmError, StoreError

if TYPE_CHECKING:
    import numpy as np

    from chiasm.cli.sheets import ContactSheet, Row
    from chiasm.flow.pipeline import Pipeline
    from chiasm.flow.threads import Threads
    from chiasm.heads.answers import Answer


def _tasks(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """ "depth,edges" as names, each checked against the heads there are."""
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
@options.store_argument
@click.option("--task", "tasks", callback=_tasks, metavar="NAMES", help="What to read: depth,edges and so on.")
@click.option("--head", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of your own head.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@click.option(
    "--field-of-view", "view", type=click.FloatRange(1, 170), metavar="DEGREES",
    help="Of the camera, along the longer side, for depth in metres.  [default: what the file says, else 63]",
)  # fmt: skip
@click.option("--arrays", is_flag=True, help="Also write the numbers themselves, one .npz for each picture.")
@options.reading
@options.picture_format
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
    view: float | None,
    arrays: bool,
    reading: options.Reading,
    kind: str,
) -> None:
    """Read tasks' answers for every picture of STORE from its features.

    No picture is read again. Each file is called after its source, the first digits of its key, and the
    task: holiday-1a2b3c4d.depth.png; contact-sheet.png shows them side by side. --format is that of pictures (denoise).
    """
    from chiasm.cli.sheets import ContactSheet
    from chiasm.models import head_of

    if not tasks and head is None:
        raise click.UsageError("expected a task or a head; add --task semantics,depth,normals,edges or --head FILE")
    with reading.pipeline(store) as pipeline:
        own = head_of(head, pipeline.space) if head else None
        pipeline.heads(tasks, own)  # what is wrong with all pictures is said once
        answered = partial(pipeline.predict, tasks=tasks, head=own, view=view)
        job = _Job(terminal, pipeline, answered, out, kind, arrays)
        failed = job.run(file_names(pipeline.uris(reading.where), ""), ContactSheet())
    if failed:
        ctx.exit(SOME_FAILED)


@dataclass
class _Done:
    """What became of one picture. files: sizes of what was written. labels: task -> class, probability."""

    files: dict[Path, int]
    labels: dict[str, tuple[str, str]]
    row: Row | None


@dataclass
class _Job:
    """All pictures of a store, several at a time, told of in order."""

    terminal: Terminal
    pipeline: Pipeline
    answered: Callable[[str], Mapping[str, Answer]]
    out: Path
    kind: str
    arrays: bool

    def run(self, names: Mapping[str, str], sheet: ContactSheet) -> int:
        """Write everything, names: key -> beginning of its files' names; how many pictures failed."""
        from chiasm.cli.sheets import SHOWN

        failed = 0
        tables: dict[str, list[tuple[str, ...]]] = {}
        shown = set(list(names)[:SHOWN])
        work = ((key, name.removesuffix("."), key in shown) for key, name in names.items())
        with self.terminal.progress("predict", len(names)) as bar:
            for (key, name, _), outcome in _in_order(self.pipeline.runtime.threads(), self._picture, work):
                try:
                    done = outcome.result()
                except ChiasmError as error:
                    failed += 1
                    bar.advance()
                    self.terminal.event("picture", {"key": key, "outcome": "failed", "message": str(error)})
                    self.terminal.say(f"{name}: {error}")
                    continue
                for task, label in done.labels.items():
                    tables.setdefault(task, []).append((key, name, *label))
                if done.row is not None:
                    sheet.rows.append(done.row)
                bar.advance(sum(done.files.values()))
                written = [str(path) for path in done.files]
                self.terminal.event("picture", {"key": key, "outcome": "written", "files": written})
        self._finish(sheet, tables)
        done_count = len(names) - failed
        self.terminal.event("summary", {"out": self.out, "written": done_count, "failed": failed})
        self.terminal.show(f"{done_count} pictures in {self.out}, {failed} failed")
        return failed

    def _picture(self, work: tuple[str, str, bool]) -> _Done:
        """Answer one picture and write its files. work: key, beginning of the files' names, whether it is shown."""
        key, name, shown = work
        from chiasm.cli.answers import answer_file
        from chiasm.cli.sheets import sheet_row

        answers = list(self.answered(key).values())
        done = _Done({}, {}, None)
        for answer in answers:
            if answer.task.kind == "label":
                best = int(answer.values.argmax())
                done.labels[answer.task.name] = (answer.task.classes[best], f"{answer.values[best]:.4f}")
            else:
                suffix, data = answer_file(answer, self.kind, key[:12])
                self._write(done, f"{name}.{suffix}", data)
        if self.arrays:
            self._write(done, f"{name}.npz", _packed(answers))
        maps = [answer for answer in answers if answer.values.ndim > 1]
        if shown and maps:
            done.row = sheet_row(self._thumbnail(key), maps)
        return done

    def _thumbnail(self, key: str) -> np.ndarray | None:
        """The picture small; None where no head draws its space, or what that reads is not stored of it."""
        with suppress(StoreError):
            return self.pipeline.thumbnail(key)
        return None

    def _write(self, done: _Done, name: str, data: bytes) -> None:
        durable.write(self.out / name, data)
        done.files[self.out / name] = len(data)

    def _finish(self, sheet: ContactSheet, tables: Mapping[str, Sequence[tuple[str, ...]]]) -> None:
        """What is written once for all pictures."""
        if data := sheet.file():
            durable.write(self.out / "contact-sheet.png", data)
        for task, rows in tables.items():
            file = io.StringIO()
            csv.writer(file).writerows([("key", "picture", "class", "probability"), *rows])
            durable.write(self.out / f"{task}.csv", file.getvalue().encode())


def _in_order(
    threads: Threads, function: Callable[[tuple[str, str, bool]], _Done], work: Iterable[tuple[str, str, bool]]
) -> Iterator[tuple[tuple[str, str, bool], Future[_Done]]]:
    """Call a function for each piece of work, some at a time; results in order."""
    pending: deque[tuple[tuple[str, str, bool], Future[_Done]]] = deque()
    with threads:
        for each in work:
            pending.append((each, threads.submit(function, each)))
            if len(pending) > threads.ahead:
                yield pending.popleft()
        yield from pending


def _packed(answers: Sequence[Answer]) -> bytes:
    import numpy as np

    file, arrays = io.BytesIO(), {answer.task.name: answer.values for answer in answers}
    for view in {answer.view for answer in answers if answer.view is not None}:
        arrays["field_of_view"] = np.array(view, np.float32)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
