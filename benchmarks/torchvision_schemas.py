"""Lets timm and transformers be imported beside a torch for CPUs alone, where torchvision's wheel is compiled for CUDA.

    python -c "import timm"     RuntimeError: operator torchvision::nms does not exist

Both import torchvision and use none of its operators here, so naming them is enough. For scripts and tests only:
users install a torchvision that was built for their torch.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch

_KEPT: list[torch.library.Library] = []  # operators live as long as their library


def define() -> None:
    """Name the operators of torchvision, if it is there and they have no names yet."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    text = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    names = {"nms", *re.findall(r'register_meta\("(\w+)"', text), *re.findall(r"torchvision::(\w+)", text)}
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(names):
        library.define(f"{name}(Tensor x) -> Tensor")
    _KEPT.append(library)
