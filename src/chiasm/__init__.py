"""chiasm: encode an image once; every vision task is then a cheap head on what was stored.

    import chiasm
    chiasm.encode(["holiday/"], store="photos.lance")        # photographs and RAW files, once
    with chiasm.open("photos.lance") as photos:              # no encoder, no pixel
        depth = photos.predict(photos.keys()[0], ["depth"])["depth"].values

Importing this package is instant and imports neither torch nor lance; the names below arrive on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from chiasm.contracts import (
    Capture,
    Codec,
    Coded,
    Deriver,
    Encoder,
    Failure,
    Features,
    Frame,
    Head,
    Intrinsics,
    Level,
    Packet,
    Record,
    Sensor,
    Space,
    Store,
    TaskSpec,
    View,
)
from chiasm.errors import (
    ChiasmError,
    ConfigError,
    ImageError,
    LicenceError,
    MissingExtraError,
    ModelError,
    PacketError,
    ShapeError,
    StoreError,
)

if TYPE_CHECKING:
    from chiasm import models as models
    from chiasm.flow.encode import Progress as Progress
    from chiasm.flow.encode import Summary as Summary
    from chiasm.flow.pipeline import Pipeline as Pipeline
    from chiasm.flow.pipeline import encode as encode
    from chiasm.flow.pipeline import open_store as open
    from chiasm.heads.answers import Answer as Answer
    from chiasm.images import Mosaic as Mosaic
    from chiasm.images import Picture as Picture
    from chiasm.images import read as read
    from chiasm.models import Model as Model

__version__ = "0.1.0.dev0"

# name -> the module it lives in, and what it is called there; a module itself has no second name
_HOMES = {
    "Answer": ("chiasm.heads.answers", "Answer"),
    "Model": ("chiasm.models", "Model"),
    "Mosaic": ("chiasm.images", "Mosaic"),
    "Picture": ("chiasm.images", "Picture"),
    "Pipeline": ("chiasm.flow.pipeline", "Pipeline"),
    "Progress": ("chiasm.flow.encode", "Progress"),
    "Summary": ("chiasm.flow.encode", "Summary"),
    "encode": ("chiasm.flow.pipeline", "encode"),
    "models": ("chiasm.models", ""),
    "open": ("chiasm.flow.pipeline", "open_store"),
    "read": ("chiasm.images", "read"),
}

__all__ = [
    "Answer",
    "Capture",
    "ChiasmError",
    "Codec",
    "Coded",
    "ConfigError",
    "Deriver",
    "Encoder",
    "Failure",
    "Features",
    "Frame",
    "Head",
    "ImageError",
    "Intrinsics",
    "Level",
    "LicenceError",
    "MissingExtraError",
    "Model",
    "ModelError",
    "Mosaic",
    "Packet",
    "PacketError",
    "Picture",
    "Pipeline",
    "Progress",
    "Record",
    "Sensor",
    "ShapeError",
    "Space",
    "Store",
    "StoreError",
    "Summary",
    "TaskSpec",
    "View",
    "__version__",
    "encode",
    "models",
    "open",
    "read",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'chiasm' has no attribute {name!r}; there are {', '.join(__all__)}")
    home, attribute = _HOMES[name]
    module = import_module(home)
    return getattr(module, attribute) if attribute else module
