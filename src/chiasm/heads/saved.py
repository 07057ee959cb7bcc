"""A head as a file: safetensors whose metadata says what it answers, of which space, and how the network is made.

A file is enough to run a head: nothing else names its classes or units. Weights are held in half precision. A file of
a stranger's is checked before anything of the size that it states is allocated, and its numbers before they are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from chiasm.contracts import AnswerKind, Space, TaskSpec, Unit
from chiasm.errors import ModelError, ShapeError
from chiasm.heads.classify import ClassifyHead
from chiasm.heads.denoise import DenoiseHead
from chiasm.heads.dense import DenseHead
from chiasm.heads.linear import ConvHead, LinearHead, PooledHead

KEY = "chiasm.head"
VERSIONS = {"denoise": 2, "dense": 4, "classify": 4, "linear": 1, "convolutional": 1, "pooled": 1}  # of each network
HeadModule = DenoiseHead | DenseHead | ClassifyHead | LinearHead | ConvHead | PooledHead
HEADER = 1 << 20  # bytes of a header, at most
MOST = 1 << 28  # bytes of weights, at most
TASKS = 64  # that one head answers, at most
WIDEST = 1 << 16  # channels of a network, or of a task, at most
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of a task: it becomes part of file names
SIZES = {"F16": 2, "F32": 4, "I64": 8}  # bytes of a number

_Make = Callable[[Space, Mapping[str, Any], tuple[TaskSpec, ...]], HeadModule]
_MAKE: Mapping[str, _Make] = {
    "denoise": lambda spec, made, tasks: DenoiseHead(spec, int(made["width"])),
    "dense": lambda spec, made, tasks: DenseHead(spec, tasks, bool(made["exchange"])),
    "classify": lambda spec, made, tasks: ClassifyHead(spec, tasks),
    "linear": lambda spec, made, tasks: LinearHead(spec, tasks, _names(made["reads"])),
    "convolutional": lambda spec, made, tasks: ConvHead(spec, tasks, _names(made["reads"]), int(made["width"])),
    "pooled": lambda spec, made, tasks: PooledHead(spec, tasks, _names(made["reads"])),
}


def write_head(head: HeadModule) -> bytes:
    """The file of a head, fp16; the inverse of `read_head`."""
    made: dict[str, object]
    if isinstance(head, DenoiseHead):
        made = {"kind": "denoise", "width": head.body.trunk[0].out_channels}
    elif isinstance(head, DenseHead):
        made = {"kind": "dense", "exchange": head.exchange is not None}
    elif isinstance(head, ClassifyHead):
        made = {"kind": "classify"}
    elif isinstance(head, ConvHead):
        made = {"kind": "convolutional", "reads": head.reads, "width": head.last[0].in_channels}
    else:
        made = {"kind": "linear" if isinstance(head, LinearHead) else "pooled", "reads": head.reads}
    told = {"version": VERSIONS[str(made["kind"])], "space": head.space}
    about = {**told, "tasks": [asdict(task) for task in head.tasks], **made}
    held = {name: _halved(x, name) for name, x in head.state_dict().items()}
    return save(held, {KEY: json.dumps(about)})


def _halved(x: torch.Tensor, name: str) -> torch.Tensor:
    x = x.detach().cpu()
    whole = name.startswith("standard.") or not x.is_floating_point()  # means may be far larger than deviations
    return (x if whole else x.half()).clone(memory_format=torch.contiguous_format)


def read_file(file: Path) -> bytes:
    """The bytes of a file that may be a head. Raises ModelError when it cannot be read, or is larger than any head."""
    try:
        size = file.stat().st_size
        if not file.is_file() or size > MOST + HEADER:
            what = f"it has {size} bytes" if file.is_file() else "it is no file"
            raise ModelError(f"{file} is no head ({what}); `chiasm train head` writes them")
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}); `chiasm train head` writes such files") from error


def about_head(data: bytes, where: str) -> dict[str, Any]:
    """What a head's file says of itself. Raises ModelError, naming `where`, when it is no head of this version."""
    try:
        about: dict[str, Any] = json.loads(_header(data)["__metadata__"][KEY])
        version, kind, _, _ = about["version"], about["kind"], about["space"], about["tasks"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{where} is no head (its header has no {KEY!r}); `chiasm train head` writes them") from error
    if not isinstance(kind, str) or type(version) is not int or version != VERSIONS.get(kind):
        known = ", ".join(f"{name} {number}" for name, number in VERSIONS.items())
        came = f"of kind {str(kind)[:40]!r}, version {str(version)[:20]!r}"
        raise ModelError(f"{where} holds a head {came}; this chiasm reads {known}, so train it again")
    return about


def read_head(data: bytes, spec: Space, where: str) -> HeadModule:
    """The head in a file, float32, in evaluation mode, for features of the space of `spec`.

    Raises ModelError, naming `where`, for another file, a head of another space, or weights that do not fit.
    """
    about = about_head(data, where)
    if about["space"] != spec.name:
        space = str(about["space"])[:80]
        raise ModelError(
            f"{where} reads space {space!r}, these features are of {spec.name!r}; name that space, or train a head for "
            "this one"
        )
    try:
        held = _weights(data)
        tasks = _tasks(about["tasks"])
        _check_made(about)
        with torch.device("meta"):  # nothing is allocated before the shapes are known to be those of the weights
            head = _MAKE[about["kind"]](spec, about, tasks)
        head.load_state_dict(held, assign=True)
    except (SafetensorError, ShapeError, RuntimeError, TypeError, LookupError, ValueError, OverflowError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise ModelError(f"{where} does not hold the head that it describes ({told}); fetch it again") from error
    return head.eval().requires_grad_(False)


def _header(data: bytes) -> dict[str, Any]:
    """The header of a safetensors file. Raises ValueError when it is too long or too deep."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(HEADER, len(data) - 8):
        raise ValueError(f"its header has {length} bytes")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def _weights(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a file, float32. Raises ValueError for shapes that are not its bytes, or numbers not finite."""
    header = _header(data)
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) - begin > MOST:
        raise ValueError(f"{len(data) - begin} bytes of weights, {MOST} are the most")
    for name, entry in header.items():
        if name != "__metadata__":
            _check_tensor(name[:80], entry, len(data) - begin)
    held = {name: x.float() if x.is_floating_point() else x for name, x in load(data).items()}
    if not held:
        raise ValueError("it has no weights")
    for name, x in held.items():
        if not bool(x.isfinite().all()):
            raise ValueError(f"{name[:80]} holds numbers that are not finite")
    return held


def _check_tensor(name: str, entry: Mapping[str, Any], room: int) -> None:
    """Raise ValueError when a tensor of a header is not what its bytes are."""
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] not in SIZES or len(shape) > 4 or len(offsets) != 2:
        raise ValueError(f"{name} is of another type than weights are")
    if any(type(n) is not int or n < 0 for n in (*shape, *offsets)):
        raise ValueError(f"{name} has sides that are no sizes")
    count = SIZES[entry["dtype"]]
    for side in shape:
        if not side or side > MOST:
            raise ValueError(f"{name} has a side of {side}")
        count *= side
    if not offsets[0] <= offsets[1] <= room or count != offsets[1] - offsets[0]:
        raise ValueError(f"{name} says {count} bytes and has {offsets[1] - offsets[0]}")


