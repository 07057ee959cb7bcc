"""Where networks run and in which precision: the only place that knows a device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from chiasm.errors import ConfigError, nearest
from chiasm.flow.threads import Threads

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TAGS = {torch.float32: "fp32", torch.bfloat16: "bf16"}
M = TypeVar("M")


@dataclass(frozen=True)
class Runtime:
    """A device, and the dtype of the convolutions of encoders and of heads that look at whole pictures."""

    device: torch.device
    dtype: torch.dtype

    @staticmethod
    def chosen(device: str = "auto", precision: str = "auto") -> Runtime:
        """device: auto (cuda where there is one), cpu or cuda. precision: auto, float32 or bfloat16.

        auto takes bfloat16 where the processor, or the GPU, computes with it. Raises ConfigError for another word, or
        for cuda where there is none.
        """
        if device.partition(":")[0] not in DEVICES:
            raise ConfigError(f"no device called {device!r}; {nearest(device, DEVICES)}")
        if precision != "auto" and precision not in PRECISIONS:
            raise ConfigError(f"no precision called {precision!r}; {nearest(precision, [*PRECISIONS, 'auto'])}")
        found = torch.cuda.is_available()
        if device.startswith("cuda") and not found:
            raise ConfigError(f"expected a CUDA GPU for device {device!r}, found none; use cpu or auto")
        on = torch.device("cuda" if found else "cpu") if device == "auto" else torch.device(device)
        return Runtime(on, _fast(on) if precision == "auto" else PRECISIONS[precision])

    @property
    def tag(self) -> str:
        """The precision in a word: part of an encoder's id, since features differ by it."""
        return TAGS[self.dtype]

    def threads(self, alone: bool = False) -> Threads:
        """Threads for pictures: several on a CPU, one that feeds a GPU in batches, one where `alone` is asked."""
        return Threads(alone=alone or self.device.type != "cpu")

    def placed(self, module: M) -> M:
        """The module with its weights on the device, a copy where they are on another, since others may use it there.

        What is no module is given back as it is.
        """
        if isinstance(module, nn.Module):
            elsewhere = any(x.device.type != self.device.type for x in module.parameters())
            found = copy.deepcopy(module) if elsewhere else module
            return found.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
        return module

    def run(self, function: Callable[..., Any], *given: Tensor | Mapping[str, Tensor]) -> Any:
        """A network's answer, float32, on the device; its convolutions in `dtype`. given: tensors, or maps of them."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, self.dtype == torch.bfloat16):
            return _floats(function(*(self._sent(each) for each in given)))

    def exact(self, function: Callable[..., Any], *given: Tensor | Mapping[str, Tensor]) -> Any:
        """The same with convolutions in float32, as pictures are drawn."""
        with torch.inference_mode():
            return _floats(function(*(self._sent(each) for each in given)))

    def _sent(self, given: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(given, Mapping):
            return {name: self._one(x) for name, x in given.items()}
        return self._one(given)

    def _one(self, x: Tensor) -> Tensor:
        if self.device.type == "cuda" and x.device.type == "cpu":
            x = x.pin_memory()  # so that the copy runs beside what the GPU computes
        x = x.to(self.device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _fast(device: torch.device) -> torch.dtype:
    """bfloat16 where it is computed with, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return torch.bfloat16 if available and torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _floats(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {name: x.float() for name, x in found.items()}
    return found.float()
