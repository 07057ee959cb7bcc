"""Whatever a user hands over as pictures to a list of sources.

    paths, folders, globs, "-", URLs, bytes, arrays, PIL images, file objects ──gather──► sources + what was passed over
                                                              DecoderPool.decode_all ◄──┘

A source names its picture by a uri and holds the bytes, or says where they are. Nothing is decoded here.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chiasm.contracts import Stat
from chiasm.errors import ConfigError, ImageError
from chiasm.images import colour, listing
from chiasm.images.decoder import opened
from chiasm.images.limits import DEFAULT, Limits
from chiasm.images.picture import Picture, part_of, uri_of
from chiasm.images.raw import headerless

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: no drive of Windows
_DIGEST_LETTERS = 12
_MOST_LIST_BYTES = 2**30  # of a list on standard input


@runtime_checkable
class Readable(Protocol):
    """A file object."""

    def read(self, size: int = ..., /) -> bytes: ...


Pixels: TypeAlias = NDArray[np.integer]
Given: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Pixels | Image.Image | Readable


@dataclass(frozen=True, eq=False)
class Source:
    """One picture that is not decoded yet.

    uri: an absolute path as text (or one relative to a stated root), a URL, or "memory:" and 12 digits of the digest.
    One of four says where its bytes are: path, url, data (a whole file in memory), picture (pixels that need no
    decoder). page: which picture of a file with several (the pages of a TIFF), from 0.
    """

    uri: str
    path: Path | None = None
    url: str = ""
    data: bytes | None = None
    picture: Picture | None = None
    page: int = 0

    @property
    def stat(self) -> Stat | None:
        """Size and modification time in ns of a file; None for whatever has neither, a URL included."""
        return None if self.path is None else headerless.stat_of(self.path)

    @property
    def part(self) -> str:
        """Which picture of the file this is, as a key has it: "" for the first, else "page=3"."""
        return part_of(self.page)

    def read(self, limits: Limits = DEFAULT) -> bytes:
        """The bytes of the file, or of the pixels of an array. Raises ImageError when they cannot be had."""
        if self.data is not None:
            return self.data
        if self.picture is not None:
            return self.picture.pixels.tobytes()
        if self.url:
            from chiasm.images import remote

            return remote.read(self.url, limits)
        assert self.path is not None
        try:
            with opened(self.path, self.uri) as file:
                return whole(file, self.uri, limits)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ImageError(f"{self.uri}: cannot be read ({why}); copy it again", "unreadable") from error


@dataclass(frozen=True)
class Gathered:
    """sources: in the order given, each once. skipped: files in folders that are no pictures, counted by suffix."""

    sources: tuple[Source, ...]
    skipped: Mapping[str, int]


def gather(
    given: Iterable[Given] | Given, root: Path | str | None = None, lists: BinaryIO | None = None
) -> Gathered:
    """The sources in whatever was handed over; one thing, or any number of things.

    str, Path: a file, a folder (searched through, see `listing`), a pattern with *, ? or [, a URL, or "-": a list of
    any of these on `lists` (standard input when not given), one a line, or each ended by a null byte. bytes: a whole
    file. Array: H x W x 3, uint8 or uint16, sRGB, upright. PIL image: of any mode; rotation and profile are applied.
    File object: read from where it stands. A path that leads to nothing is kept, since its failure must be recorded.

    root: a folder; paths inside it get uris relative to it, others stay absolute. Raises ConfigError for a pattern
    that nothing matches, an empty name, and things of another type, ImageError for a file object or image that cannot
    be read.
    """
    skipped: Counter[str] = Counter()
    sources: dict[str, Source] = {}
    base = None if root is None else Path(os.path.abspath(root))  # noqa: PTH100 - pathlib keeps `..`
    for item in _each(given):
        for source in _sources(item, lists, skipped):
            named = source if base is None else replace(source, uri=_below(source, base))
            sources.setdefault(source.uri if source.path is None else listing.real_path(source.path), named)
    return Gathered(tuple(sources.values()), dict(sorted(skipped.items())))


def of_path(path: Path | str) -> Source:
    """The source of one file, under its absolute name; a symbolic link keeps its own."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - pathlib keeps `..`
    return Source(uri_of(absolute), path=absolute)


def of_bytes(data: bytes) -> Source:
    """The source of a whole file in memory."""
    return Source(_memory_uri(hashlib.sha256(data).hexdigest()), data=data)


def of_pixels(pixels: NDArray[np.integer]) -> Source:
    """The source of an array H x W x 3, uint8 or uint16, sRGB, upright. Copied. Raises ShapeError for another."""
    held = Picture(np.array(pixels, order="C"))
    about = f"{held.pixels.dtype.name} {held.pixels.shape} ".encode("ascii")  # the same bytes in another shape differ
    little = held.pixels.astype(held.pixels.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(about + little.tobytes()).hexdigest()
    uri = _memory_uri(digest)
    return Source(uri, picture=replace(held, digest=digest, source_bytes=held.nbytes, uri=uri))


def of_image(image: Image.Image) -> Source:
    """The source of a PIL image of any mode of 8 or 16 bits. Raises ImageError for another, or a broken one."""
    if image.mode not in colour.MODES:
        raise ImageError(
            f"a PIL image of mode {image.mode!r}: expected pixels of 8 or 16 bits; convert it to RGB first",
            "unsupported",
        )
    try:
        image.load()
        return of_pixels(colour.to_srgb(image))
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"a PIL image: cannot be read ({error}); open it again", "damaged") from error


def whole(file: Readable, name: str, limits: Limits) -> bytes:
    """What is left in a file object. Raises ImageError (too-large) beyond the limit, ConfigError for text."""
    parts, size = [], 0
    while part := file.read(min(2**20, limits.file_bytes + 1 - size)):
        if not isinstance(part, bytes):
            raise ConfigError(f"{name}: expected a file object that gives bytes, got one that gives text; open it 'rb'")
        parts.append(part)
        size += len(part)
        if size > limits.file_bytes:
            raise ImageError(
                f"{name}: expected at most {limits.file_bytes} bytes, got more; raise Limits.file_bytes if it is good",
                "too-large",
            )
    return b"".join(parts)


def _each(given: Iterable[Given] | Given) -> Iterable[Given]:
    """One thing as a list of one; anything else as it is."""
    if isinstance(given, (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image.Image, Readable)):
        return [given]
    if not isinstance(given, Iterable):
        raise _refused(given)
    return given


def _refused(item: object) -> ConfigError:
    return ConfigError(
        "pictures: expected paths, URLs, bytes, arrays, PIL images or file objects, "
        f"got {type(item).__name__}; convert it first"
    )


def _sources(item: Given, lists: BinaryIO | None, skipped: Counter[str]) -> Iterator[Source]:
    if isinstance(item, (str, os.PathLike)):
        yield from _named(os.fspath(item), lists, skipped)
    elif isinstance(item, (bytes, bytearray, memoryview)):
        yield of_bytes(bytes(item))
    elif isinstance(item, np.ndarray):
        yield of_pixels(item)
    elif isinstance(item, Image.Image):
        yield of_image(item)
    elif isinstance(item, Readable):
        yield of_bytes(whole(item, "a file object", DEFAULT))
    else:
        raise _refused(item)


def _named(text: str, lists: BinaryIO | None, skipped: Counter[str]) -> Iterator[Source]:
    """What one string means. An empty one, as of a variable that is not set, would be the working folder."""
    if not text:
        raise ConfigError("pictures: expected the name of a file or folder, got an empty one; for this folder give .")
    if text == "-":
        for name in _listed(lists or sys.stdin.buffer):
            yield from _named(name, None, skipped)
        return
    if _URL.match(text):
        local = urlsplit(text)
        if local.scheme.lower() != "file":
            yield Source(text, url=text)
            return
        text = unquote(local.path)
    path = Path(text)
    if listing.is_folder(path):
        yield from map(of_path, listing.in_folder(path, skipped))
    elif glob.has_magic(text) and not os.path.lexists(text):  # noqa: PTH113, Path.exists raises
        yield from _matching(text, skipped)
    else:
        yield of_path(path)


def _matching(pattern: str, skipped: Counter[str]) -> Iterator[Source]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207, Path.glob takes no absolute pattern
    if not matches:
        raise ConfigError(f"{uri_of(pattern)}: expected a pattern that files match, got none; check the folder's name")
    for path in map(Path, matches):
        yield from map(of_path, listing.in_folder(path, skipped) if listing.is_folder(path) else [path])


def _listed(file: BinaryIO) -> Iterator[str]:
    """The names on a stream: ended by null bytes if there is one, else one a line. "-" would ask for itself."""
    data = file.read(_MOST_LIST_BYTES + 1)
    if len(data) > _MOST_LIST_BYTES:
        raise ConfigError(f"-: expected at most {_MOST_LIST_BYTES} bytes of names, got more; hand them over in parts")
    for name in data.split(b"\0") if b"\0" in data else (line.removesuffix(b"\r") for line in data.split(b"\n")):
        if name and name != b"-":
            yield os.fsdecode(name)


def _below(source: Source, root: Path) -> str:
    """The uri of a source, relative to the root when it is a path inside it."""
    if source.path is None or not source.path.is_relative_to(root):
        return source.uri
    return uri_of(source.path.relative_to(root))


def _memory_uri(digest: str) -> str:
    return f"memory:{digest[:_DIGEST_LETTERS]}"
