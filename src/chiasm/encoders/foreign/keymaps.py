"""Names of tensors in other people's files to those of the library that runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from chiasm.errors import MissingExtraError

# EfficientNet-PyTorch's names to timm's: outside of blocks, in blocks with an expansion, and in those without.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3", "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand",
}  # fmt: skip
_FIRST = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
    "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand",
}  # fmt: skip


def is_efficientnet_pytorch(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of the package EfficientNet-PyTorch and its descendants (Lite among them)."""
    return "_conv_stem.weight" in state and "_conv_head.weight" in state


def efficientnet_pytorch(state: Mapping[str, Tensor], depths: Sequence[int]) -> dict[str, Tensor]:
    """To timm's names. depths: how many blocks each of timm's stages has."""
    places = [f"blocks.{stage}.{index}" for stage, depth in enumerate(depths) for index in range(depth)]
    found: dict[str, Tensor] = {}
    for name, x in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if block is None:
            layer, _, rest = name.partition(".")
            found[f"{_OUTSIDE.get(layer, layer)}.{rest}"] = x
        elif int(block[1]) < len(places):
            names = _EXPANDED if f"_blocks.{block[1]}._expand_conv.weight" in state else _FIRST
            found[f"{places[int(block[1])]}.{names.get(block[2], block[2])}.{block[3]}"] = x
    return found


def initialisers(file: Path) -> dict[str, Tensor]:
    """Weights of a network that PyTorch exported to ONNX, under the names that they had in PyTorch.

    Export renames the weights of linear layers (`onnx::MatMul_1966`) and transposes them; their nodes keep the names
    of the modules, `/encoder/layer.0/fc1/MatMul`. Position embeddings of DINOv2 are cut in two, for the class token and
    the patches, and lose their names: they are joined again.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError('reading ONNX needs onnx; pip install "chiasm[onnx]"') from error
    graph = onnx.load(str(file)).graph
    found = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    for node in graph.node:
        if node.op_type not in {"MatMul", "Gemm"} or len(node.input) < 2 or "::" not in node.input[1]:
            continue
        weight = found.get(node.input[1])
        if weight is not None and weight.ndim == 2:
            module = node.name.strip("/").rsplit("/", 1)[0].replace("/", ".")
            found[f"{module}.weight"] = weight.T.contiguous()
    _join_positions(found)
    return found


def _join_positions(found: dict[str, Tensor]) -> None:
    """Put `position_embeddings` beside a class token that lost them."""
    for name in [name for name in found if name.endswith("cls_token")]:
        whole = name.removesuffix("cls_token") + "position_embeddings"
        loose = [
            x for key, x in found.items() if "::" in key and x.ndim == 3 and x.shape[::2] == found[name].shape[::2]
        ]
        first, rest = ([x for x in loose if (x.shape[1] == 1) is alone] for alone in (True, False))
        if whole not in found and len(first) == 1 and len(rest) == 1:
            found[whole] = torch.cat([first[0], rest[0]], dim=1)
