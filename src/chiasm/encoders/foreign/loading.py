"""From a name such as `timm:resnet18` to an encoder: which adapter opens it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chiasm.errors import ModelError, nearest

if TYPE_CHECKING:
    import torch

    from chiasm.encoders.foreign.classifying import Rest
    from chiasm.encoders.foreign.network import ForeignEncoder, Opened

LIBRARIES = ("timm", "hf", "onnx", "tflite")


def load(
    name: str,
    *,
    weights: Path | str | None = None,
    layers: Sequence[str] | None = None,
    view: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> ForeignEncoder:
    """A public network as an encoder of photographs.

    name: `timm:resnet18`, `hf:facebook/dinov2-small` or `hf:FOLDER`, `onnx:FILE`, `tflite:FILE`. weights: a local file
    (safetensors, a state dict, ONNX) or folder instead of those that its library fetches. layers: names or indices of
    the levels to give; None: the last block, or every stage of a convolutional network. view: native, longest:N or
    square:N; None: as it was trained. dtype: bfloat16 or float16 runs torch networks in autocast.

    Raises ModelError for an unknown name, layer, licence that was not accepted or weights that do not fit,
    MissingExtraError when its library is not installed, ConfigError for a view that it cannot take.
    """
    import torch

    from chiasm.encoders.foreign.network import ForeignEncoder

    place = torch.device(device)
    opened = _opened(name, None if weights is None else Path(weights), layers, place)
    return ForeignEncoder(opened, view, place, dtype)


def _opened(name: str, file: Path | None, layers: Sequence[str] | None, device: torch.device) -> Opened:
    library, _, rest_of_name = name.partition(":")
    if library not in LIBRARIES or not rest_of_name:
        raise ModelError(
            f"expected timm:NAME, hf:NAME, onnx:FILE or tflite:FILE, got {name!r}; {nearest(library, LIBRARIES)}"
        )
    if library == "timm":
        from chiasm.encoders.foreign.timm import open_timm

        return open_timm(rest_of_name, file, layers, device)
    if library == "hf":
        from chiasm.encoders.foreign.hf import open_hf

        return open_hf(rest_of_name, file, layers, device)
    if file is not None:
        raise ModelError(f"{name}: a {library} file holds its own weights, got weights {file}; leave them out")
    if library == "onnx":
        from chiasm.encoders.foreign.onnx import open_onnx

        return open_onnx(Path(rest_of_name), layers, device)
    from chiasm.encoders.foreign.tflite import open_tflite

    return open_tflite(Path(rest_of_name), layers)


def rest(name: str, weights: Path | str | None = None) -> Rest:
    """What a timm network does after its features, as a head: stored features to the logits of its classes.

    Raises ModelError when its library is not timm, or when the layers left over do not give what the whole gives.
    """
    from chiasm.encoders.foreign.classifying import rest_of

    return rest_of(name, None if weights is None else Path(weights))
