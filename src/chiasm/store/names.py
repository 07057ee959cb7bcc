"""Which strings a store accepts, on the way in and on the way out.

A store may come from a stranger: a key, level or id out of it may later name a file or be printed, so each is checked
when it is read.
"""

from __future__ import annotations

import re

from chiasm.contracts import Level, Space
from chiasm.errors import StoreError

KEY = re.compile(r"[0-9a-f]{64}")
PREFIX = re.compile(r"[0-9a-f]{6,63}")
SPACE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.:+@/=,-]{0,199}")
LEVEL = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,99}")
HASH = re.compile(r"[0-9a-f]{16,64}")  # of a codec's tables
LONGEST = 500  # characters of an encoder's or codec's id
URI = 32_768  # characters
SIDE = 1 << 24  # pixels of a picture's or a view's side, channels of a level, elements of a vector


def check_space(space: Space) -> None:
    """Raise StoreError for a space, or a level of it, that cannot be stored."""
    if not isinstance(space.name, str) or not SPACE.fullmatch(space.name):
        raise StoreError(f"a space is named with letters, digits and _.:+@/=,-, got {space.name!r}")
    if type(space.grid) is not int or not 1 <= space.grid <= SIDE:
        raise StoreError(f"space {space.name!r}: the grid is a number of pixels from 1, got {space.grid!r}")
    for level in space.levels:
        check_level(space.name, level)
    if len(set(space.names)) != len(space.names):
        raise StoreError(f"space {space.name!r} names a level twice: {', '.join(space.names)}")


def check_level(space: str, level: Level) -> None:
    if not isinstance(level.name, str) or not LEVEL.fullmatch(level.name):
        raise StoreError(f"a level is named with letters, digits and _.:+-, got {level.name!r}")
    numbers = (level.channels, level.stride)
    if not all(type(number) is int for number in numbers) or not (1 <= level.channels <= SIDE > level.stride >= 0):
        raise StoreError(
            f"space {space!r}, level {level.name!r}: {level.channels!r} channels at stride {level.stride!r} cannot be"
        )


def checked_id(text: object, what: str, empty: bool = False) -> str:
    """An id that is printed and compared: printable and not too long. Raises StoreError."""
    if not isinstance(text, str) or not text.isprintable() or len(text) > LONGEST or not (text or empty):
        raise StoreError(f"the {what} reads {str(text)[:70]!r}, which is none")
    return text


def checked_key(text: object) -> str:
    if not isinstance(text, str) or not KEY.fullmatch(text):
        raise StoreError(f"a key is 64 lower-case hex digits, got {str(text)[:70]!r}")
    return text


def checked_uri(text: object) -> str:
    if not isinstance(text, str) or not text or "\0" in text or len(text) > URI or not is_unicode(text):
        raise StoreError(f"a uri is 1 to {URI} characters of Unicode without a zero, got {str(text)[:70]!r}")
    return text


def is_unicode(text: str) -> bool:
    """Whether a string can be stored: the name of a file with undecodable bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_tables(text: object) -> str:
    if not isinstance(text, str) or (text and not HASH.fullmatch(text)):
        raise StoreError(f"the hash of a codec's tables is 16 to 64 hex digits, got {str(text)[:70]!r}")
    return text


def checked_number(value: object, what: str, least: int = 0, most: int = 2**62) -> int:
    if type(value) is not int or not least <= value <= most:
        raise StoreError(f"{what} is a whole number from {least} to {most}, got {value!r}")
    return value


def quoted(text: str) -> str:
    """A string as it stands in a filter."""
    return "'" + text.replace("'", "''") + "'"
