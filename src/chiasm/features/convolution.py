"""Convolutions for inference: one that adds another map and clips at zero in the same pass over memory.

    x ──► convolution ──► + plus ──► ReLU ──►        oneDNN does all three on an x86 processor; elsewhere three steps

An addition or a ReLU reads and writes a whole map to do next to nothing; beside 3x3 convolutions of 64 channels they
took a third of the time. Factors before and after a convolution are folded into its weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fused(nn.Module):
    """A convolution with fixed weights in the given dtype; without gradients.

    weight: C_out C_in k k. bias: C_out, or None. relu: whether the result is clipped at zero.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0, relu: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().clone(memory_format=torch.channels_last))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.stride, self.padding, self.relu = stride, padding, relu

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """x: B C_in H W in the dtype of the weights, channels last. Returns B C_out h w.

        plus: B C_out h w, channels last, added before the ReLU. It is overwritten with what is returned: a map of its
        own for the result costs as much time as adding.
        """
        if x.device.type == "cpu" and in_one_pass(x.dtype):
            shape = [self.padding] * 2, [self.stride] * 2, [1, 1], 1
            given, after = (x, self.weight, self.bias), "relu" if self.relu else "none"
            if plus is None:
                alone: Tensor = torch.ops.mkldnn._convolution_pointwise(*given, *shape, after, [], "")
                return alone
            last = "relu" if self.relu else None
            torch.ops.mkldnn._convolution_pointwise_.binary(
                plus, x, self.weight, self.bias, *shape, "add", 1.0, last, [], None
            )
            return plus
        found = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if plus is not None:
            found = plus.add_(found)
        return found.relu_() if self.relu else found


def in_one_pass(dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this processor, adds and clips within a convolution of that dtype."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def fused(layer: nn.Conv2d, relu: bool = False, reads: Tensor | float = 1.0, gives: Tensor | float = 1.0) -> Fused:
    """The layer's inference form. reads: factors of what it reads, C_in. gives: factors of what it returns, C_out."""
    weight, bias = layer.weight.detach(), layer.bias
    after = torch.as_tensor(gives, dtype=weight.dtype).expand(len(weight))
    before = torch.as_tensor(reads, dtype=weight.dtype).expand(weight.shape[1])
    weight = after[:, None, None, None] * weight * before[:, None, None]
    return Fused(weight, None if bias is None else after * bias.detach(), layer.stride[0], int(layer.padding[0]), relu)


class FusedResidual(nn.Module):
    """x + conv(relu(conv(relu(x)))), then a ReLU where `relu` says so."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.first, self.second = fused(first, relu=True), fused(second, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """x: B C H W, channels last, overwritten with what is returned."""
        found: Tensor = self.second(self.first(F.relu(x)), x)
        return found
