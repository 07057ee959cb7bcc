"""Codecs by the name that a packet calls them."""

from __future__ import annotations

from collections.abc import Callable

from chiasm.codecs.plain import PlainCodec
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.codecs.vector import VectorCodec
from chiasm.contracts import Codec
from chiasm.errors import PacketError, nearest

# Those that need no tables; `transform` is the one that does.
PLAIN: dict[str, Callable[[], Codec]] = {
    "plain-fp16": lambda: PlainCodec("fp16"),
    "plain-bf16": lambda: PlainCodec("bf16"),
    "plain-int8": lambda: PlainCodec("int8"),
    "vector-fp16": lambda: VectorCodec("fp16"),
    "vector-fp32": lambda: VectorCodec("fp32"),
}
NAMES = ("transform", *PLAIN)


def codec_named(name: str, tables: bytes | None = None) -> Codec:
    """The codec called `name`; tables: the bytes of the tables file, for those that have tables.

    Raises PacketError for an unknown name (naming the nearest), and for tables that are missing, damaged or not wanted.
    """
    if name not in NAMES:
        raise PacketError(f"no codec called {name!r}; {nearest(name, NAMES)}")
    if name in PLAIN:
        if tables:
            raise PacketError(f"the codec {name} has no tables, got {len(tables)} bytes; leave them out")
        return PLAIN[name]()
    if not tables:
        raise PacketError(f"the codec {name} needs the bytes of its tables, got none; give those that the packet names")
    return TransformCodec(Tables.read(tables))
