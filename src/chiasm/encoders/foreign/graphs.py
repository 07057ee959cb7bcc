"""What graphs in a file (ONNX, TFLite) share: which of their tensors are levels, and how pixels are scaled for them.

    4 axes       a map, B C h w, or B h w C where the input is B H W 3; 1 x 1 places: a vector
    3 axes       tokens B N D of a square input: a map NAME, with NAME_cls and NAME_registers before it
    2 axes       a vector

A file NAME.json beside NAME.onnx or NAME.tflite says how pixels in [0, 1] are scaled: {"mean": [0.5, 0.5, 0.5],
"std": [0.5, 0.5, 0.5], "order": "bgr"}; every key may be left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.contracts import Level, Size
from chiasm.encoders.foreign.network import Preprocessing, chosen, even_stride, plain_name
from chiasm.errors import ConfigError, ModelError
from chiasm.features import tokens


@dataclass(frozen=True)
class Part:
    """One tensor of a graph as levels. channels_last: it is B h w C. stride: pixels per place, 0 for a vector."""

    tensor: str
    level: str
    axes: int
    channels: int
    stride: int
    prefix: int
    channels_last: bool

    @staticmethod
    def of(tensor: str, x: Tensor, size: Size, channels_last: bool, source: str) -> Part:
        """From what the tensor is for an input of `size`. Raises ModelError when it is neither map nor vector."""
        level, shape = level_name(tensor), tuple(x.shape)
        if x.ndim == 4:
            channels, height = (shape[3], shape[1]) if channels_last else (shape[1], shape[2])
            width = shape[2] if channels_last else shape[3]
            stride = 0 if height * width == 1 else even_stride((height, width), size)
            if stride is not None:
                return Part(tensor, level, 4, channels, stride, 0, channels_last)
        if x.ndim == 2:
            return Part(tensor, level, 2, shape[1], 0, 0, channels_last)
        places = tokens.square_size(shape[1]) if x.ndim == 3 and size[0] == size[1] else None
        if places is not None:
            prefix = shape[1] - places[0] * places[1]
            return Part(tensor, level, 3, shape[2], round(size[0] / places[0]), prefix, channels_last)
        raise ModelError(
            f"{source}: tensor {tensor!r} has shape {' x '.join(map(str, shape))} for {size[0]} x {size[1]} pixels, "
            "which is no map, tokens of a square or vector; name another with --layers"
        )

    @property
    def levels(self) -> list[Level]:
        found = [Level(self.level, self.channels, self.stride)]
        if self.prefix:
            found.append(Level(f"{self.level}_cls", self.channels, 0))
        if self.prefix > 1:
            found.append(Level(f"{self.level}_registers", self.channels * (self.prefix - 1), 0))
        return found

    def read(self, x: Tensor, size: Size) -> dict[str, Tensor]:
        """The tensor's levels for an input of `size`."""
        if self.axes == 2 or not self.stride:
            return {self.level: x.flatten(1)}
        if self.axes == 4:
            return {self.level: x.permute(0, 3, 1, 2).contiguous() if self.channels_last else x}
        prefix, found = tokens.split(x, (size[0] // self.stride, size[1] // self.stride))
        named = [prefix[:, 0]] if self.prefix else []
        named += [prefix[:, 1:].flatten(1)] if self.prefix > 1 else []
        return dict(zip([level.name for level in self.levels], [found, *named], strict=True))


def parts_of(found: Mapping[str, Tensor], size: Size, channels_last: bool, source: str) -> list[Part]:
    """Parts of tensors by name. Raises ModelError for a tensor that is no level, or names that are one when plain."""
    parts = [Part.of(name, x, size, channels_last, source) for name, x in found.items()]
    names = [level.name for part in parts for level in part.levels]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ModelError(f"{source}: two tensors would be level {double[0]!r}; ask for one of them")
    return parts


def tensors(asked: Sequence[str] | None, outputs: Sequence[str], inner: Sequence[str], source: str) -> list[str]:
    """Names of tensors: those asked for, by name or index of an output; None: the outputs. Raises ModelError."""
    plain = {level_name(name): name for name in (*inner, *outputs)}
    if asked is None:
        return list(outputs)
    named = [plain.get(str(item), str(item)) for item in asked]
    indices = [item for item in named if item.lstrip("-").isdigit() and item not in plain.values()]
    known = list(outputs) if len(indices) == len(named) else [*outputs, *(x for x in inner if x not in outputs)]
    return list(chosen(named, outputs, known, source))


def preprocessing_beside(file: Path, default: Preprocessing) -> Preprocessing:
    """What NAME.json says, else the default. Raises ConfigError for a file that says something else."""
    beside = file.with_suffix(".json")
    if not beside.is_file():
        return default
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
        mean, std = (
            tuple(map(float, found.get(key, (neutral,) * 3))) for key, neutral in (("mean", 0.0), ("std", 1.0))
        )
        order = found.get("order", "rgb")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _no_preprocessing(beside, str(error)) from error
    if set(found) - set(_KEYS) or len(mean) != 3 or len(std) != 3 or order not in ("rgb", "bgr") or min(std) <= 0:
        raise _no_preprocessing(beside, json.dumps(found)[:100])
    return Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), order)


_KEYS = ("mean", "std", "order")
PRECISION = "graph"  # numbers are as wide as the file says, and the digest of the file is in the id
LONGEST = 48  # letters of a tensor's name in that of its level, before _registers


def _no_preprocessing(file: Path, came: str) -> ConfigError:
    return ConfigError(
        f'{file} says how pixels are scaled: expected three numbers "mean", three above 0 "std" and "order" rgb or '
        f"bgr, got {came}; mend or move it"
    )


def level_name(tensor: str) -> str:
    """A short plain name: without the ending that PyTorch's export adds, the end of a long one."""
    return plain_name(tensor.removesuffix("_output_0"))[-LONGEST:].lstrip("-.")


def file_digest(files: Sequence[Path]) -> str:
    """SHA-256 of the bytes of files, one after the other."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def checked(file: Path, library: str) -> Path:
    """The file. Raises ModelError when there is none."""
    if not file.is_file():
        raise ModelError(f"there is no file {file}; {library}:FILE needs one that exists")
    return file


def numpy_of(x: Tensor) -> Any:
    return x.detach().cpu().contiguous().numpy()


def whole(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Levels of pictures that ran one by one, as one batch."""
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}
