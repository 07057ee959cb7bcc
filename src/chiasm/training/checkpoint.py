"""A training run on disk: safetensors and JSON only, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from chiasm import durable
from chiasm.errors import ConfigError

NAME = "last.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped; the rest follows from step and config."""

    step: int
    config: Mapping[str, object]
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]


def moments(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: 'NAME/exp_avg' and so on."""
    return {
        f"{name}/{key}": value.contiguous()
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(module: nn.Module, optimizer: Optimizer, saved: Mapping[str, Tensor]) -> None:
    """The inverse of `moments`."""
    parameters = dict(module.named_parameters())
    for name, value in saved.items():
        parameter, key = name.rsplit("/", 1)
        owner = parameters[parameter]
        optimizer.state[owner][key] = value if key == "step" else value.to(owner)


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder` in one durable rename: a kill leaves the old one or the new one."""
    tensors = {
        # a copy each: modules may share a parameter, and safetensors would refuse to write it twice
        f"{part}/{name}": tensor.detach().clone(memory_format=torch.contiguous_format)
        for part, held in (
            ("weights", checkpoint.weights),
            ("average", checkpoint.average),
            ("moments", checkpoint.moments),
        )
        for name, tensor in held.items()
    }
    metadata = {"step": str(checkpoint.step), "config": json.dumps(dict(checkpoint.config))}
    durable.write(folder / NAME, save(tensors, metadata))


def read(folder: Path, config: Mapping[str, object]) -> Checkpoint | None:
    """The checkpoint in `folder`, or None. Raises ConfigError when it was made with another config."""
    path = folder / NAME
    if not path.exists():
        return None
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "moments": {}}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            part, rest = name.split("/", 1)
            parts[part][rest] = file.get_tensor(name)
    made_with, config = json.loads(metadata["config"]), json.loads(json.dumps(dict(config)))  # tuples become lists
    differing = sorted(key for key in config if key != "steps" and made_with.get(key) != config[key])
    if differing:
        key = differing[0]
        if key not in made_with:
            raise ConfigError(f"{path} was made before there was {key}; name another --out to start anew")
        if key == "data":
            raise ConfigError(f"{path} was made of other pictures or labels; remove its folder, or name another --out")
        raise ConfigError(
            f"{path} was made with {key} = {made_with.get(key)!r}, not {config[key]!r}; "
            "use the same value to resume it, or another --out to start anew"
        )
    return Checkpoint(int(metadata["step"]), made_with, parts["weights"], parts["average"], parts["moments"])
