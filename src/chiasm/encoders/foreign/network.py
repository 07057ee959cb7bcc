"""What every foreign network is made into: an encoder with declared levels, preprocessing inside, and provenance.

pixels B 3 H W in [0, 1] ──Preprocessing──► network ──► level -> float32 map B C h w or vector B D
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from chiasm.contracts import Features, Kind, Level, Size, Space, Triple
from chiasm.errors import ConfigError, MissingExtraError, ModelError, ShapeError, nearest
from chiasm.features import views

PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}  # that a network can be asked to run in
LONGEST_NAME = 63  # bytes of the name of a space or level, which becomes part of file names

Run = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Preprocessing:
    """(pixels - mean) / std per channel, pixels in [0, 1], channels in the order that the network reads."""

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    order: Literal["rgb", "bgr"] = "rgb"

    def __call__(self, pixels: Tensor) -> Tensor:
        x = pixels if self.order == "rgb" else pixels.flip(1)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (x - mean) / std

    @property
    def tag(self) -> str:
        """A word that differs when any number does."""
        for name, known in KNOWN.items():
            if known == self:
                return name
        return "pre-" + hashlib.sha256(repr((self.mean, self.std, self.order)).encode()).hexdigest()[:8]


KNOWN = {
    "imagenet": Preprocessing(),
    "half": Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "unit": Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Opened:
    """A network that an adapter has opened.

    name: as it was asked for. digest: hex digest of its weights. levels: those that `run` gives. grid: pixels that
    native views are padded to, of the whole network, whichever levels are asked for. multiple: pixels that height and
    width must be multiples of, 1 where any size will do. run: normalised B 3 H W to levels. view: the size it was
    trained at. fixed: the only height and width that it reads, or None. precision: a word for that of a graph, which
    computes as it was written; "" for torch's networks, which compute as they are run.
    """

    name: str
    digest: str
    levels: tuple[Level, ...]
    grid: int
    multiple: int
    run: Run
    preprocessing: Preprocessing
    view: str
    fixed: Size | None = None
    precision: str = ""


class ForeignEncoder:
    """A public network as an encoder: B 3 H W in [0, 1] to the levels of its space, float32.

    The whole picture can change every feature (margin None). precision: that of a graph, or the dtype that was asked
    for; "": of whoever runs it.
    """

    accepts: Kind = "rgb"
    margin: int | None = None
    concurrent = False  # a library may keep what it computes

    def __init__(self, opened: Opened, view: str | None, device: torch.device, dtype: torch.dtype | None) -> None:
        self.view = _checked(view, opened)
        self.space = Space(space_name(opened.name, opened.digest), opened.levels, opened.grid)
        self.id = f"{opened.name}@{opened.digest[:12]}/{opened.preprocessing.tag}/{self.view}"
        self._opened, self._device, self._dtype = opened, device, dtype
        self.precision = opened.precision or (PRECISIONS.get(dtype, "") if dtype else "")

    def __call__(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        """Features of a batch. condition is not read. Raises ShapeError for a size that the network cannot take."""
        opened = self._opened
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ShapeError(f"pixels: expected B 3 H W, got {' '.join(map(str, pixels.shape))}; stack RGB pictures")
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        if opened.fixed is not None and size != opened.fixed:
            raise ShapeError(_only(opened, f"{size[0]} x {size[1]} pixels"))
        if any(n % opened.multiple or not n for n in size):
            raise ShapeError(
                f"pixels: {opened.name} reads heights and widths in multiples of {opened.multiple}, got {size[0]} x "
                f"{size[1]}; fit the picture with chiasm.features.views"
            )
        reduced = self._dtype in PRECISIONS
        with torch.no_grad(), torch.autocast(self._device.type, self._dtype) if reduced else nullcontext():
            x = opened.preprocessing(pixels.float())
            try:
                found = opened.run(x)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # a library's own limits, as windows that are larger than a map
                raise ShapeError(
                    f"{opened.name} does not run on {size[0]} x {size[1]} pixels ({first_words(error)}); its own view "
                    f"is {opened.view}"
                ) from error
        for level in opened.levels:
            _check_places(opened, level, found[level.name], size)
        return {level.name: found[level.name].float() for level in opened.levels}


def _check_places(opened: Opened, level: Level, x: Tensor, size: Size) -> None:
    """Raise ShapeError for a map whose places are not those of its stride, more or less one: nobody could read it."""
    wanted = [edge // level.stride for edge in size] if level.stride else []
    if any(not n or abs(n - places) > 1 for n, places in zip(x.shape[2:], wanted, strict=True)):
        raise ShapeError(
            f"{opened.name} gives {x.shape[2]} x {x.shape[3]} places of {level.name!r} for {size[0]} x {size[1]} "
            f"pixels, where a stride of {level.stride} means {wanted[0]} x {wanted[1]}; its own view is {opened.view}"
        )


def _only(opened: Opened, came: str) -> str:
    assert opened.fixed is not None
    height, width = opened.fixed
    way = f"use the view square:{height}" if height == width else "resize pictures to it yourself"
    return f"{opened.name} reads pictures of {height} x {width} pixels only, got {came}; {way}"


def _checked(view: str | None, opened: Opened) -> str:
    """The view, or the default one. Raises ConfigError for one that the network cannot take."""
    if view is None:
        return opened.view
    name, edge = views.parse(view)
    if opened.fixed is not None and (name != "square" or opened.fixed != (edge, edge)):
        raise ConfigError(_only(opened, f"the view {view}"))
    if name == "square" and edge % opened.multiple:
        near = max(1, round(edge / opened.multiple)) * opened.multiple
        raise ConfigError(
            f"{opened.name} reads heights and widths in multiples of {opened.multiple}, got the view {view}; "
            f"use square:{near}"
        )
    return view


def space_name(name: str, digest: str) -> str:
    """A name that is readable, and other for other weights: `timm-tf_efficientnet_lite2-1a2b3c4d`."""
    library, _, rest = name.partition(":")
    if library in {"onnx", "tflite"} or rest.startswith((".", "/")):
        rest = rest.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(f".{library}")
    return f"{library}-{plain_name(rest)[: LONGEST_NAME - len(library) - 10]}-{digest[:8]}"


def plain_name(name: str) -> str:
    """A name of letters, digits, `_`, `-` and single dots: what stands in a packet and in the name of a file."""
    plain = re.sub(r"[^0-9A-Za-z_.-]+", "-", name)
    return re.sub(r"\.\.+", ".", plain).strip("-.")[:LONGEST_NAME] or "unnamed"


def first_words(error: BaseException) -> str:
    """What another library's error says in its first sentence, for a sentence of ours."""
    told = (str(error).strip().splitlines() or [""])[0].partition(". ")[0].rstrip(".")
    return told[:160] or type(error).__name__


