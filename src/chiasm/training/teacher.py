"""MobileNetV2, trained on ImageNet, as a teacher: what it finds in a picture, and its blocks to begin from.

A TFLite file (quantised, 224 x 224), read with LiteRT (extra `teacher`). Only training needs it.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.errors import ConfigError, MissingExtraError
from chiasm.heads.trunk import InvertedResidual, Trunk

EDGE = 224  # pixels of the picture that it sees
FIRST = 3  # of its blocks that a trunk has
# Maps that a trunk has too, at H/4 to H/32: part of the tensor's name, its channels and its edge.
LEVELS = (
    ("expanded_conv_2/add", 24, 56),
    ("expanded_conv_5/add", 32, 28),
    ("expanded_conv_12/add", 96, 14),
    ("expanded_conv_16/project", 320, 7),
)


class Layer(NamedTuple):
    """One convolution with its norm folded in. weight: as torch's Conv2d has it."""

    weight: Tensor
    bias: Tensor


class Teacher:
    """MobileNetV2 1.0 224 in its quantised TFLite form."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigError when the file is no such network, MissingExtraError without LiteRT."""
        try:
            library = importlib.import_module("ai_edge_litert.interpreter")
        except ImportError as error:
            raise MissingExtraError('a teacher is read with LiteRT: pip install "chiasm[tflite]"') from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it thinks that inner maps are for debugging only
                self.network = library.Interpreter(str(file), experimental_preserve_all_tensors=True, num_threads=2)
            self.network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            told = (str(error) or "an unreadable file").splitlines()[0]
            raise ConfigError(f"{file}: expected MobileNetV2 1.0 224 as a TFLite file, got {told}") from error
        self.file = file
        self.entry = self.network.get_input_details()[0]["index"]
        self.details = {detail["index"]: detail for detail in self.network.get_tensor_details()}
        self.levels = [self._named(part, (1, edge, edge, channels)) for part, channels, edge in LEVELS]

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """sRGB, B 3 H W in [0, 1], to float32 B 24 56 56, B 32 28 28, B 96 14 14 and B 320 7 7."""
        small = pixels.float().cpu()
        if small.shape[-2:] != (EDGE, EDGE):
            small = F.interpolate(small, (EDGE, EDGE), mode="bilinear", antialias=True, align_corners=False)
        values = (small.clamp(0, 1) * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        each: list[list[Tensor]] = [[] for _ in self.levels]
        for picture in values:
            self.network.set_tensor(self.entry, picture[None])
            self.network.invoke()
            for found, level in zip(each, self.levels, strict=True):
                found.append(self._value(level).permute(0, 3, 1, 2))
        return [torch.cat(found) for found in each]

    def blocks(self) -> list[list[Layer]]:
        """Expansion, depthwise convolution and projection of each block from `FIRST` on."""
        layers = [op for op in self.network._get_ops_details() if "CONV_2D" in op["op_name"]]  # in order, from Conv on
        first = 1 + 2 + 3 * (FIRST - 1)  # Conv; block 0 has no expansion
        chosen = [self._layer(op["inputs"][1], op["inputs"][2]) for op in layers[first:]]
        count = len(layers[first:-2]) // 3  # the last two are Conv_1 and the classifier
        return [chosen[3 * index : 3 * index + 3] for index in range(count)]

    def _named(self, part: str, shape: tuple[int, ...]) -> int:
        for index, detail in self.details.items():
            if part in detail["name"] and tuple(detail["shape"]) == shape:
                return int(index)
        raise ConfigError(f"{self.file}: expected MobileNetV2 1.0 224, got a network without a map {part} of {shape}")

    def _value(self, index: int) -> Tensor:
        """A tensor in plain numbers: values are (code - zero) x scale."""
        scale, zero = self.details[index]["quantization"]
        found: Tensor = (torch.from_numpy(self.network.get_tensor(index)).float() - zero) * scale
        return found

    def _layer(self, weight: int, bias: int) -> Layer:
        taken = self._value(weight)  # outputs h w inputs; 1 h w channels of a depthwise convolution
        depthwise = taken.shape[0] == 1 and taken.shape[1] == 3
        return Layer(taken.permute(3, 0, 1, 2) if depthwise else taken.permute(0, 3, 1, 2), self._value(bias))


@torch.no_grad()
def endow(trunk: Trunk, teacher: Teacher, pixels: Tensor) -> None:
    """Give a trunk the teacher's blocks, with norms that change nothing for pictures like `pixels`, B 3 H W.

    A norm gets the statistics of what reaches it from these pictures, and their inverse as its factors: the blocks
    answer as the teacher's do, and learn on as networks with norms learn. Raises ConfigError when blocks do not fit.
    """
    blocks = [part for part in trunk.stages.modules() if isinstance(part, InvertedResidual)]
    taught = teacher.blocks()
    if len(taught) != len(blocks):
        raise ConfigError(f"{teacher.file}: expected {len(blocks)} blocks from number {FIRST} on, got {len(taught)}")
    hooks = []
    for block, layers in zip(blocks, taught, strict=True):
        parts = (block.expand, block.depthwise, block.project)
        for part, layer in zip(parts, layers, strict=True):
            cast(nn.Conv2d, part[0]).weight.copy_(layer.weight)
            hooks.append(part[1].register_forward_pre_hook(_neutral(layer.bias)))
    was = trunk.training
    x = teacher(pixels)[0]
    trunk.stages.eval()
    for stage in trunk.stages:
        x = stage(x)
    trunk.train(was)
    for hook in hooks:
        hook.remove()


def _neutral(bias: Tensor) -> Any:
    def set_up(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)

    return set_up


def unexplained(own: Tensor, taught: Tensor) -> Tensor:
    """The share of a map's variance, B C H W, that another does not explain, averaged over channels: a scalar."""
    error = (own.float() - taught).square().mean(dim=(0, 2, 3))
    variance = taught.var(dim=(0, 2, 3))
    return (error / variance.clamp_min(0.01 * variance.mean())).mean()
