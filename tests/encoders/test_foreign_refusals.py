"""Foreign encoders: one sentence for every name, file, licence and network that cannot be had."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from chiasm.contracts import Level
from chiasm.encoders import catalogue, foreign
from chiasm.encoders.foreign import keymaps, weights
from chiasm.encoders.foreign.network import KNOWN, ForeignEncoder, Opened, plain_name, space_name
from chiasm.errors import MissingExtraError, ModelError, ShapeError

SENTENCE = r"[^\n]{20,600}$"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet18", "expected timm:NAME"),
        ("tim:resnet18", "did you mean 'timm'"),
        ("timm:", "expected timm:NAME"),
        ("onnx:none.onnx", "no file none.onnx"),
        ("tflite:none.tflite", "no file none.tflite"),
    ],
)
def test_a_name_that_is_none(name: str, told: str) -> None:
    with pytest.raises(ModelError, match=SENTENCE) as caught:
        foreign.load(name)
    assert told in str(caught.value)


def test_an_unknown_model_of_timm() -> None:
    pytest.importorskip("timm", reason='timm is not installed: pip install "chiasm[timm]"')
    with pytest.raises(ModelError, match=r"timm has no model 'resnet81'; did you mean 'resnet\d+"):
        foreign.load("timm:resnet81")
    with pytest.raises(ModelError, match=r"timm\.list_models\(\) gives the \d+"):
        foreign.load("timm:qqqqqq")


@pytest.mark.parametrize(
    ("library", "line"),
    [
        ("timm", 'pip install "chiasm[timm]"'),
        ("transformers", 'pip install "chiasm[transformers]"'),
        ("onnx", 'pip install "chiasm[onnx]"'),
        ("ai_edge_litert", 'pip install "chiasm[tflite]"'),
    ],
)
def test_a_library_that_is_not_installed(
    library: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    short = {"transformers": "hf", "ai_edge_litert": "tflite"}.get(library, library)
    (tmp_path / "net").touch()
    with pytest.raises(MissingExtraError, match=SENTENCE) as caught:
        foreign.load(f"{short}:{tmp_path / 'net'}")
    assert line in str(caught.value)


def test_a_torchvision_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *given: Any, **named: Any) -> Any:
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(
        MissingExtraError, match=r"torchvision built for this torch \(operator torchvision::nms.*--index"
    ):
        foreign.load("timm:resnet18")


@pytest.mark.usefixtures("_offline")
def test_without_a_network_the_sentence_asks_for_weights() -> None:
    pytest.importorskip("timm", reason='timm is not installed: pip install "chiasm[timm]"')
    with pytest.raises(ModelError, match=r"weights of timm:test_resnet cannot be fetched.*pass --weights"):
        foreign.load("timm:test_resnet")


@pytest.mark.usefixtures("_offline")
def test_without_a_network_a_configuration_cannot_be_had(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason='transformers is not installed: pip install "chiasm[transformers]"')
    with pytest.raises(ModelError, match=r"configuration of hf:facebook/dinov2-small cannot be read.*config\.json"):
        foreign.load("hf:facebook/dinov2-small")
    with pytest.raises(ModelError, match=r"is no folder with a config\.json"):
        foreign.load(f"hf:{tmp_path}")


def test_weights_that_do_not_fit(untrained: Any, tmp_path: Path) -> None:
    state = load_file(untrained("test_resnet"))
    save_file({name: x for name, x in state.items() if not name.startswith("layer2")}, tmp_path / "less.safetensors")
    told = r"of \d+ tensors \d+ are missing and 0 have another shape, first 'layer2\.0.*' \(expected .*, got nothing\)"
    with pytest.raises(ModelError, match=told):
        foreign.load("timm:test_resnet", weights=tmp_path / "less.safetensors")
    with pytest.raises(ModelError, match=r"0 are missing|\d+ are missing and \d+ have another shape, first"):
        foreign.load("timm:test_resnet", weights=untrained("test_convnext"))
    first = next(name for name, x in state.items() if x.ndim == 4)
    save_file(state | {first: torch.zeros(7, 3, 3, 3)}, tmp_path / "wide.safetensors")
    with pytest.raises(
        ModelError, match=rf"0 are missing and 1 have another shape, first '{first}' .*got 7 x 3 x 3 x 3"
    ):
        foreign.load("timm:test_resnet", weights=tmp_path / "wide.safetensors")
    save_file(state | {first: state[first] * float("nan")}, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"1 of \d+ tensors hold NaN or infinity, first"):
        foreign.load("timm:test_resnet", weights=tmp_path / "nan.safetensors")


def test_weights_of_transformers_that_do_not_fit(saved: Any, tmp_path: Path) -> None:
    state = load_file(saved("dinov2") / "model.safetensors")
    save_file({name: x for name, x in state.items() if ".layer.1." not in name}, tmp_path / "less.safetensors")
    with pytest.raises(
        ModelError, match=r"of \d+ tensors 18 are missing and 0 have another shape, first 'encoder\.layer\.1"
    ):
        foreign.load(f"hf:{saved('dinov2')}", weights=tmp_path / "less.safetensors")
    other = {name: x[..., :16] if name == "embeddings.cls_token" else x for name, x in state.items()}
    save_file({name: x.contiguous() for name, x in other.items()}, tmp_path / "narrow.safetensors")
    with pytest.raises(ModelError, match=r"0 are missing and 1 have another shape, first 'embeddings\.cls_token'"):
        foreign.load(f"hf:{saved('dinov2')}", weights=tmp_path / "narrow.safetensors")
    save_file({f"backbone.{name}": x for name, x in state.items()}, tmp_path / "inside.safetensors")
    inside = foreign.load(f"hf:{saved('dinov2')}", weights=tmp_path / "inside.safetensors")
    assert inside.space.name == foreign.load(f"hf:{saved('dinov2')}").space.name


def test_a_network_that_masks_at_random_is_refused(tmp_path: Path) -> None:
    reason = 'transformers is not installed: pip install "chiasm[transformers]"'
    library = pytest.importorskip("transformers", reason=reason)
    width = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = library.ViTMAEConfig(**width, image_size=64, patch_size=16, mask_ratio=0.0)
    library.AutoModel.from_config(config).save_pretrained(tmp_path / "mae")
    with pytest.raises(ModelError, match=r"ViTMAEModel gives other features each time, .*; name another network"):
        foreign.load(f"hf:{tmp_path / 'mae'}")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there are no weights at"):
        weights.read(tmp_path / "none.pth")
    with pytest.raises(ModelError, match="holds no weights; expected a file that ends with"):
        weights.read(tmp_path)
    (tmp_path / "text.pth").write_text("nothing")
    with pytest.raises(ModelError, match=r"text\.pth cannot be read as weights"):
        weights.read(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="holds a list, not a state dict"):
        weights.read(tmp_path / "list.pth")
    torch.save({"state_dict": {"x": torch.ones(2)}, "note": 5}, tmp_path / "list.pth")
    assert list(weights.read(tmp_path / "list.pth")) == ["x"]


class Spy:
    """What unpickles to a call: that of a function which must not run."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (Path.write_text, (Path("ran"), "yes"))  # type: ignore[return-value]


