"""From a finished run to files that ship: fp16 weights, and the codec's tables fitted to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from chiasm import durable
from chiasm.codecs.fit import Plan, fit
from chiasm.codecs.tables import Tables
from chiasm.datasets.pictures import PictureSet
from chiasm.encoders.ns import NS
from chiasm.heads.saved import HeadModule, write_head
from chiasm.training.recipes.space import SpaceObjective, SpaceRecipe

FITTED = 48  # pictures that the codec's tables are fitted to
EDGE = 384  # pixels of their sides, at most

# Steps of qualities 1 to 8 for `context` and `detail`: about 0.3 to 2.5 bits per pixel on Kodak.
STEPS = tuple((1.05 * step, step) for step in (2.75, 2.15, 1.7, 1.35, 1.05, 0.75, 0.5, 0.31))


def release(objective: SpaceObjective, recipe: SpaceRecipe, folder: Path) -> Tables:
    """Write `ns.safetensors` (fp16), `tables.bin` and `hashes.json` into `folder`; returns the tables.

    The tables are fitted to what the fp16 weights give, because that is what users will have.
    """
    tensors = halved(objective, ("encoder.", "decoder."))
    objective.load_state_dict({name: x.float() for name, x in tensors.items()}, strict=False)
    tables = fit_tables(objective, sampled(recipe.training, FITTED))
    _write(folder, {"ns.safetensors": save(tensors), "tables.bin": tables.data})
    return tables


def write_weights(module: nn.Module, prefix: str, folder: Path, name: str) -> None:
    """Write the parameters below `prefix` as `name` (fp16), and `hashes.json`, into `folder`."""
    _write(folder, {name: save(halved(module, (prefix,)))})


def write_trained_head(head: HeadModule, folder: Path, name: str) -> None:
    """Write a head as `name`, see `heads.saved`, and `hashes.json`, into `folder`."""
    _write(folder, {name: write_head(head)})


def write_trunk(learnt: Mapping[str, Tensor], folder: Path) -> None:
    """Write what the recipe `trunk` leaves, float32, as `trunk.safetensors`, and `hashes.json`, into `folder`."""
    _write(folder, {"trunk.safetensors": save(dict(learnt))})


def halved(module: nn.Module, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The parameters whose names start with one of `prefixes`, in fp16 on the CPU, a copy each."""
    return {
        name: x.detach().half().cpu().clone(memory_format=torch.contiguous_format)
        for name, x in module.state_dict().items()
        if name.startswith(prefixes)
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        durable.write(folder / name, data)
    hashes = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }
    durable.write(folder / "hashes.json", (json.dumps(hashes, indent=1) + "\n").encode())


def sampled(sets: Sequence[PictureSet], count: int) -> list[Tensor]:
    """About `count` pictures, evenly from every set, their upper left EDGE x EDGE pixels at most: 1 3 H W."""
    share = max(1, count // len(sets))
    found = []
    for held in sets:
        stride = max(1, len(held.pictures) // share)
        for index in range(0, len(held.pictures), stride)[:share]:
            picture = held.tensor(index)[:, :EDGE, :EDGE]
            height, width = (n // 4 * 4 for n in picture.shape[-2:])
            if height and width:
                found.append(picture[None, :, :height, :width])
    return found


@torch.no_grad()
def fit_tables(objective: SpaceObjective, pictures: Sequence[Tensor]) -> Tables:
    """The codec's tables for the space of `objective`, in closed form."""
    encoder = objective.encoder.eval()
    scales = tuple(x.flatten().numpy() for x in encoder.alignment.amplitudes())
    return fit([encoder(picture) for picture in pictures], NS, Plan(("", "context"), (4, 0), STEPS, scales))
