"""A head as a file: safetensors whose metadata says what it answers, of which space, and how the network is made.

A file is enough to run a head: nothing else names its classes or units. Weights are held in half precision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from chiasm.contracts import Space, TaskSpec, Unit
from chiasm.errors import ModelError
from chiasm.heads.denoise import DenoiseHead
from chiasm.heads.dense import ClassifyHead, DenseHead

KEY = "chiasm.head"
VERSIONS = {"denoise": 1, "dense": 3, "classify": 3}  # of each kind of network
HeadModule = DenoiseHead | DenseHead | ClassifyHead

_MAKE: Mapping[str, Callable[[Space, Mapping[str, Any], tuple[TaskSpec, ...]], HeadModule]] = {
    "denoise": lambda spec, made, tasks: DenoiseHead(spec, int(made["width"])),
    "dense": lambda spec, made, tasks: DenseHead(spec, tasks, bool(made["exchange"])),
    "classify": lambda spec, made, tasks: ClassifyHead(spec, tasks),
}


def write_head(head: HeadModule) -> bytes:
    """The file of a head, fp16; the inverse of `read_head`."""
    made: dict[str, object]
    if isinstance(head, DenoiseHead):
        made = {"kind": "denoise", "width": head.body.trunk[0].out_channels}
    elif isinstance(head, DenseHead):
        made = {"kind": "dense", "exchange": head.exchange is not None}
    else:
        made = {"kind": "classify"}
    told = {"version": VERSIONS[str(made["kind"])], "space": head.space}
    about = {**told, "tasks": [asdict(task) for task in head.tasks], **made}
    held = {name: _halved(x) for name, x in head.state_dict().items()}
    return save(held, {KEY: json.dumps(about)})


def _halved(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().cpu()
    return (x.half() if x.is_floating_point() else x).clone(memory_format=torch.contiguous_format)


def about_head(data: bytes, where: str) -> dict[str, Any]:
    """What a head's file says of itself. Raises ModelError, naming `where`, when it is no head of this version."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        about: dict[str, Any] = json.loads(header["__metadata__"][KEY])
        version, kind, _, _ = about["version"], about["kind"], about["space"], about["tasks"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{where} is no head (its header has no {KEY!r}); `chiasm train head` writes them") from error
    if not isinstance(kind, str) or version != VERSIONS.get(kind):
        known = ", ".join(f"{name} {number}" for name, number in VERSIONS.items())
        raise ModelError(
            f"{where} holds a head of kind {kind!r}, version {version!r}; this chiasm reads {known}, so train it again"
        )
    return about


def read_head(data: bytes, spec: Space, where: str) -> HeadModule:
    """The head in a file, float32, in evaluation mode, for features of the space of `spec`.

    Raises ModelError, naming `where`, for another file, a head of another space, or weights that do not fit.
    """
    about = about_head(data, where)
    if about["space"] != spec.name:
        raise ModelError(
            f"{where} reads space {about['space']!r}, these features are of {spec.name!r}; train one for it"
        )
    try:
        tasks = tuple(TaskSpec(**{**task, "classes": tuple(task["classes"])}) for task in about["tasks"])
        held = load(data)
        _check(tasks, about, max(max(x.shape, default=1) for x in held.values()))
        with torch.random.fork_rng(devices=[]):
            head = _MAKE[about["kind"]](spec, about, tasks)
        head.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in held.items()})
    except (SafetensorError, RuntimeError, TypeError, LookupError, ValueError, OverflowError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise ModelError(f"{where} does not hold the head that it describes ({told}); fetch it again") from error
    return head.eval().requires_grad_(False)


def _check(tasks: tuple[TaskSpec, ...], about: Mapping[str, Any], most: int) -> None:
    """Raise ValueError for what no head of ours says of itself. most: the longest side of its weights."""
    for task in tasks:
        if task.unit not in get_args(Unit) or not task.name.isidentifier():
            raise ValueError(f"task {task.name!r} in {task.unit!r} is none that a head answers")
        if not 0 < task.channels <= most or (task.classes and len(task.classes) != task.channels):
            raise ValueError(f"task {task.name!r} has {task.channels} channels and {len(task.classes)} classes")
    if not 0 < int(about.get("width", 1)) <= most:
        raise ValueError(f"its width is not {about['width']}")
