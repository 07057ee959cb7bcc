"""Where things lie: a ramp that is encoded, stored and answered is the same ramp at the picture's own pixels.

    picture ─► view ─► means of cells ─► store ─► head that copies them ─► answer, H x W
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import models
from chiasm.contracts import TaskSpec
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.runtime import Runtime
from chiasm.heads.linear import LinearHead

ONNX = 'onnx is not installed: pip install "chiasm[onnx]"'
SIZE = (90, 150)
ROWS, COLUMNS = ((np.arange(n) + 0.5) / n for n in SIZE)


def means(path: Path, up: bool) -> Path:
    """A graph of the means of cells of 4, 8 and 14 pixels, whose sizes it rounds up or down."""
    onnx = pytest.importorskip("onnx", reason=ONNX)
    pytest.importorskip("onnxruntime", reason=ONNX)
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    nodes = [
        onnx.helper.make_node(
            "AveragePool", ["pixels"], [f"means{n}"], kernel_shape=[n, n], strides=[n, n], ceil_mode=int(up)
        )
        for n in (4, 8, 14)
    ]
    outputs = [value(f"means{n}", kind, ["b", 3, f"h{n}", f"w{n}"]) for n in (4, 8, 14)]
    graph = onnx.helper.make_graph(nodes, "net", [value("pixels", kind, ["b", 3, "h", "w"])], outputs)
    opset = [onnx.helper.make_opsetid("", 19)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    path.with_suffix(".json").write_text(json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1]}))
    return path


def copying(pipeline: Pipeline, level: str, also: str) -> LinearHead:
    """A head that answers how red a level is."""
    reads = tuple(dict.fromkeys((level, also)))
    head = LinearHead(pipeline.space, (TaskSpec("red", 1, "probability"),), reads)
    torch.nn.init.zeros_(head.last[0].weight)
    torch.nn.init.zeros_(head.last[0].bias)
    head.last[0].weight.data[0, 0] = 1.0  # of the first level's first channel
    return head.eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Red grows to the right, and as much downwards."""
    red = 255 * (COLUMNS[None] + ROWS[:, None]) / 2
    Image.fromarray(np.stack([red.round().astype(np.uint8)] * 3, -1)).save(tmp_path / "ramp.png")
    return tmp_path / "ramp.png"


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("view", ["native", "longest:112", "longest:280", "square:112", "square:50", "square:61"])
def test_an_answer_lies_where_the_encoder_saw_the_picture(tmp_path: Path, picture: Path, view: str, up: bool) -> None:
    model: Any = models.Model(f"onnx:{means(tmp_path / 'net.onnx', up)}", view=view)
    runtime = Runtime.chosen("cpu", "float32")
    with Pipeline.of(model, store=tmp_path / "s.lance", writable=True, runtime=runtime) as pipeline:
        assert [level.stride for level in pipeline.space.levels] == [4, 8, 14]
        assert pipeline.encode([picture], workers=0).stored == 1
        (key,) = pipeline.keys()
        for level in pipeline.space.levels:
            # The last cell may be a part of one, or missing; half a cell from each border there is nothing to go by.
            scale = min(pipeline.reading(key).views[level.name].scale)
            edge = int(np.ceil(2 * level.stride / scale))
            inside = tuple(slice(edge, n - edge) for n in SIZE)
            wanted = ((COLUMNS[None] + ROWS[:, None]) / 2)[inside]
            assert wanted.size > 500 or view in ("square:50", "square:61")
            for also in (level.name, "means4"):
                answer = pipeline.predict(key, head=copying(pipeline, level.name, also))["red"].values
                assert answer.shape == SIZE
                found = np.log(answer / (1 - answer))[inside]
                assert np.abs(found - wanted).max(initial=0) < 0.006, (level.name, also)  # under a pixel
