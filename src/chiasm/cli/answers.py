"""Files that `predict` writes: one for each answer, with what its numbers mean inside it, and one contact sheet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from chiasm.cli.outputs import picture_file
from chiasm.datasets.vocabulary import palette

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from chiasm.heads.answers import Answer

MILLIMETRE = 0.001
MOST = 65_535
THUMB = 160  # pixels: height of a picture on the contact sheet
SHOWN = 40  # pictures on it, at most
RUNS = 3  # zlib's Z_RLE: five times as fast as its default on filtered maps, and some 3 % larger

_File = tuple["Image.Image", dict[str, str], dict[str, int]]


def answer_file(answer: Answer, picture: str, name: str) -> tuple[str, bytes]:
    """The suffix and bytes of the file of one answer.

    classes: palette PNG, class names in its text. distance: 16-bit PNG, metres per count in its text (and the field of
    view that was assumed), 0 unknown. direction: RGB, (n + 1) / 2. probability: grey. picture: in the format `picture`.
    vector: NumPy's .npy. A label has no file of its own.
    """
    from chiasm.heads.kinds import KINDS

    task, file = answer.task, io.BytesIO()
    if task.kind == "picture":
        return f"{task.name}.{picture}", picture_file(answer.values, picture, name)
    if task.kind == "vector":
        np.save(file, answer.values)
        return f"{task.name}.npy", file.getvalue()
    image, text, options = FILES[KINDS[task.kind].file](answer)
    about = {"task": task.name, "kind": task.kind} | ({"unit": task.unit} if task.unit else {}) | text
    image.save(file, format="PNG", pnginfo=_text(about), **options)
    return f"{task.name}.png", file.getvalue()


def _palette_file(answer: Answer) -> _File:
    from PIL import Image

    image = Image.fromarray(answer.values)
    if answer.values.dtype == np.uint8:
        image = Image.fromarray(answer.values, "P")
        image.putpalette(palette(256).tobytes())
    return image, {"classes": json.dumps(answer.task.classes)}, {}


def _counts_file(answer: Answer) -> _File:
    from PIL import Image

    scale = MILLIMETRE
    while answer.values.max() > MOST * scale:
        scale *= 10
    counts = np.clip(np.round(answer.values / scale), 1, MOST).astype(np.uint16)
    text = {"metres_per_count" if answer.task.unit == "metre" else "scale": f"{scale:g}"}
    view = {} if answer.view is None else {"field_of_view": f"{answer.view:g}"}
    return Image.fromarray(counts), text | view, {"compress_level": 4}


def _plain_file(answer: Answer) -> _File:
    from PIL import Image

    return Image.fromarray(shown(answer)), {}, {"compress_type": RUNS}


FILES: Mapping[str, Callable[[Answer], _File]] = {
    "palette": _palette_file,
    "counts": _counts_file,
    "signed": _plain_file,
    "grey": _plain_file,
}


def _text(about: Mapping[str, str]) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    held = PngInfo()
    for key, value in about.items():
        held.add_text(f"chiasm:{key}", value)
    return held


def shown(answer: Answer) -> np.ndarray:
    """An answer as one can look at it: uint8 H x W or H x W x 3."""
    from chiasm.heads.kinds import KINDS

    return RENDERINGS[KINDS[answer.task.kind].rendering](answer)


def _coloured(answer: Answer) -> np.ndarray:
    colours: np.ndarray = palette(max(256, answer.task.channels))[answer.values]
    return colours


def _heat(answer: Answer) -> np.ndarray:
    """Near is bright."""
    low, high = span(answer)
    return heat(1.0 - np.clip((answer.values - low) / max(high - low, 1e-6), 0, 1))


def span(answer: Answer) -> tuple[float, float]:
    """The distances that are shown brightest and darkest."""
    low, high = np.percentile(answer.values, (2, 98))
    return float(low), float(high)


def heat(share: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as colours, uint8 ... x 3."""
    from matplotlib import colormaps

    coloured: np.ndarray = (colormaps["inferno"](share)[..., :3] * 255).astype(np.uint8)
    return coloured


RENDERINGS: Mapping[str, Callable[[Answer], np.ndarray]] = {
    "palette": _coloured,
    "heat": _heat,
    "signed": lambda answer: np.rint((answer.values + 1.0) * 127.5).astype(np.uint8),
    "grey": lambda answer: np.rint(answer.values * 255.0).astype(np.uint8),
    "picture": lambda answer: answer.values,
}


def sheet_row(picture: np.ndarray, answers: Sequence[Answer]) -> list[Image.Image]:
    """One row of a contact sheet. picture: uint8 H x W x 3, of any size. Answers that are no maps are left out."""
    return [_thumb(x) for x in (picture, *(shown(_coarse(answer)) for answer in answers if answer.values.ndim > 1))]


class ContactSheet:
    """The first pictures beside what was read from them, one row each, small."""

    def __init__(self) -> None:
        self.rows: list[list[Image.Image]] = []

    def file(self) -> bytes | None:
        """The sheet as a PNG file; None for no picture."""
        from PIL import Image

        if not self.rows:
            return None
        gap = 4
        widths = [max(row[i].width for row in self.rows) for i in range(len(self.rows[0]))]
        size = (sum(widths) + gap * (len(widths) - 1), (THUMB + gap) * len(self.rows) - gap)
        sheet = Image.new("RGB", size, "white")
        for line, row in enumerate(self.rows):
            for i, thumb in enumerate(row):
                sheet.paste(thumb, (sum(widths[:i]) + gap * i, (THUMB + gap) * line))
        file = io.BytesIO()
        sheet.save(file, format="PNG", compress_level=3)
        return file.getvalue()


def _coarse(answer: Answer) -> Answer:
    """Every n-th place: colouring then costs what a thumbnail costs, not what the picture does."""
    step = max(1, min(answer.values.shape[:2]) // (2 * THUMB))
    return replace(answer, values=answer.values[::step, ::step])


def _thumb(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    width = min(4 * THUMB, max(1, round(image.width * THUMB / image.height)))
    return image.resize((width, THUMB), Image.Resampling.BOX)
