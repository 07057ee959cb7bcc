"""Files that `predict` writes for each answer, with what its numbers mean inside it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
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
