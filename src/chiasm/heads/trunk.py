"""What heads for classes, depth, normals and edges have in common: maps at four scales from stored features.

    context ─┬─ entry, H/4 ─► MobileNetV2's blocks 3 to 16: H/8 ──► H/16 ──► H/32 ─► + what the whole picture is
    detail  ─┘      │                                        │        │        │
                  fine                            coarse ◄── fuse ◄── fuse ◄───┘      top-down sums (FPN, 1612.03144)

The space holds what the picture looks like within some 24 pixels; what things are takes far more around them. The
blocks are those of MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), shapes and padding too, so that they can begin
as what ImageNet taught them once the entry has learnt to give them what their first blocks would have: see
`training.recipes.trunk`.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from chiasm.features.plane import double

FINE = 64  # channels at H/4
ENTRY = 24  # of what enters the blocks
STAGES = ((32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))  # channels, blocks, stride of the first
SEEN = (0, 2, 4)  # stages whose maps are the last of their size
EXPANSION = 6
COARSE = 128  # channels of the top-down sums
CODED = 0.03  # deviation of the codec's error at quality 6, in channels of the space
M = TypeVar("M", bound=nn.Module)


def convolution(inputs: int, outputs: int, edge: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU; a stride of 2 halves even sizes."""
    layer = nn.Conv2d(inputs, outputs, edge, stride, (edge - 1) // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def folded(module: M) -> M:
    """A copy for inference whose BatchNorms have become part of the convolutions before them."""
    copied = copy.deepcopy(module).eval()
    for part in list(copied.modules()):
        if isinstance(part, Block) and isinstance(part.norm, nn.BatchNorm2d):
            part.second, part.norm = fuse_conv_bn_eval(part.second, part.norm), nn.Identity()
        elif isinstance(part, nn.Sequential) and len(part) > 1 and isinstance(part[1], nn.BatchNorm2d):
            assert isinstance(part[0], nn.Conv2d)
            part[0], part[1] = fuse_conv_bn_eval(part[0], part[1]), nn.Identity()
        elif isinstance(part, nn.ReLU | nn.ReLU6):
            part.inplace = True  # what it is given is a convolution's answer, which nobody else reads
    return copied.requires_grad_(False)


def standard(channels: int) -> nn.BatchNorm2d:
    """Channels of a space to a mean of 0 and a variance of at most 1, without anything to learn.

    What is coarse is hundreds of times as large there as edges are. A channel that varies less than the codec's error
    stays small, or the head would listen to what is gone once features are coded.
    """
    return nn.BatchNorm2d(channels, eps=CODED**2, momentum=0.02, affine=False)


class Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))): two 3x3 convolutions at one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)
        self.norm: nn.Module = norm  # until it is folded

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1 to six times the channels, 3x3 on each by itself, 1x1 back; added where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * inputs
        self.stride, self.adds = stride, stride == 1 and inputs == outputs
        depthwise = nn.Conv2d(inner, inner, 3, stride, 1 if stride == 1 else 0, groups=inner, bias=False)
        self.expand = nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6())
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(inner), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """B c H W to B c' H/stride W/stride; H and W are even when the stride is 2."""
        inner = self.expand(x)
        if self.stride == 2:
            inner = F.pad(inner, (0, 1, 0, 1))  # as TensorFlow pads even sizes
        answer: Tensor = self.project(self.depthwise(inner))
        return x + answer if self.adds else answer


class Trunk(nn.Module):
    """Maps at H/4 and H/8 that have seen the whole picture, from `context` and `detail`."""

    def __init__(self, context: int, detail: int) -> None:
        super().__init__()
        self.standard = nn.ModuleList([standard(context), standard(detail)])
        self.deep = convolution(context, 48, 1)
        self.shallow = convolution(detail, 48, 3, 2)
        self.stem = nn.Sequential(convolution(96, FINE, 1), Block(FINE), Block(FINE))
        self.entry = nn.Conv2d(FINE, ENTRY, 1)
        width, stages = ENTRY, []
        for outputs, count, stride in STAGES:
            blocks = [InvertedResidual(width if not i else outputs, outputs, 1 if i else stride) for i in range(count)]
            stages.append(nn.Sequential(*blocks))
            width = outputs
        self.stages = nn.ModuleList(stages)
        self.whole = nn.Sequential(nn.Linear(width, COARSE), nn.ReLU(), nn.Linear(COARSE, COARSE))
        self.top = nn.Conv2d(width, COARSE, 1)
        self.across = nn.ModuleList([nn.Conv2d(STAGES[stage][0], COARSE, 1) for stage in SEEN[:-1]])
        self.smooth = nn.ModuleList([convolution(COARSE, COARSE), convolution(COARSE, COARSE)])

    def bottom_up(self, context: Tensor, detail: Tensor) -> tuple[Tensor, list[Tensor]]:
        """B C H/4 W/4 and B C H/2 W/2 to `fine`, B 64 H/4 W/4, and B 24 H/4, B 32 H/8, B 96 H/16, B 320 H/32."""
        context, detail = (norm(x) for norm, x in zip(self.standard, (context, detail), strict=True))
        fine = self.stem(torch.cat([self.deep(context), self.shallow(detail)], dim=1))
        x = self.entry(fine)
        maps = [x]
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in SEEN:
                maps.append(x)
        return fine, maps

    def forward(self, context: Tensor, detail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same to B 64 H/4 W/4, B 128 H/8 W/8 and the whole picture's B 128. H and W: multiples of 32."""
        fine, (_, eighth, sixteenth, last) = self.bottom_up(context, detail)
        whole: Tensor = self.whole(last.mean(dim=(2, 3)))
        coarse = F.relu(self.top(last) + whole[:, :, None, None])
        for across, smooth, x in zip(reversed(self.across), self.smooth, (sixteenth, eighth), strict=True):
            coarse = smooth(double(coarse) + across(x))
        return fine, coarse, whole
