"""What tests of every room need before they import anything."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch

_KEPT: list[torch.library.Library] = []  # operators live as long as their library


def torchvision_schemas() -> None:
    """Name the operators of torchvision, so that it can be imported beside a torch without its compiled part.

    The wheels of the package index are compiled for CUDA. timm and transformers import torchvision, and use none of
    its operators here.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    text = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    names = {"nms", *re.findall(r'register_meta\("(\w+)"', text), *re.findall(r"torchvision::(\w+)", text)}
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(names):
        library.define(f"{name}(Tensor x) -> Tensor")
    _KEPT.append(library)


torchvision_schemas()
