"""What codecs without quality, and levels that are coded alone, refuse in the same words."""

from __future__ import annotations

from chiasm.errors import PacketError


def no_quality(codec: str, level: str, quality: int) -> None:
    """Raise PacketError unless quality is 0."""
    if quality:
        raise PacketError(f"{codec} has no quality, got {quality} for level {level!r}; give 0")


def no_parent(codec: str, level: str, parent: object) -> None:
    """Raise PacketError if there is a parent."""
    if parent is not None:
        raise PacketError(f"{codec} codes a level alone, got a parent for level {level!r}; give None")