def unfit_torchvision(library: str, error: Exception) -> MissingExtraError:
    """What to say when a library fails because torchvision was built for another torch."""
    return MissingExtraError(
        f"{library} needs a torchvision built for this torch ({first_words(error)}); install it from where torch came "
        "from: pip install torchvision --index-url https://download.pytorch.org/whl/cpu"
    )


def stride_of(x: Tensor, size: Size) -> int | None:
    """Pixels per place of a map B C h w of an input of `size`; 0 of a vector; None where places lie unevenly."""
    return 0 if x.ndim == 2 else even_stride((int(x.shape[-2]), int(x.shape[-1])), size)


def even_stride(places: Size, size: Size) -> int | None:
    """Pixels per place where a map has `places` of an input of `size`, of which a convolution may miss or add one.

    A power of two where it does not divide: 9 places of 260 pixels are 32 apart and not 29, and strides of one network
    must fit into each other. None where places lie unevenly.
    """
    exact, rest = divmod(size[0], places[0])
    if not rest and exact * places[1] == size[1]:
        return exact
    wanted = size[0] / places[0]
    powers = sorted((1 << exponent for exponent in range(12)), key=lambda power: abs(power - wanted))
    for stride in (*powers, round(wanted)):
        if stride and all(abs(edge // stride - count) <= 1 for edge, count in zip(size, places, strict=True)):
            return stride
    return None


def chosen(asked: Sequence[str] | None, default: Iterable[str], known: Sequence[str], name: str) -> tuple[str, ...]:
    """Names of levels: those asked for by name or by index, else the default.

    An index counts blocks or stages, or else all that is known; negative: from the end.
    Raises ModelError naming the nearest level.
    """
    counted = [level for level in known if re.fullmatch(r"(block|stage)\d+", level)] or list(known)
    if asked is None:
        return tuple(default)
    found: list[str] = []
    for item in map(str, asked):
        if item in known:
            found.append(item)
        elif re.fullmatch(r"-?\d{1,6}", item) and -len(counted) <= int(item) < len(counted):
            found.append(counted[int(item)])
        else:
            raise ModelError(f"{name} has no layer {item!r}; {_few(item, known)}")
    return tuple(dict.fromkeys(found))


def _few(name: str, known: Sequence[str]) -> str:
    """The nearest name, or the first and last of many."""
    clause = nearest(name, known)
    if clause.startswith("did you") or len(known) <= 12:
        return clause
    return f"there are {len(known)}, from {', '.join(known[:4])} to {', '.join(known[-3:])}"
