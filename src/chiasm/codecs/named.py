"""Codecs by the name that a packet calls them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from chiasm.codecs.pixels import PixelCodec
from chiasm.codecs.plain import PlainCodec
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.codecs.vector import VectorCodec
from chiasm.contracts import Codec
from chiasm.errors import PacketError, nearest

# Those that need no tables; `transform` is the one that does.
PLAIN: dict[str, Callable[[torch.device], Codec]] = {
    "plain-fp16": lambda device: PlainCodec("fp16", device),
    "plain-bf16": lambda device: PlainCodec("bf16", device),
    "plain-int8": lambda device: PlainCodec("int8", device),
    "pixels": PixelCodec,
    "vector-fp16": lambda device: VectorCodec("fp16", device),
    "vector-fp32": lambda device: VectorCodec("fp32", device),
}
NAMES = ("transform", *PLAIN)


def codec_named(name: str, tables: bytes | None = None, device: str | torch.device = "cpu") -> Codec:
    """The codec called `name`. tables: bytes of the tables file, where it has some. device: where decoded values are.

    Raises PacketError for an unknown name (naming the nearest), and for tables that are missing, damaged or not wanted.
    """
    if name not in NAMES:
        raise PacketError(f"no codec called {name!r}; {nearest(name, NAMES)}")
    if name in PLAIN:
        if tables:
            raise PacketError(f"the codec {name} has no tables, got {len(tables)} bytes; leave them out")
        return PLAIN[name](torch.device(device))
    if not tables:
        raise PacketError(f"the codec {name} needs the bytes of its tables, got none; give those that the packet names")
    return TransformCodec(Tables.read(tables), torch.device(device))