def test_code_in_a_state_dict_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"x": torch.ones(2)}, "spy": Spy()}, tmp_path / "spy.pth")
    with pytest.raises(ModelError, match=r"spy\.pth cannot be read as weights"):
        weights.read(tmp_path / "spy.pth")
    assert not (tmp_path / "ran").exists()


def test_efficientnet_pytorch_keys(untrained: Any, tmp_path: Path) -> None:
    """Names of the package EfficientNet-PyTorch, whose Lite models timm has too, give the same features."""
    import timm

    state = load_file(untrained("tf_efficientnet_lite0"))
    depths = [len(stage) for stage in timm.create_model("tf_efficientnet_lite0").blocks]
    renamed = {_their_name(name, depths): x for name, x in state.items()}
    assert "_blocks.3._expand_conv.weight" in renamed
    assert keymaps.is_efficientnet_pytorch(renamed)
    assert {name: id(x) for name, x in keymaps.efficientnet_pytorch(renamed, depths).items()} == {
        name: id(x) for name, x in state.items()
    }
    save_file(renamed, tmp_path / "theirs.safetensors")
    theirs = foreign.load("timm:tf_efficientnet_lite0", weights=tmp_path / "theirs.safetensors")
    own = foreign.load("timm:tf_efficientnet_lite0", weights=untrained("tf_efficientnet_lite0"))
    assert theirs.space.name == own.space.name
    assert theirs.id != own.id  # (x - 127) / 128, not (x - 127.5) / 127.5


