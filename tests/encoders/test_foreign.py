"""Laws of foreign networks: what they declare is true, and they give what their own library gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from chiasm.encoders import foreign
from chiasm.encoders.foreign.network import ForeignEncoder, even_stride
from chiasm.errors import ConfigError, ModelError, ShapeError
from chiasm.features import views

# One network of each family that timm and transformers know, and what it must give.
TIMM = (
    "test_vit",  # a plain vision transformer
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",  # with registers
    "vit_small_patch16_dinov3",  # rotary positions
    "swin_tiny_patch4_window7_224",  # channels last
    "test_convnext",
    "test_resnet",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "tf_efficientnet_lite0",
)


FAMILIES = (
    "vit",
    "dinov2",
    "dinov2-registers",
    "dinov3",
    "siglip",
    "clip",
    "swin",
    "convnext",
    "resnet",
    "mobilenetv2",
)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
M, S = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
SEEN: set[str] = set()


def loaded(name: str, weights: Path | None = None, **options: Any) -> ForeignEncoder:
    if "dinov3" in name:
        foreign.accept("dinov3")
    return foreign.load(name, weights=weights, **options)


def laws(encoder: ForeignEncoder) -> None:
    """On odd pictures, alone and in a batch."""
    grid = encoder.space.grid
    assert encoder.margin is None
    assert encoder.accepts == "rgb"
    for size in ((2 * grid + 3, 3 * grid + 1), (4 * grid, grid + 1)):
        view = views.fit("native", size, grid)
        pixels = views.apply(torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0)), view)
        together, alone = encoder(pixels), encoder(pixels[1:2])
        assert list(together) == list(encoder.space.names)
        for level in encoder.space.levels:
            x = together[level.name]
            places = tuple(n // level.stride for n in view.size) if level.stride else ()
            assert x.shape == (3, level.channels, *places), level
            assert x.dtype == torch.float32
            assert torch.isfinite(x).all()
            scale = float(x.abs().max())
            assert torch.allclose(x[1:2], alone[level.name], atol=1e-4 * scale + 1e-6), level
            assert all(n % 1 == 0 and grid % max(level.stride, 1) == 0 for n in places)


@pytest.mark.parametrize("name", TIMM)
def test_a_network_of_timm(name: str, untrained: Any) -> None:
    import timm

    encoder = loaded(f"timm:{name}", untrained(name))
    laws(encoder)
    assert encoder.space.name.startswith(f"timm-{name}-")
    assert encoder.space.name[-8:] in encoder.id
    own = timm.create_model(name, **({"dynamic_img_size": True} if "vit" in name else {}))
    if "swin" in name:
        own = timm.create_model(name, strict_img_size=False)
    own.load_state_dict(_state(untrained(name)))
    own.eval()
    grid = encoder.space.grid
    pixels = torch.rand(2, 3, 4 * grid, 3 * grid)
    mean, std = (torch.tensor(own.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    x = (pixels - mean) / std
    found = encoder(pixels)
    with torch.no_grad():
        if hasattr(own, "num_prefix_tokens"):
            tokens = own.forward_features(x)
            wanted = {
                f"block{len(own.blocks) - 1}": _map(tokens[:, own.num_prefix_tokens :], 4, 3),
                "cls": tokens[:, 0],
            }
        else:
            wanted = {
                f"stage{i}": y for i, y in enumerate(own.forward_intermediates(x, norm=True, intermediates_only=True))
            }
        if "pooled" in found:
            wanted["pooled"] = own.forward_head(own.forward_features(x), pre_logits=True)
    assert set(wanted) == set(found)
    for level, y in wanted.items():
        assert torch.allclose(found[level], y, atol=1e-5 * float(y.abs().max()), rtol=1e-4), level
    SEEN.add(name)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_035", "tf_efficientnet_lite0", "test_convnext"])
def test_stages_are_those_of_features_only(name: str, untrained: Any) -> None:
    """By the other way that timm has, which shares no code with the first."""
    import timm

    encoder = loaded(f"timm:{name}", untrained(name))
    own = timm.create_model(name, features_only=True)
    own.load_state_dict(_as_features_only(_state(untrained(name)), own.state_dict()))
    pixels = torch.rand(1, 3, 96, 160)
    mean, std = (torch.tensor(own.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = own.eval()((pixels - mean) / std)
    found = encoder(pixels)
    assert len(wanted) == len([level for level in encoder.space.levels if level.stride])
    for index, y in enumerate(wanted):
        assert torch.allclose(found[f"stage{index}"], y, atol=1e-5 * float(y.abs().max()), rtol=1e-4), index


def _as_features_only(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """features_only joins stages by underscores: stages.0.x becomes stages_0.x."""
    known = {name.replace(".", "_"): x for name, x in state.items()}
    return {name: known[name.replace(".", "_")] for name in wanted}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_transformers(family: str, saved: Any) -> None:
    import transformers

    encoder = loaded(f"hf:{saved(family)}")
    laws(encoder)
    own = transformers.AutoModel.from_pretrained(saved(family)).eval()
    grid = encoder.space.grid
    pixels = torch.rand(2, 3, 4 * grid, 3 * grid)
    x = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    options = {"interpolate_pos_encoding": True} if family in {"vit", "clip", "siglip"} else {}
    found = encoder(pixels)
    with torch.no_grad():
        answer = own(x, output_hidden_states=True, **options)
    if family in {"swin", "convnext", "resnet"}:
        kind = getattr(transformers, type(own).__name__.replace("Model", "Backbone"))
        backbone = kind.from_pretrained(saved(family), out_indices=list(range(len(found)))).eval()
        with torch.no_grad():
            wanted = dict(zip(backbone.config.out_features, backbone(x).feature_maps, strict=True))
    elif family == "mobilenetv2":
        wanted = {"stage3": answer.hidden_states[-1], "pooled": answer.pooler_output}
    else:
        tokens = answer.last_hidden_state
        prefix = tokens.shape[1] - 12
        wanted = {"block2": _map(tokens[:, prefix:], 4, 3)} | ({"cls": tokens[:, 0]} if prefix else {})
        if family in {"vit", "clip", "siglip"}:
            wanted["pooled"] = answer.pooler_output
        assert set(wanted) == set(found)
    for level, y in wanted.items():
        assert torch.allclose(found[level], y, atol=1e-5 * float(y.abs().max()), rtol=1e-4), level
    SEEN.add(family)


def test_at_least_eight_families_were_seen() -> None:
    """After those above, in one process."""
    pytest.importorskip("timm", reason='timm is not installed: pip install "chiasm[timm]"')
    assert len(SEEN) >= 8


def _map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def _state(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_several_depths_at_once(untrained: Any) -> None:
    """By index from either end, by name, normed or not, in the order that was asked for."""
    import timm

    layers = ["1", "-1", "block3_raw", "registers"]
    name = "vit_small_patch14_reg4_dinov2"
    with pytest.raises(ModelError, match=r"has no layer 'block12'; did you mean 'block"):
        loaded(f"timm:{name}", untrained(name), layers=["block12"])
    encoder = loaded(f"timm:{name}", untrained(name), layers=layers)
    assert encoder.space.names == ("block1", "block11", "block3_raw", "registers")
    assert [(level.channels, level.stride) for level in encoder.space.levels] == [
        (384, 14), (384, 14), (384, 14), (1536, 0)
    ]  # fmt: skip
    own = timm.create_model(name, dynamic_img_size=True)
    own.load_state_dict(_state(untrained(name)))
    pixels = torch.rand(1, 3, 42, 28)
    mean, std = (torch.tensor(own.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        own.eval()
        x = (pixels - mean) / std
        normed = own.forward_intermediates(
            x, indices=[1, 11], norm=True, intermediates_only=True, return_prefix_tokens=True
        )
        (raw,) = own.forward_intermediates(x, indices=[3], intermediates_only=True)
    found = encoder(pixels)
    wanted = {"block1": normed[0][0], "block11": normed[1][0], "block3_raw": raw}
    wanted |= {"registers": normed[1][1][:, 1:].flatten(1)}
    for level, y in wanted.items():
        assert torch.allclose(found[level], y, atol=1e-5 * float(y.abs().max()), rtol=1e-4), level
    assert len(layers) == len(wanted)


def test_blocks_of_transformers_normed_and_not(saved: Any) -> None:
    """Dinov2 norms what it gives last; CLIP norms only what it pools, so its blocks have one form."""
    import transformers

    seen = 0
    for family, norm in (("dinov2", "layernorm"), ("siglip", "post_layernorm"), ("clip", None)):
        own = transformers.AutoModel.from_pretrained(saved(family)).eval()
        grid = own.config.patch_size
        encoder = loaded(f"hf:{saved(family)}", layers=["block0", "block0_raw", "1", "block2"])
        assert encoder.space.names == ("block0", "block0_raw", "block1", "block2")
        pixels = torch.rand(1, 3, 4 * grid, 4 * grid)
        found = encoder(pixels)
        with torch.no_grad():
            answer = own((pixels - MEAN) / STD, output_hidden_states=True)
            for index in (0, 1):
                x = answer.hidden_states[index + 1]
                y = x if norm is None else getattr(own, norm)(x)
                assert torch.allclose(found[f"block{index}"], _map(y[:, y.shape[1] - 16 :], 4, 4), atol=1e-5)
                seen += 1
        assert torch.equal(found["block0"], found["block0_raw"]) == (norm is None)
    assert seen == 6


def test_the_same_weights_are_one_space_whatever_the_file(untrained: Any, tmp_path: Path) -> None:
    state = _state(untrained("test_resnet"))
    first = loaded("timm:test_resnet", untrained("test_resnet"))
    torch.save({"state_dict": {f"module.{name}": x for name, x in state.items()}}, tmp_path / "again.pth")
    again = loaded("timm:test_resnet", tmp_path / "again.pth", layers=["stage2"], view="square:96")
    assert again.space.name == first.space.name
    assert again.space.grid == first.space.grid == 32
    assert again.id != first.id  # another view
    torch.save({name: x + 1e-3 if x.is_floating_point() else x for name, x in state.items()}, tmp_path / "other.pth")
    other = loaded("timm:test_resnet", tmp_path / "other.pth")
    assert other.space.name != first.space.name
    no_head = {name: x for name, x in state.items() if not name.startswith("fc.")}
    torch.save(no_head, tmp_path / "headless.pt")
    assert loaded("timm:test_resnet", tmp_path / "headless.pt").space.name == first.space.name


def test_views(untrained: Any) -> None:
    convolutional = loaded("timm:tf_efficientnet_lite0", untrained("tf_efficientnet_lite0"))
    assert convolutional.view == "square:224"
    maps = convolutional(torch.rand(1, 3, 75, 101))  # no multiple of anything: as the convolutions round it
    assert maps["stage4"].shape[-2:] == (3, 4)
    transformer = loaded("timm:test_vit", untrained("test_vit"))
    assert transformer.view == "longest:160"
    with pytest.raises(ConfigError, match=r"multiples of 16, got the view square:100; use square:96"):
        loaded("timm:test_vit", untrained("test_vit"), view="square:100")
    with pytest.raises(ConfigError, match="longest:N"):
        loaded("timm:test_vit", untrained("test_vit"), view="crop:100")
    with pytest.raises(ShapeError, match="multiples of 16, got 30 x 32"):
        transformer(torch.rand(1, 3, 30, 32))
    with pytest.raises(ShapeError, match="B 3 H W, got 1 4 32 32"):
        transformer(torch.rand(1, 4, 32, 32))


@pytest.mark.parametrize(
    ("told", "scaled"),
    [
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}, lambda x: (x - M) / S),
        ({"do_normalize": False}, lambda x: x),
        ({"do_flip_channel_order": True, "do_rescale": True}, lambda x: x.flip(1)),
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_flip_channel_order": True,
          "do_normalize": True}, lambda x: (x.flip(1) - M) / S),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, lambda x: 2 * x),
        ({"image_mean": [127.5, 102.0, 76.5], "image_std": [51.0, 76.5, 102.0], "do_rescale": False},
         lambda x: (x - M) / S),
        ({}, lambda x: (x - MEAN) / STD),
    ],
)  # fmt: skip
def test_pixels_are_scaled_and_ordered_as_the_folder_says(saved: Any, tmp_path: Path, told: Any, scaled: Any) -> None:
    import transformers

    folder = shutil.copytree(saved("resnet"), tmp_path / "net")
    about = {"image_processor_type": "ViTImageProcessor", **told}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    pixels = torch.rand(1, 3, 64, 64)
    own = transformers.ResNetBackbone.from_pretrained(folder, out_indices=[1]).eval()
    with torch.no_grad():
        wanted = own(scaled(pixels)).feature_maps[0]
    found = foreign.load(f"hf:{folder}", layers=["stage1"])(pixels)["stage1"]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_loading_leaves_the_random_state_alone(saved: Any) -> None:
    for family in ("dinov2", "resnet"):
        folder, before = saved(family), torch.random.get_rng_state()
        foreign.load(f"hf:{folder}")
        assert torch.equal(before, torch.random.get_rng_state()), family


def test_half_precision_gives_float32(untrained: Any) -> None:
    whole = loaded("timm:test_vit", untrained("test_vit"))
    half = loaded("timm:test_vit", untrained("test_vit"), dtype=torch.bfloat16)
    pixels = torch.rand(2, 3, 32, 48)
    for level, x in whole(pixels).items():
        y = half(pixels)[level]
        assert y.dtype == torch.float32
        assert not torch.equal(x, y)
        assert float((x - y).norm() / x.norm()) < 0.03


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "tf_efficientnet_lite0",
        "mobilenetv2_035",
        "test_convnext",
        "test_vit",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_the_rest_of_a_network_classifies_from_features(name: str, untrained: Any) -> None:
    import timm

    rest = foreign.rest(f"timm:{name}", untrained(name))
    encoder = loaded(f"timm:{name}", untrained(name), layers=rest.reads)
    assert encoder.space.name == rest.space
    own = timm.create_model(name)
    own.load_state_dict(_state(untrained(name)))
    edge = own.pretrained_cfg["input_size"][1]
    pixels = torch.rand(2, 3, edge, edge)
    mean, std = (torch.tensor(own.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = own.eval()((pixels - mean) / std)
        assert torch.allclose(rest(encoder(pixels)), wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-3)


@pytest.mark.parametrize(
    ("places", "size", "stride"),
    [
        ((9, 9), (260, 260), 32),  # rounded up five times, as EfficientNet-Lite2 does
        ((17, 17), (260, 260), 16),
        ((8, 8), (260, 260), 32),  # rounded down, as ConvNeXt does
        ((8, 8), (299, 299), 32),  # without padding, as Inception does
        ((16, 16), (224, 224), 14),
        ((37, 37), (518, 518), 14),
        ((4, 3), (56, 42), 14),
        ((3, 4), (75, 101), 32),
        ((5, 9), (5, 9), 1),
        ((10, 10), (224, 112), None),
    ],
)
def test_strides_of_one_network_fit_into_each_other(places: Any, size: Any, stride: int | None) -> None:
    assert even_stride(places, size) == stride
