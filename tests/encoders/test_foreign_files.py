"""Networks in files (ONNX, TFLite): levels are outputs and inner tensors, as their runtimes and torch compute them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chiasm.encoders import foreign
from chiasm.encoders.foreign import keymaps
from chiasm.errors import ConfigError, ModelError, ShapeError
from chiasm.flow.runtime import Runtime
from chiasm.flow.see import Eye

ONNX = 'onnx is not installed: pip install "chiasm[onnx]"'
TFLITE = 'LiteRT is not installed: pip install "chiasm[tflite]"'


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


WEIGHT, CLASS_TOKEN, MATRIX = drawn(8, 3, 4, 4), drawn(1, 1, 8), drawn(8, 5)


def onnx_file(path: Path, size: tuple[Any, Any] = ("h", "w"), batch: Any = "b", external: bool = False) -> Path:
    """Patches of 4 pixels by convolution, tokens with a class token before them, and five logits."""
    onnx = pytest.importorskip("onnx", reason=ONNX)
    pytest.importorskip("onnxruntime", reason=ONNX)
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Conv", ["pixels", "weight"], ["/stem/Conv_output_0"], name="/stem/Conv", strides=[4, 4]),
        node("Relu", ["/stem/Conv_output_0"], ["maps"], name="/stem/Relu"),
        node("Reshape", ["maps", "flat"], ["flattened"]),
        node("Transpose", ["flattened"], ["patches"], perm=[0, 2, 1]),
        node("Shape", ["pixels"], ["batch"], start=0, end=1),
        node("Concat", ["batch", "ones"], ["several"], axis=0),
        node("Expand", ["cls_token", "several"], ["cls_tokens"]),
        node("Concat", ["cls_tokens", "patches"], ["tokens"], axis=1),
        node("GlobalAveragePool", ["maps"], ["pooled"]),
        node("Flatten", ["pooled"], ["vector"]),
        node("MatMul", ["vector", "onnx::MatMul_7"], ["logits"], name="/classifier/MatMul"),
    ]
    weights = [
        onnx.numpy_helper.from_array(x, name)
        for name, x in {
            "weight": WEIGHT.numpy(), "cls_token": CLASS_TOKEN.numpy(), "onnx::MatMul_7": MATRIX.numpy(),
            "flat": np.array([0, 8, -1]), "ones": np.array([1, 1]),
        }.items()
    ]  # fmt: skip
    given = [tensor("pixels", onnx.TensorProto.FLOAT, [batch, 3, *size])]
    given_out = [tensor("logits", onnx.TensorProto.FLOAT, [batch, 5])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "net", given, given_out, weights),
        opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save_model(model, str(path), save_as_external_data=external, location="net.data", size_threshold=64)
    return path


def imagenet(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(("size", "batch"), [(("h", "w"), "b"), ((32, 32), 1)])
def test_outputs_and_inner_tensors_of_onnx(tmp_path: Path, size: Any, batch: Any, external: bool) -> None:
    file = onnx_file(tmp_path / "net.onnx", size, batch, external)
    encoder = foreign.load(f"onnx:{file}", layers=["stem-Conv", "maps", "tokens", "vector", "0"])
    assert encoder.space.names == ("stem-Conv", "maps", "tokens", "tokens_cls", "vector", "logits")
    assert [(level.channels, level.stride) for level in encoder.space.levels] == [
        (8, 4), (8, 4), (8, 4), (8, 0), (8, 0), (5, 0)
    ]  # fmt: skip
    assert encoder.space.name == f"onnx-net-{encoder.id.split('@')[1][:8]}"
    assert str(tmp_path) not in encoder.id
    pixels = torch.rand(3, 3, 32, 32)
    found = encoder(pixels)
    stem = F.conv2d(imagenet(pixels), WEIGHT, stride=4)
    wanted = {
        "stem-Conv": stem, "maps": stem.relu(), "tokens": stem.relu(), "tokens_cls": CLASS_TOKEN[0].expand(3, 8),
        "vector": stem.relu().mean((2, 3)), "logits": stem.relu().mean((2, 3)) @ MATRIX,
    }  # fmt: skip
    assert set(found) == set(wanted)
    for level, x in wanted.items():
        assert torch.allclose(found[level], x, atol=1e-4), level
    other = torch.rand(2, 3, 20, 36)
    if batch == 1:
        assert encoder.view == "square:32"
        with pytest.raises(
            ShapeError, match=r"reads pictures of 32 x 32 pixels only, got 20 x 36 pixels; use the view"
        ):
            encoder(other)
        with pytest.raises(ConfigError, match=r"only, got the view longest:32; use the view square:32"):
            foreign.load(f"onnx:{file}", view="longest:32")
    else:
        assert torch.allclose(encoder(other)["tokens"], F.conv2d(imagenet(other), WEIGHT, stride=4).relu(), atol=1e-4)


def test_by_default_the_outputs_and_preprocessing_from_the_file_beside(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "net.onnx")
    first = foreign.load(f"onnx:{file}")
    assert first.space.names == ("logits",)
    (tmp_path / "net.json").write_text(json.dumps({"mean": [0, 0, 0], "std": [0.5, 1, 1], "order": "bgr"}))
    second = foreign.load(f"onnx:{file}", layers=["maps"])
    assert second.space.name == first.space.name
    assert second.id != first.id
    pixels = torch.rand(1, 3, 16, 16)
    wanted = F.conv2d(pixels.flip(1) / torch.tensor([0.5, 1, 1]).view(1, 3, 1, 1), WEIGHT, stride=4).relu()
    assert torch.allclose(second(pixels)["maps"], wanted, atol=1e-4)
    for wrong in ("[1]", '{"mean": [1, 2]}', '{"std": [0, 1, 1]}', '{"scale": 255}', '{"order": "hsv"}', "{"):
        (tmp_path / "net.json").write_text(wrong)
        with pytest.raises(ConfigError, match=r"net\.json says how pixels are scaled: expected three numbers"):
            foreign.load(f"onnx:{file}")


def test_onnx_that_cannot_be_used(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "net.onnx", external=True)
    with pytest.raises(ModelError, match="has no layer 'token'; did you mean 'tokens'"):
        foreign.load(f"onnx:{file}", layers=["token"])
    with pytest.raises(ModelError, match=r"'batch' has shape 1 .* no map, tokens of a square or vector"):
        foreign.load(f"onnx:{file}", layers=["batch"])
    with pytest.raises(ModelError, match="holds its own weights"):
        foreign.load(f"onnx:{file}", weights=file)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match=r"needs its weights in .*net\.data, which is not there"):
        foreign.load(f"onnx:{file}")
    with pytest.raises(ModelError, match=r"no file .*no\.onnx"):
        foreign.load(f"onnx:{tmp_path / 'no.onnx'}")
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"bad\.onnx cannot be read as ONNX|cannot run"):
        foreign.load(f"onnx:{tmp_path / 'bad.onnx'}")


def cells(path: Path, shape: tuple[Any, ...], kind: str = "FLOAT", first: tuple[Any, ...] = ()) -> Path:
    """A graph of the means of cells of 4 pixels. first: nodes from `pixels` to `numbers`."""
    onnx = pytest.importorskip("onnx", reason=ONNX)
    pytest.importorskip("onnxruntime", reason=ONNX)
    value, make = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    nodes = [make(name, ["pixels"], ["numbers"], **options) for name, options in first]
    nodes.append(make("AveragePool", ["numbers" if first else "pixels"], ["maps"], kernel_shape=[4, 4], strides=[4, 4]))
    given = [value("pixels", getattr(onnx.TensorProto, kind), list(shape))]
    graph = onnx.helper.make_graph(nodes, "net", given, [value("maps", onnx.TensorProto.FLOAT, list("ncxy"))])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


def test_graphs_that_read_bytes_get_bytes_whatever_is_beside_them(tmp_path: Path) -> None:
    file = cells(tmp_path / "net.onnx", ("b", 3, "h", "w"), "UINT8", (("Cast", {"to": 1}),))
    pixels = torch.randint(0, 256, (2, 3, 8, 8)) / 255
    assert torch.allclose(foreign.load(f"onnx:{file}")(pixels)["maps"], F.avg_pool2d(pixels * 255, 4), atol=1e-3)
    (tmp_path / "net.json").write_text('{"order": "bgr"}')
    found = foreign.load(f"onnx:{file}")(pixels)["maps"]
    assert torch.allclose(found, F.avg_pool2d(pixels.flip(1) * 255, 4), atol=1e-3)


@pytest.mark.parametrize("shape", [("b", 3, 32, "w"), (4, 3, 32, 32)])
def test_onnx_that_takes_no_single_picture_of_any_size_is_refused(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    file = cells(tmp_path / "net.onnx", shape)
    with pytest.raises(ModelError, match=r"does not run on one picture of .*Got invalid dimensions.*; export it for"):
        foreign.load(f"onnx:{file}")


def test_what_onnx_runtime_cannot_do_with_a_size_is_a_sentence(tmp_path: Path) -> None:
    file = cells(tmp_path / "net.onnx", ("b", 3, "h", "w"), first=(("SpaceToDepth", {"blocksize": 2}),))
    with pytest.raises(ShapeError, match=r"net\.onnx does not run on 9 x 64 pixels \(.*\); its own view is square:224"):
        foreign.load(f"onnx:{file}")(torch.rand(1, 3, 9, 64))


def test_threads_that_share_a_graph_of_tflite_do_not_share_pictures(tmp_path: Path) -> None:
    encoder = foreign.load(f"tflite:{tflite_file(tmp_path / 'net.tflite', True)}", layers=["inner/maps"])
    pictures = [torch.full((1, 3, 32, 32), share / 8) for share in range(8)]
    wanted = [encoder(x)["inner-maps"] for x in pictures]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda index: encoder(pictures[index % 8])["inner-maps"], range(400)))
    assert all(torch.equal(x, wanted[index % 8]) for index, x in enumerate(found))


def test_operators_of_other_makers_are_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason=ONNX)
    file = onnx_file(tmp_path / "net.onnx")
    model = onnx.load(str(file))
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, str(file))
    with pytest.raises(ModelError, match=r"it uses operators of com\.example; export it without them"):
        foreign.load(f"onnx:{file}")


def test_weights_of_an_onnx_file_have_the_names_they_had_in_torch(tmp_path: Path) -> None:
    found = keymaps.initialisers(onnx_file(tmp_path / "net.onnx"))
    assert torch.equal(found["classifier.weight"], MATRIX.T)
    assert torch.equal(found["weight"], WEIGHT)
    onnx = pytest.importorskip("onnx", reason=ONNX)
    model = onnx.load(str(tmp_path / "net.onnx"))
    for name, x in {"onnx::Concat_1": drawn(1, 1, 8), "onnx::Reshape_2": drawn(1, 9, 8)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(x.numpy(), name))
    onnx.save(model, str(tmp_path / "positions.onnx"))
    found = keymaps.initialisers(tmp_path / "positions.onnx")
    assert torch.equal(found["position_embeddings"], torch.cat([drawn(1, 1, 8), drawn(1, 9, 8)], dim=1))


def tflite_file(path: Path, signed: bool) -> Path:
    """A quantised graph: means of 4 x 4 pixels, then the mean of all."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason=TFLITE)
    flatbuffers = pytest.importorskip("flatbuffers", reason=TFLITE)
    kind = schema.TensorType.INT8 if signed else schema.TensorType.UINT8

    def tensor(name: str, shape: list[int]) -> Any:
        found = schema.TensorT()
        found.name, found.shape, found.type, found.buffer = name, shape, kind, 0
        found.quantization = schema.QuantizationParametersT()
        found.quantization.scale, found.quantization.zeroPoint = [1 / 128], [0 if signed else 128]
        return found

    def pool(given: int, out: int, edge: int) -> Any:
        found = schema.OperatorT()
        found.opcodeIndex, found.inputs, found.outputs = 0, [given], [out]
        found.builtinOptionsType, options = schema.BuiltinOptions.Pool2DOptions, schema.Pool2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.filterWidth = options.filterHeight = edge
        found.builtinOptions = options
        return found

    code, graph, model = schema.OperatorCodeT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.AVERAGE_POOL_2D
    code.version = 2 if signed else 1
    graph.tensors = [tensor("pixels", [1, 32, 32, 3]), tensor("inner/maps", [1, 8, 8, 3]), tensor("mean", [1, 1, 1, 3])]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [pool(0, 1, 4), pool(1, 2, 8)]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize("signed", [False, True])
