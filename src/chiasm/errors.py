"""Every error that chiasm raises on purpose, one tree.

ChiasmError                    each message: one sentence with what was wanted, what came, and the fix
├── ImageError                 a picture cannot be used; `.reason` is one word for the errors table
├── ShapeError                 a tensor has another shape, dtype or range than the function reads
├── PacketError                packet bytes are damaged, or name something this chiasm does not have
├── StoreError                 a store cannot be opened, is locked, or lacks what was asked of it
├── ConfigError                an option, key or value that no recipe knows
├── ModelError                 a name that is not among the models, or weights that do not fit it
└── MissingExtraError          an optional dependency is not installed; the message has the command
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

Reason = Literal[
    "empty", "truncated", "not-an-image", "unsupported", "too-large", "timeout", "crashed", "unreadable", "damaged"
]


class ChiasmError(Exception):
    """Base of the tree: catch this to catch whatever chiasm says on purpose."""


class ImageError(ChiasmError):
    """A picture that cannot be used. `reason` is the word under which the errors table counts it."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, Reason]]:
        return type(self), (str(self), self.reason)


class ShapeError(ChiasmError, ValueError):
    """A tensor of another shape, dtype or range than wanted."""


class PacketError(ChiasmError, ValueError):
    """Packet bytes that are damaged, or that name an unknown version, space, codec or table."""


class StoreError(ChiasmError):
    """A store that cannot be opened, is locked by another writer, or lacks what was asked."""


class ConfigError(ChiasmError, ValueError):
    """An unknown key or a value of the wrong type or range."""


class ModelError(ChiasmError, KeyError):
    """A name that no model has, or weights that do not fit their entry."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class MissingExtraError(ChiasmError, ImportError):
    """An optional dependency that is not installed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A ready clause for an error about an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names) or 'none'}"
