"""One picture of all that was answered: a row for each photograph, titles above, colours of classes below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from chiasm.cli.answers import shown, span
from chiasm.datasets.vocabulary import palette

if TYPE_CHECKING:
    from PIL import Image

    from chiasm.heads.answers import Answer

THUMB = 160  # pixels: height of a picture on the sheet
SHOWN = 40  # pictures on it, at most
GAP = 4
LINE = 16  # pixels: height of a line of text
UNITS = {"metre": " m", "canonical": " canonical m", "relative": ""}
Swatch = tuple[tuple[int, int, int], str]  # colour and name of a class


@dataclass(frozen=True)
class Row:
    """What the sheet shows of one photograph. classes: the colours and names of those that were found in it."""

    thumbs: list[Image.Image]
    titles: tuple[str, ...]
    classes: frozenset[Swatch]


def sheet_row(picture: np.ndarray | None, answers: Sequence[Answer]) -> Row:
    """One row of a contact sheet. picture: uint8 H x W x 3, of any size, if any. Answers that are no maps are left out.

    Distances are written on their picture: near, which is bright, to far.
    """
    thumbs, titles, classes = [], [], set()
    if picture is not None:
        thumbs, titles = [_thumb(picture)], ["picture"]
    for answer in map(_coarse, (answer for answer in answers if answer.values.ndim > 1)):
        thumb, task = _thumb(shown(answer)), answer.task
        if task.kind == "distance":
            low, high = span(answer)
            _write(thumb, (2, THUMB - LINE + 2), f"{low:.3g} to {high:.3g}{UNITS[task.unit]}")
        if task.kind == "classes":
            colours = palette(max(256, task.channels)).tolist()
            classes |= {(tuple(colours[i]), task.classes[i]) for i in np.unique(answer.values).tolist()}
        thumbs.append(thumb)
        titles.append(task.name)
    return Row(thumbs, tuple(titles), frozenset(classes))


@dataclass
class ContactSheet:
    """The first pictures beside what was read from them, one row each, small."""

    rows: list[Row] = field(default_factory=list)

    def file(self) -> bytes | None:
        """The sheet as a PNG file; None for no picture."""
        from PIL import Image

        if not self.rows:
            return None
        rows = self._alike()
        widths = [max(row.thumbs[i].width for row in rows) for i in range(len(rows[0].thumbs))]
        lefts = [sum(widths[:i]) + GAP * i for i in range(len(widths))]
        width = sum(widths) + GAP * (len(widths) - 1)
        bottom = LINE + (THUMB + GAP) * len(self.rows)
        classes = sorted(frozenset().union(*(row.classes for row in self.rows)), key=lambda swatch: swatch[1])
        places, lines = _places(classes, width)
        sheet = Image.new("RGB", (width, bottom + LINE * lines), "white")
        for left, title in zip(lefts, rows[0].titles, strict=True):
            _write(sheet, (left, 1), title, "black", "white")
        for line, row in enumerate(rows):
            for left, thumb in zip(lefts, row.thumbs, strict=True):
                sheet.paste(thumb, (left, LINE + (THUMB + GAP) * line))
        for (colour, name), (left, line) in zip(classes, places, strict=True):
            top = bottom + LINE * line
            sheet.paste(colour, (left, top + 2, left + LINE - 4, top + LINE - 2))
            _write(sheet, (left + LINE, top + 1), name, "black", "white")
        file = io.BytesIO()
        sheet.save(file, format="PNG", compress_level=3)
        return file.getvalue()


    def _alike(self) -> list[Row]:
        """The rows with as many thumbs each: white where one has no picture and others do."""
        from PIL import Image

        most = max(len(row.thumbs) for row in self.rows)
        blank, titles = Image.new("RGB", (1, THUMB), "white"), max((row.titles for row in self.rows), key=len)
        return [
            row if len(row.thumbs) == most else replace(row, thumbs=[blank, *row.thumbs], titles=titles)
            for row in self.rows
        ]


def _places(classes: Sequence[Swatch], width: int) -> tuple[list[tuple[int, int]], int]:
    """Left edge and line of each class below the pictures, and how many lines there are."""
    places, left, line = [], 0, 0
    for _, name in classes:
        wide = 2 * LINE + _length(name)
        if left and left + wide > width:
            left, line = 0, line + 1
        places.append((left, line))
        left += wide
    return places, line + 1 if places else 0


def _length(text: str) -> int:
    from PIL import ImageFont

    return round(ImageFont.load_default().getlength(_plain(text)))


def _write(
    image: Image.Image, place: tuple[int, int], text: str, ink: str = "white", paper: str = "black"
) -> None:
    from PIL import ImageDraw

    draw, plain = ImageDraw.Draw(image), _plain(text)
    draw.rectangle((place[0], place[1], place[0] + _length(plain) + 2, place[1] + LINE - 4), fill=paper)
    draw.text((place[0] + 1, place[1]), plain, fill=ink)


def _plain(text: str) -> str:
    """What the built-in font can draw: 40 characters of one line, Latin letters."""
    return "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in text[:40])


def _coarse(answer: Answer) -> Answer:
    """Every n-th place: colouring then costs what a thumbnail costs, not what the picture does."""
    step = max(1, min(answer.values.shape[:2]) // (2 * THUMB))
    return replace(answer, values=answer.values[::step, ::step])


def _thumb(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    width = min(4 * THUMB, max(1, round(image.width * THUMB / image.height)))
    return image.resize((width, THUMB), Image.Resampling.BOX)
