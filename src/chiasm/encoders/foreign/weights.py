"""Weights of foreign networks: read without pickle's code, matched to a network, told by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from chiasm.encoders.foreign.network import first_words
from chiasm.errors import ModelError

READ = (".safetensors", ".pth", ".pt", ".bin", ".th", ".onnx")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher")  # keys under which checkpoints hold them
_PREFIXES = ("module.", "backbone.", "model.", "encoder.")


def read(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a file or folder: safetensors, a PyTorch state dict (weights_only) or an ONNX file.

    Raises ModelError for what is not there or cannot be read so.
    """
    found: dict[str, Tensor] = {}
    for file in _files(path):
        try:
            found |= _read(file)
        except ModelError:
            raise
        except Exception as error:  # each format fails in ways of its own
            raise ModelError(
                f"{file} cannot be read as weights ({first_words(error)}); give a safetensors file or a state dict "
                "that torch.load(weights_only=True) reads"
            ) from error
    return found


def _files(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        for suffix in READ:
            files = sorted(path.glob(f"*{suffix}"))
            if files:
                return files if suffix == ".safetensors" else files[:1]
        raise ModelError(f"{path} holds no weights; expected a file that ends with {', '.join(READ)}")
    raise ModelError(f"there are no weights at {path}; give a file or folder that exists")


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    if file.suffix == ".onnx":
        from chiasm.encoders.foreign.keymaps import initialisers

        return initialisers(file)
    found = torch.load(file, map_location="cpu", weights_only=True)
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise ModelError(f"{file} holds a {type(found).__name__}, not a state dict; save network.state_dict()")
    return {str(name): x for name, x in found.items() if isinstance(x, Tensor)}


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str, optional: Sequence[str] = ()) -> set[str]:
    """Load `state` into a network; returns the names that it left as they were, all of them under `optional`.

    Tensors that the network does not have are left out; a prefix like `backbone.` is taken off. Raises ModelError with
    counts and the first name when one is missing or of another shape.
    """
    wanted = network.state_dict()
    fitted = _named_as(state, wanted)
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in fitted]
    other = [name for name in needed if name in fitted and fitted[name].shape != wanted[name].shape]
    wrong = [name for name in (*missing, *other) if not _under(name, optional)]
    if wrong:
        first = wrong[0]
        came = "nothing" if first not in fitted else _shape(fitted[first])
        raise ModelError(
            f"{source} does not fit: of {len(needed)} tensors {len(missing)} are missing and {len(other)} have another "
            f"shape, first {first!r} (expected {_shape(wanted[first])}, got {came}); give weights of this network"
        )
    unfit = [name for name in needed if name in fitted and not torch.isfinite(fitted[name].float()).all()]
    if unfit:
        raise ModelError(
            f"{source}: {len(unfit)} of {len(needed)} tensors hold NaN or infinity, first {unfit[0]!r}; fetch it again"
        )
    left = {*missing, *other}
    network.load_state_dict(
        {name: x for name, x in fitted.items() if name in wanted and name not in left}, strict=False
    )
    return left


def _named_as(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`state` without the prefix under which it has most of the wanted names."""
    candidates = [state]
    for first in ("", *_PREFIXES):
        for prefix in (first + second for second in _PREFIXES):
            cut = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
            candidates.append(cut)
    return max(candidates, key=lambda names: sum(name in wanted for name in names))


def _under(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape)) or "one number"


def digest(network: nn.Module, without: Sequence[str] = ()) -> str:
    """SHA-256 of a network's parameters and buffers by name, as float32 or integers, whatever file they came from.

    without: names of parts that change no feature, as a classifier. Counters of batches change none either.
    """
    found = hashlib.sha256()
    for name, x in sorted(network.state_dict().items()):
        if _under(name, without) or name.endswith("num_batches_tracked"):
            continue
        numbers = x.detach().cpu().to(torch.float32 if x.is_floating_point() else torch.int64).contiguous()
        found.update(f"{name} {tuple(numbers.shape)} {numbers.dtype}\n".encode())
        found.update(numbers.view(-1).view(torch.uint8).numpy().data if numbers.numel() else b"")
    return found.hexdigest()
