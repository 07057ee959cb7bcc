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
import torch.nn.functional as F
from PIL import Image

from chiasm import models
from chiasm.contracts import TaskSpec
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.runtime import Runtime
from chiasm.heads.linear import LinearHead
from chiasm.training.recipes.head import fresh_head, spec_of
from chiasm.training.stored import PipelineReader, items_of, seen, stored_for

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


VIEWS = ("native", "longest:112", "longest:280", "square:112", "square:50", "square:61", "square:400")


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("view", VIEWS)
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


@pytest.mark.parametrize("view", VIEWS)
def test_a_label_is_laid_where_features_of_its_place_are(tmp_path: Path, picture: Path, view: str) -> None:
    model: Any = models.Model(f"onnx:{means(tmp_path / 'net.onnx', True)}", view=view)
    labels = tmp_path / "labels"
    labels.mkdir()
    depth = 60000 * (COLUMNS[None] + ROWS[:, None]) / 2
    Image.fromarray(depth.round().astype(np.uint16)).save(labels / "ramp.png")
    runtime = Runtime.chosen("cpu", "float32")
    with Pipeline.of(model, store=tmp_path / "s.lance", writable=True, runtime=runtime) as pipeline:
        pipeline.encode([picture], workers=0)
        pictures = [(record.key, record.uris, record.size) for record in pipeline.store.scan({})]
        head = fresh_head(pipeline.space, spec_of("depth", []), "linear")
        items = items_of(pictures, labels, head.tasks[0])
        stored = stored_for(head, PipelineReader(pipeline, whole=True), pipeline.space, items)
        stored.metres_per_unit = 1 / 60000
        features, target, valid = stored[0]
    count = 0
    for level in pipeline.space.levels:
        cells, known = (F.avg_pool2d(x, level.stride) for x in (target, valid.float()))  # whole cells alone
        height, width = cells.shape[-2:]
        maps = features[level.name][:, :1, :height, :width].float()
        error = (maps - cells).abs()[known == 1]
        assert float(error.max()) < 0.006
        count += len(error)
    assert count > 150


@pytest.mark.parametrize("size", [(90, 150), (66, 1100), (701, 93)])
def test_a_picture_of_any_size_is_seen_by_heads_where_its_labels_are(tmp_path: Path, size: tuple[int, int]) -> None:
    """Waves that half a cell's error would put out of phase, drawn from what heads of ns-1 see of a large picture."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([np.sin(x / 9), np.sin(y / 7), np.sin((x + y) / 11)], -1) * 0.35 + 0.5
    pixels = (waves * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "waves.png")
    with Pipeline.load("ns-rgb", store=tmp_path / "s.lance", writable=True, precision="float32") as pipeline:
        pipeline.encode([tmp_path / "waves.png"], workers=0, quality=8)
        (key,) = pipeline.keys()
        features, view, found = PipelineReader(pipeline, whole=False).features(key, ("context", "detail"))
        drawn = pipeline.drawing(features)[0]
    assert found == size
    assert max(view.size) <= 504
    label = torch.from_numpy(pixels).permute(2, 0, 1) / 255.0
    target, valid = seen(label, torch.ones(size, dtype=torch.bool), view, "mean")
    assert drawn.shape == target.shape
    assert float((drawn - target).abs()[:, valid].mean()) < 0.02