def _their_name(name: str, depths: list[int]) -> str:
    """timm's name of a tensor to that of EfficientNet-PyTorch, written out once more, the other way."""
    parts = name.split(".")
    if parts[0] != "blocks":
        known = {
            "conv_stem": "_conv_stem",
            "bn1": "_bn0",
            "conv_head": "_conv_head",
            "bn2": "_bn1",
            "classifier": "_fc",
        }
        return ".".join([known[parts[0]], *parts[1:]])
    stage, index = int(parts[1]), int(parts[2])
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    number = sum(depths[:stage]) + index
    return ".".join([f"_blocks.{number}", (first if number == 0 else later)[parts[3]], *parts[4:]])


def test_a_licence_that_binds_is_accepted_once(saved: Any, tmp_path: Path) -> None:
    told = r"DINOv3 License \(https://\S+\), which binds.*catalogue\.accept\('dinov3'\)"
    with pytest.raises(ModelError, match=told):
        foreign.load(f"hf:{saved('dinov3')}")
    assert foreign.accept("timm:vit_small_patch16_dinov3") == "dinov3"
    foreign.load(f"hf:{saved('dinov3')}")
    kept = json.loads((tmp_path / "config" / "chiasm" / "licences.json").read_text())
    assert list(kept) == ["dinov3"]
    with pytest.raises(ModelError, match="NVIDIA"):
        catalogue.check("hf:nvidia/C-RADIOv2-B")
    with pytest.raises(ModelError, match="'resnet18' has no licence that must be accepted"):
        foreign.accept("resnet18")
    (tmp_path / "config" / "chiasm" / "licences.json").write_text("{")
    with pytest.raises(ModelError, match="DINOv3"):
        catalogue.check("hf:facebook/dinov3-vits16")


def test_licences_that_a_library_names() -> None:
    catalogue.check("timm:resnet18", "apache-2.0")
    with pytest.raises(ModelError, match=r"under the cc-by-nc-4\.0, which binds"):
        catalogue.check("timm:resnet18", "cc-by-nc-4.0")
    catalogue.accept("cc-by-nc-4.0")
    catalogue.check("timm:resnet18", "cc-by-nc-4.0")


def test_the_catalogue() -> None:
    names = [family.name for family in catalogue.FAMILIES]
    assert len(names) == len(set(names)) >= 12
    for family in catalogue.FAMILIES:
        assert catalogue.family(family.example or family.name) is family, family.example
        assert family.licence
        assert family.parameters
        assert family.url.startswith("https://") or not family.binding
    assert sum(family.binding for family in catalogue.FAMILIES) >= 3


def test_names_of_spaces() -> None:
    digest = "0123456789abcdef"
    assert space_name("timm:tf_efficientnet_lite2", digest) == "timm-tf_efficientnet_lite2-01234567"
    assert space_name("hf:facebook/dinov2-small", digest) == "hf-facebook-dinov2-small-01234567"
    assert space_name("hf:/home/me/my net/", digest) == "hf-my-net-01234567"
    assert space_name("onnx:vit.onnx", digest) == "onnx-vit-01234567"
    assert len(space_name("hf:" + "x" * 300, digest)) <= 63
    assert plain_name("../../a b") == "a-b"
    assert plain_name("///") == "unnamed"


@pytest.mark.parametrize("step", [3, 5, 100])
def test_maps_whose_places_are_not_those_of_their_stride_are_refused(step: int) -> None:
    """Networks without padding lose places at every border: of a small picture so many that nobody could read them."""

    def run(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"maps": x[..., step // 2 :: step, step // 2 :: step]}

    opened = Opened("timm:net", 8 * "0", (Level("maps", 3, 4),), 4, 1, run, KNOWN["unit"], "square:8")
    encoder = ForeignEncoder(opened, None, torch.device("cpu"), None)
    assert step == 100 or encoder(torch.rand(1, 3, 8, 8))["maps"].shape[2] in (2, 3)
    places = len(range(step // 2, 40, step))
    with pytest.raises(ShapeError, match=f"gives {places} x {places} places of 'maps' for 40 x 40 pixels, .* 10 x 10;"):
        encoder(torch.rand(1, 3, 40, 40))