def _tasks(told: object) -> tuple[TaskSpec, ...]:
    """The tasks of a header. Raises ValueError for what no head answers."""
    if not isinstance(told, list) or not 0 < len(told) <= TASKS:
        raise ValueError(f"its tasks are not a list of 1 to {TASKS}")
    tasks = []
    for each in told:
        if not isinstance(each, dict) or set(each) != {"name", "channels", "kind", "classes", "unit"}:
            raise ValueError("a task does not say name, channels, kind, classes and unit")
        tasks.append(TaskSpec(each["name"], each["channels"], each["kind"], _names(each["classes"]), each["unit"]))
        check_task(tasks[-1])
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError("two tasks have one name")
    return tuple(tasks)


def check_task(task: TaskSpec) -> None:
    """Raise ValueError for what no head of ours says of a task."""
    if not isinstance(task.name, str) or not NAME.fullmatch(task.name):
        raise ValueError(f"a task is called {str(task.name)[:40]!r}; names are up to 64 letters, digits, - and _")
    if task.kind not in get_args(AnswerKind) or task.unit not in get_args(Unit):
        raise ValueError(f"task {task.name!r} is {str(task.kind)[:40]!r} in {str(task.unit)[:40]!r}, which no head is")
    if (task.kind == "distance") != bool(task.unit):
        raise ValueError(f"task {task.name!r}: a distance has a unit, and nothing else has")
    if type(task.channels) is not int or not 0 < task.channels <= WIDEST:
        raise ValueError(f"task {task.name!r} has {str(task.channels)[:40]} channels")
    wanted = {"distance": 1, "probability": 1, "direction": 3, "picture": 3}.get(task.kind, task.channels)
    named = task.channels if task.kind in ("classes", "label") else 0
    if task.channels != wanted or len(task.classes) != named:
        raise ValueError(f"task {task.name!r} has {task.channels} channels and {len(task.classes)} classes")


def _check_made(about: Mapping[str, Any]) -> None:
    """Raise ValueError for a network that no head of ours is."""
    width = about.get("width", 1)
    if type(width) is not int or not 0 < width <= WIDEST:
        raise ValueError(f"its width is not {str(width)[:40]}")
    if len(_names(about.get("reads", []))) > TASKS:
        raise ValueError(f"it reads more than {TASKS} levels")


def _names(told: object) -> tuple[str, ...]:
    if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
        raise ValueError("a list of names is no list of names")
    return tuple(told)
