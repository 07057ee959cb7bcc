"""Graphs in ONNX files, run by ONNX Runtime: `onnx:FILE`.

Levels are the graph's outputs or any tensor within it, by name: it is made an output. Weights in files beside the graph
are found. A graph whose input has numbers for height and width reads that size only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.contracts import Size
from chiasm.encoders import catalogue
from chiasm.encoders.foreign import graphs
from chiasm.encoders.foreign.network import KNOWN, Opened, first_words
from chiasm.errors import MissingExtraError, ModelError

DYNAMIC = 224  # pixels at which a graph of any size is tried, and which its default view is
_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}
_FOLDER = "session.model_external_initializers_file_folder_path"


def open_onnx(file: Path, layers: Sequence[str] | None, device: torch.device) -> Opened:
    """The graph, ready to run. Raises ModelError for a file, layer or operator that cannot be used."""
    name = f"onnx:{graphs.checked(file, 'onnx').name}"
    catalogue.check(name)
    model, external = _model(file)
    graph = model.graph
    weights = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    outputs, inner = [item.name for item in graph.output], [x for node in graph.node for x in node.output if x]
    names = graphs.tensors(layers, outputs, inner, name)
    run = Running(_session(file, model, names, device), names, _input(inputs, name), device)
    size = run.fixed or (DYNAMIC, DYNAMIC)
    try:
        found = run.tensors(torch.zeros(1, 3, *size, device=device))
    except RuntimeError as error:
        raise ModelError(
            f"{name} does not run on one picture of {size[0]} x {size[1]} pixels ({error}); export it for batches of "
            "any size, or of one, and with height and width both free or both fixed"
        ) from error
    run.parts = graphs.parts_of(found, size, run.channels_last, name)
    levels = tuple(level for part in run.parts for level in part.levels)
    grid = max([level.stride for level in levels] + [1])
    default = KNOWN["unit" if run.dtype == torch.uint8 else "imagenet"]
    return Opened(
        name=name,
        digest=graphs.file_digest([file, *external]),
        levels=levels,
        grid=grid,
        multiple=grid if any(part.axes == 3 for part in run.parts) else 1,
        run=run,
        preprocessing=graphs.preprocessing_beside(file, default),
        view=f"square:{size[0]}",
        fixed=run.fixed,
        precision=graphs.PRECISION,
    )


def _model(file: Path) -> tuple[Any, list[Path]]:
    """The graph without the weights that lie in other files, and those files."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data
    except ImportError as error:
        raise MissingExtraError('onnx:FILE needs onnx and onnxruntime; pip install "chiasm[onnx]"') from error
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # its parser fails in ways of its own
        raise ModelError(f"{file} cannot be read as ONNX ({first_words(error)}); export it again") from error
    places = {ExternalDataInfo(item).location for item in model.graph.initializer if uses_external_data(item)}
    external = [file.parent / place for place in sorted(places)]
    for path in external:
        if not path.is_file() or file.parent.resolve() not in path.resolve().parents:
            raise ModelError(f"{file} needs its weights in {path}, which is not there; put both into one folder")
    return model, external


def _session(file: Path, model: Any, names: Sequence[str], device: torch.device) -> Any:
    import onnx
    import onnxruntime

    have = {item.name for item in model.graph.output}
    for name in names:
        if name not in have:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes want the cores
    options.add_session_config_entry(_FOLDER, str(file.resolve().parent))
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [x for x in (*wanted, "CPUExecutionProvider") if x in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # operators of other makers, opsets too new, graphs that contradict themselves
        own = sorted({node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx", "ai.onnx.ml")})
        way = f"it uses operators of {', '.join(own)}; export it without them" if own else "export it again"
        raise ModelError(f"ONNX Runtime cannot run {file} ({first_words(error)}); {way}") from error


def _input(inputs: Sequence[Any], name: str) -> tuple[str, list[int]]:
    """Name and shape of the picture input, 0 for an axis of any length."""
    shapes = {item.name: [int(d.dim_value) for d in item.type.tensor_type.shape.dim] for item in inputs}
    if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4:
        raise ModelError(
            f"{name} reads {len(inputs)} inputs ({', '.join(f'{k} {v}' for k, v in shapes.items())}); expected one "
            "picture B 3 H W or B H W 3, export it so"
        )
    (found,) = shapes.items()
    if 3 not in (found[1][1], found[1][3]) and found[1][1] and found[1][3]:
        raise ModelError(f"{name} reads {found[1]}; expected three channels, B 3 H W or B H W 3, export it so")
    return found


class Running:
    """Normalised pixels to the levels of a graph."""

    def __init__(self, session: Any, names: Sequence[str], given: tuple[str, list[int]], device: torch.device) -> None:
        self.session, self.names, self.device = session, list(names), device
        self.input, shape = given
        self.channels_last = shape[3] == 3 and shape[1] != 3
        height, width = shape[1:3] if self.channels_last else shape[2:4]
        self.fixed: Size | None = (height, width) if height and width else None
        self.single = shape[0] == 1
        kind = session.get_inputs()[0].type
        if kind not in _TYPES:
            raise ModelError(f"the graph reads {kind}; expected float, float16 or uint8 pixels, export it so")
        self.dtype = _TYPES[kind]
        self.parts: list[graphs.Part] = []

    def tensors(self, x: Tensor) -> dict[str, Tensor]:
        """The named tensors, float32, of a batch that the graph takes at once. Raises RuntimeError for another size."""
        pixels = x.permute(0, 2, 3, 1) if self.channels_last else x
        if self.dtype == torch.uint8:
            pixels = (pixels * 255).round().clamp(0, 255)
        try:
            found = self.session.run(self.names, {self.input: graphs.numpy_of(pixels.to(self.dtype))})
        except Exception as error:  # its errors have no base of their own
            raise RuntimeError(first_words(error)) from error
        return {
            name: torch.from_numpy(value).float().to(self.device) for name, value in zip(self.names, found, strict=True)
        }

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        if self.single and len(x) > 1:
            return graphs.whole([self(each[None]) for each in x])
        size, found = (int(x.shape[2]), int(x.shape[3])), self.tensors(x)
        return {name: level for part in self.parts for name, level in part.read(found[part.tensor], size).items()}