def test_integers_of_tflite_are_numbers(tmp_path: Path, signed: bool) -> None:
    file = tflite_file(tmp_path / "net.tflite", signed)
    encoder = foreign.load(f"tflite:{file}", layers=["inner/maps", "mean"])
    assert [(level.name, level.channels, level.stride) for level in encoder.space.levels] == [
        ("inner-maps", 3, 4), ("mean", 3, 0)
    ]  # fmt: skip
    assert encoder.view == "square:32"
    pixels = torch.rand(3, 3, 32, 32)
    found = encoder(pixels)
    wanted = F.avg_pool2d((pixels * 255 - 128) / 128, 4)
    assert (found["inner-maps"] - wanted).abs().max() < 1.5 / 128
    assert (found["mean"] - wanted.mean((2, 3))).abs().max() < 1.5 / 128
    assert torch.equal(encoder(pixels[1:2])["mean"], found["mean"][1:2])
    assert foreign.load(f"tflite:{file}").space.names == ("mean",)
    with pytest.raises(ShapeError, match="32 x 32 pixels only"):
        encoder(torch.rand(1, 3, 64, 64))


def test_ids_say_in_which_precision_features_were_computed(tmp_path: Path, saved: Any) -> None:
    """Graphs compute as they were written, torch's networks as they are run or were asked to be."""
    pixels, seen = torch.rand(1, 3, 32, 32), 0
    graphs = {
        "onnx": foreign.load(f"onnx:{onnx_file(tmp_path / 'net.onnx')}", layers=["maps"]),
        "tflite": foreign.load(f"tflite:{tflite_file(tmp_path / 'net.tflite', True)}"),
    }
    networks = {
        dtype: foreign.load(f"hf:{saved('resnet')}", dtype=dtype) for dtype in (None, torch.bfloat16, torch.float32)
    }
    for encoder, words in (
        *((graph, ("graph", "graph")) for graph in graphs.values()),
        (networks[None], ("fp32", "bf16")),
        (networks[torch.float32], ("fp32", "bf16")),
        (networks[torch.bfloat16], ("bf16", "bf16")),
    ):
        eyes = [Eye({"rgb": encoder}, Runtime.chosen("cpu", name)) for name in ("float32", "bfloat16")]
        assert [eye.id("rgb") for eye in eyes] == [f"{encoder.id}/{word}" for word in words]
        first, second = (eye.pixels(pixels) for eye in eyes)
        alike = all(torch.equal(x, second[level]) for level, x in first.items())
        assert alike == (words[0] == words[1])
        seen += 1
    assert seen == 5


def test_tflite_that_cannot_be_used(tmp_path: Path) -> None:
    file = tflite_file(tmp_path / "net.tflite", False)
    with pytest.raises(ModelError, match="has no layer 'inner/map'; did you mean 'inner/maps'"):
        foreign.load(f"tflite:{file}", layers=["inner/map"])
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="LiteRT cannot run"):
        foreign.load(f"tflite:{file}")
