"""Untrained networks of public libraries, small where their library lets them be small, with weights in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


def configurations() -> dict[str, Any]:
    """Small configurations of transformers by family."""
    import transformers as library

    width = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    stages = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    return {
        "vit": library.ViTConfig(**width, image_size=64, patch_size=16),
        "dinov2": library.Dinov2Config(**width, image_size=56, patch_size=14),
        "dinov2-registers": library.Dinov2WithRegistersConfig(
            **width, image_size=56, patch_size=14, num_register_tokens=4
        ),
        "dinov3": library.DINOv3ViTConfig(**width, image_size=64, patch_size=16, num_register_tokens=4),
        "siglip": library.SiglipVisionConfig(**width, image_size=64, patch_size=16),
        "clip": library.CLIPVisionConfig(**width, image_size=64, patch_size=16),
        "swin": library.SwinConfig(embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=2, image_size=64),
        "convnext": library.ConvNextConfig(**stages),
        "resnet": library.ResNetConfig(**stages, embedding_size=8),
        "mobilenetv2": library.MobileNetV2Config(depth_multiplier=0.35),
    }


@pytest.fixture(autouse=True)
def _own_config_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name -> file with weights of a timm network, made once."""
    timm = pytest.importorskip("timm", reason='timm is not installed: pip install "chiasm[timm]"')
    folder, kept = tmp_path_factory.mktemp("timm"), dict[str, Path]()

    def made(name: str) -> Path:
        if name not in kept:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                network = timm.create_model(name)
            kept[name] = folder / f"{name}.safetensors"
            save_file({key: x.contiguous() for key, x in network.state_dict().items()}, kept[name])
        return kept[name]

    return made


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """family -> folder with a small untrained network of transformers, made once."""
    reason = 'transformers is not installed: pip install "chiasm[transformers]"'
    transformers = pytest.importorskip("transformers", reason=reason)
    transformers.utils.logging.disable_progress_bar()
    root, kept = tmp_path_factory.mktemp("hf"), dict[str, Path]()

    def made(family: str) -> Path:
        if family not in kept:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                network = transformers.AutoModel.from_config(configurations()[family])
            kept[family] = root / family
            network.save_pretrained(kept[family])
        return kept[family]

    return made


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub is asked."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
