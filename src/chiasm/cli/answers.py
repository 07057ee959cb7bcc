"""Files that `predict` writes: a PNG for each answer, with what its numbers mean inside it, and one contact sheet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
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


def answer_file(answer: Answer, kind: str, name: str) -> tuple[str, bytes]:
    """The suffix and bytes of the file of one map.

    semantics: palette PNG, class names in its text. depth: 16-bit PNG, metres per count in its text (and the field of
    view that was assumed), 0 unknown.
    normals: RGB, (n + 1) / 2. edges: grey, probability. denoise: a picture of `kind`.
    """
    if answer.task.unit == "srgb":
        return f"{answer.task.name}.{kind}", picture_file(answer.values, kind, name)
    image, text = _image(answer)
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=_text({"task": answer.task.name, "unit": answer.task.unit, **text}))
    return f"{answer.task.name}.png", file.getvalue()


def _image(answer: Answer) -> tuple[Image.Image, dict[str, str]]:
    from PIL import Image

    values = answer.values
    if answer.task.name == "semantics":
        if values.dtype == np.uint16:
            return Image.fromarray(values), {"classes": json.dumps(answer.task.classes)}
        image = Image.fromarray(values, "P")
        image.putpalette(palette(256).tobytes())
        return image, {"classes": json.dumps(answer.task.classes)}
    if answer.task.name == "depth":
        scale = MILLIMETRE
        while values.max() > MOST * scale:
            scale *= 10
        counts = np.clip(np.round(values / scale), 1, MOST).astype(np.uint16)
        text = {"metres_per_count" if answer.task.unit == "metre" else "scale": f"{scale:g}"}
        return Image.fromarray(counts), text | ({} if answer.view is None else {"field_of_view": f"{answer.view:g}"})
    return Image.fromarray(shown(answer)), {}


def _text(about: Mapping[str, str]) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    held = PngInfo()
    for key, value in about.items():
        held.add_text(f"chiasm:{key}", value)
    return held


def shown(answer: Answer) -> np.ndarray:
    """An answer as one can look at it: uint8 H x W or H x W x 3."""
    values, name = answer.values, answer.task.name
    if name == "semantics":
        found: np.ndarray = palette(max(256, answer.task.channels))[values]
    elif name == "depth":
        low, high = np.percentile(values, (2, 98))
        found = _heat(1.0 - np.clip((values - low) / max(high - low, 1e-6), 0, 1))  # near is bright
    elif answer.task.unit == "direction":
        found = np.round((values + 1.0) * 127.5).astype(np.uint8)
    elif answer.task.unit == "logit":
        found = np.round(values * 255.0).astype(np.uint8)
    else:
        found = values
    return found


def _heat(share: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    coloured: np.ndarray = (colormaps["inferno"](share)[..., :3] * 255).astype(np.uint8)
    return coloured


class ContactSheet:
    """The first pictures beside what was read from them, one row each, small."""

    def __init__(self) -> None:
        self.rows: list[list[Image.Image]] = []

    def add(self, picture: np.ndarray, answers: Sequence[Answer]) -> None:
        """picture: uint8 H x W x 3. Answers that are no maps are left out."""
        if len(self.rows) < SHOWN:
            maps = [shown(_coarse(answer)) for answer in answers if answer.values.ndim > 1]
            self.rows.append([_thumb(x) for x in (picture, *maps)])

    @property
    def full(self) -> bool:
        return len(self.rows) >= SHOWN

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
        sheet.save(file, format="PNG")
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


