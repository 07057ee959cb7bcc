"""Graphs in TFLite files, run by LiteRT on the CPU: `tflite:FILE`.

Levels are the graph's outputs or any tensor within it, by name. Integers are turned into numbers by the tensor's scale
and zero point. The graph reads the size that it was made for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chiasm.contracts import Size
from chiasm.encoders import catalogue
from chiasm.encoders.foreign import graphs
from chiasm.encoders.foreign.network import KNOWN, Opened, first_words
from chiasm.errors import MissingExtraError, ModelError


def open_tflite(file: Path, layers: Sequence[str] | None) -> Opened:
    """The graph, ready to run. Raises ModelError for a file or layer that cannot be used."""
    name = f"tflite:{graphs.checked(file, 'tflite').name}"
    catalogue.check(name)
    plain = _interpreter(file, inner=False)
    outputs = [str(item["name"]) for item in plain.get_output_details()]
    inner = _inner(plain)
    names = graphs.tensors(layers, outputs, inner, name)
    within = any(item not in outputs for item in names)
    run = Running(_interpreter(file, inner=True) if within else plain, names, name)
    run.parts = graphs.parts_of(run.tensors(torch.zeros(1, 3, *run.size)), run.size, True, name)
    levels = tuple(level for part in run.parts for level in part.levels)
    return Opened(
        name=name,
        digest=graphs.file_digest([file]),
        levels=levels,
        grid=max([level.stride for level in levels] + [1]),
        multiple=1,
        run=run,
        preprocessing=graphs.preprocessing_beside(file, KNOWN["unit" if run.takes_bytes else "half"]),
        view=f"square:{run.size[0]}",
        fixed=run.size,
        precision=graphs.PRECISION,
    )


def _interpreter(file: Path, inner: bool) -> Any:
    """inner: keep every tensor; the default kernels then run one by one, since fused ones keep none."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtraError('tflite:FILE needs LiteRT; pip install "chiasm[tflite]"') from error
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if inner else OpResolverType.AUTO
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it thinks that inner tensors are for debugging only
            found = Interpreter(
                model_path=str(file),
                num_threads=torch.get_num_threads(),
                experimental_op_resolver_type=kernels,
                experimental_preserve_all_tensors=inner,
            )
        found.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"LiteRT cannot run {file} ({first_words(error)}); convert it again with built-in operators"
        ) from error
    return found


def _inner(interpreter: Any) -> list[str]:
    """Tensors that depend on the picture: those with a leading axis of 1 that hold numbers, in the graph's order."""
    return [
        str(item["name"])
        for item in interpreter.get_tensor_details()
        if item["name"] and len(item["shape"]) in (2, 3, 4) and int(item["shape"][0]) == 1
    ]


class Running:
    """Normalised pixels to the levels of a graph, picture by picture."""

    def __init__(self, interpreter: Any, names: Sequence[str], source: str) -> None:
        self.interpreter = interpreter
        details = interpreter.get_input_details()
        shape = [int(n) for n in details[0]["shape"]]
        if len(details) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise ModelError(
                f"{source} reads {len(details)} inputs, first {shape}; expected one picture 1 H W 3, convert it so"
            )
        self.given = details[0]
        self.lock = Lock()  # an interpreter holds the picture that it computes
        self.size: Size = (shape[1], shape[2])
        by_name = {str(item["name"]): item for item in interpreter.get_tensor_details()}
        by_name |= {str(item["name"]): item for item in interpreter.get_output_details()}
        self.details = {name: by_name[name] for name in names}
        self.parts: list[graphs.Part] = []

    @property
    def takes_bytes(self) -> bool:
        """Whether its input is 8-bit: pixels are then given as they are, 0 to 255 (or 128 less)."""
        return bool(np.dtype(self.given["dtype"]).itemsize == 1)

    def tensors(self, x: Tensor) -> dict[str, Tensor]:
        """The named tensors, float32, of one picture 1 3 H W."""
        pixels: Any = graphs.numpy_of(x.permute(0, 2, 3, 1))
        kind = np.dtype(self.given["dtype"])
        if self.takes_bytes:
            pixels = np.clip(np.rint(pixels * 255), 0, 255) + np.iinfo(kind).min
        with self.lock:
            self.interpreter.set_tensor(self.given["index"], pixels.astype(kind))
            self.interpreter.invoke()
            return {name: self._numbers(item) for name, item in self.details.items()}

    def _numbers(self, item: Any) -> Tensor:
        found = torch.from_numpy(np.array(self.interpreter.get_tensor(item["index"]))).float()
        scale, zero = item["quantization"]
        return (found - zero) * scale if scale else found

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        found = [self._levels(each[None].cpu()) for each in x]
        return {name: level.to(x.device) for name, level in graphs.whole(found).items()}

    def _levels(self, x: Tensor) -> dict[str, Tensor]:
        found = self.tensors(x)
        return {name: level for part in self.parts for name, level in part.read(found[part.tensor], self.size).items()}
