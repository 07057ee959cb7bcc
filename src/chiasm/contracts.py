"""The types that the parts share. Two parts that must meet, meet here and nowhere else.

    Frame ──encoder──► Features ──codec──► Packet ──store──► Record ──► Features ──head──► predictions

Importing this module does not import torch: the tensors are annotations only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from chiasm.errors import ShapeError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["rgb", "raw"]
AnswerKind = Literal["classes", "distance", "direction", "probability", "picture", "label", "vector"]
Unit = Literal["", "metre", "canonical", "relative"]  # of distances; every other kind has one unit
Stat = tuple[int, int]  # a file's size in bytes and its mtime in ns: the same stat, so the same bytes, unread
Triple = tuple[float, float, float]
Size: TypeAlias = tuple[int, int]  # height and width

# Level -> tensor: a map B x C x h x w, or a vector B x D. Names and shapes are those of a Space.
Features: TypeAlias = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Sensor:
    """What a camera's file says of how its mosaic becomes colour.

    gains: white balance of red, green, blue, green being 1. matrix: rows of the 3 x 3 matrix from balanced camera
    colours to linear sRGB; each sums to 1, so that grey stays grey. shot, read: variance of the noise of a mosaic
    whose white is 1, before white balance, is shot * value + read. camera: maker and model. iso: 0 when unknown.
    pattern: the file's cell of colours, before the crop to RGGB. black: counts of R, G, G, B. white: counts.
    """

    gains: Triple
    matrix: tuple[Triple, Triple, Triple]
    shot: float
    read: float
    camera: str = ""
    iso: float = 0.0
    pattern: str = "RGGB"
    black: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    white: float = 1.0

    def __str__(self) -> str:
        """Camera, ISO, pattern and levels, as `inspect` shows them."""
        dark = f"{min(self.black):g}" if min(self.black) == max(self.black) else "/".join(f"{x:g}" for x in self.black)
        speed = f"ISO {self.iso:g}" if self.iso else "ISO unknown"
        return f"{self.camera or 'unknown camera'}, {speed}, {self.pattern}, black {dark}, white {self.white:g}"


@dataclass(frozen=True)
class Frame:
    """One image, ready for an encoder.

    pixels: float32 C x H x W. rgb: C = 3, sRGB-encoded, in [0, 1]. raw: C = 1, a linear mosaic (RGGB phase, even H and
    W), black subtracted, white (before white balance) at 1, each site multiplied by its gain over the smallest
    of `sensor.gains`, not clipped: the colour that is full first is so at 1.
    """

    pixels: Tensor
    kind: Kind = "rgb"
    sensor: Sensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, before any padding."""
        return int(self.pixels.shape[-2]), int(self.pixels.shape[-1])


@dataclass(frozen=True)
class Capture:
    """What a file says of how its picture was taken; every fact may be unknown.

    time: ISO 8601 as the file gives it (EXIF has no zone), or "". camera: maker and model, or "". focal_35mm: focal
    length in millimetres on a 36 x 24 mm frame, 0 when unknown. sensor: of a camera's mosaic, else None.
    """

    time: str = ""
    camera: str = ""
    focal_35mm: float = 0.0
    sensor: Sensor | None = None


@dataclass(frozen=True)
class Level:
    """One level of a space: its name, channels, and stride in pixels (0: one vector for the image)."""

    name: str
    channels: int
    stride: int

    @property
    def kind(self) -> Literal["map", "vector"]:
        return "map" if self.stride else "vector"


@dataclass(frozen=True)
class Space:
    """A versioned space and its levels. The join key: heads, codecs and stores name a space, never an encoder.

    grid: pixels that the height and width of what an encoder sees are multiples of. It is pinned, not derived from the
    levels: adding a level changes nothing that is stored.
    """

    name: str
    levels: tuple[Level, ...]
    grid: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(level.name for level in self.levels)

    def level(self, name: str) -> Level:
        """The level called `name`. Raises ShapeError naming the nearest level when there is none."""
        for level in self.levels:
            if level.name == name:
                return level
        raise ShapeError(f"space {self.name!r} has no level {name!r}; {nearest(name, self.names)}")


@dataclass(frozen=True)
class View:
    """What of the picture an encoder saw.

    size: height and width of the encoder's input, padding included. scale, offset: a point (y, x) of the picture, in
    pixels from its upper left corner, lies at scale * point + offset in that input. Native: scale 1, offset 0, padded
    at the bottom and right.
    """

    size: Size
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Coded:
    """One level of one picture as bytes.

    codec, tables, quality: which codec made them, the hash of its tables ("" where it has none) and its quality (0
    where it has none). shape: C h w of the map, or D of the vector (one number). view: what the encoder saw. tile: edge
    in pixels of the encoder's input of the squares that were coded one by one; 0: the whole in one. parent: the level
    that this one is coded on top of, or ""; base: the CRC-32 of that level's bytes, so that no other can stand in.
    data: the stream; of a vector, its little-endian float16 or float32 numbers.
    """

    codec: str
    tables: str
    quality: int
    shape: tuple[int, ...]
    view: View
    data: bytes
    tile: int = 0
    parent: str = ""
    base: int = 0

    @property
    def codec_id(self) -> str:
        """codec, tables and quality in one word: what decides whether a level is there already."""
        made = f"{self.codec}@{self.tables}" if self.tables else self.codec
        return f"{made}/q{self.quality}" if self.quality else made

    @property
    def crc(self) -> int:
        return zlib.crc32(self.data)


@dataclass(frozen=True)
class Packet:
    """Compressed features of one image in one space, level by level. size: of the picture, before any view."""

    space: str
    size: Size
    levels: Mapping[str, Coded]


@dataclass(frozen=True)
class Stored:
    """One level in a store: its bytes and which encoder made it (weights, preprocessing, view, precision)."""

    encoder: str
    coded: Coded


@dataclass(frozen=True)
class Record:
    """One image in a store, with the levels that were asked for.

    key: 64 hex digits, the digest of the source's bytes and of `part`. digest: SHA-256 of the source's bytes. part:
    which picture of the source, "" where it is the only one ("page=2", "time=1.500"). size: height and width.
    spaces: space -> level -> Stored. columns: what the user added (labels, ratings).
    """

    key: str
    digest: str
    size: Size
    source_bytes: int
    spaces: Mapping[str, Mapping[str, Stored]] = field(default_factory=dict)
    part: str = ""
    uris: tuple[str, ...] = ()
    capture: Capture = Capture()
    columns: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """One image that could not be stored: where it is, one word why, and the sentence."""

    uri: str
    reason: str
    message: str


@dataclass(frozen=True)
class TaskSpec:
    """What a head answers for one task. The name is free; the kind decides what is done with the answer.

    channels: of the map B channels h w, or of the vector B channels for `label` and `vector`. kind (see `heads.kinds`):
    classes (logits of every place), distance (> 0), direction (unit vectors, x right, y down, z forward, so those of
    what is seen have z < 0), probability (a logit of every place), picture (sRGB, around [0, 1]), label (logits of the
    whole picture), vector (any numbers of the whole picture). classes: names, one for each channel, of `classes` and
    `label`. unit: of a distance: metre, relative, or canonical (metres as one pinned camera would need them, see
    `geometry.pinhole`); "" for every other kind.
    """

    name: str
    channels: int
    kind: AnswerKind
    classes: tuple[str, ...] = ()
    unit: Unit = ""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera in pixels: focal lengths and principal point. The centre of the upper left pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class Sample:
    """One picture and what is known of it.

    frame: the picture, C x H x W. targets: task -> C x H x W, float32 in the TaskSpec's unit, but of kind `classes`
    1 x H x W int64 class ids, of kind `probability` 1 x H x W the share of annotators that said yes there, [0, 1]; for
    a `label` a single int64 id, shape (). valid: task -> bool H x W, false where the target says nothing (and holds
    0). A task without a target is not in either. camera: of the picture as it is here, None when unknown.
    """

    name: str
    frame: Frame
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    camera: Intrinsics | None = None


@dataclass(frozen=True)
class Parent:
    """A level that is decoded already, for the one that is coded on top of it. symbols: what its codec keeps of it."""

    values: Tensor
    symbols: object


class Encoder(Protocol):
    """Pixels to features: B C H W in [0, 1], H and W multiples of `space.grid`; a function of its arguments.

    margin: pixels around a place that can change a feature, a multiple of the grid; None: the whole picture can, so it
    is never cut. view: native, longest:518, square:224. id: weights, preprocessing, view. precision: added to the id: a
    word for its own, "" for that of whoever runs it. concurrent: whether several threads may call it.
    """

    @property
    def space(self) -> Space: ...

    @property
    def accepts(self) -> Kind: ...

    @property
    def margin(self) -> int | None: ...

    @property
    def view(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def concurrent(self) -> bool: ...

    @property
    def precision(self) -> str: ...

    def __call__(self, pixels: Tensor, condition: Tensor | None = None) -> Features: ...


class Deriver(Protocol):
    """Stored levels of a space to further levels of a space, without pixels. reads: what it needs.

    id: of the computation; the store keeps it with the encoder and codec of the levels that `sources` names.
    """

    @property
    def space(self) -> Space: ...  # of what it reads

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def gives(self) -> Space: ...  # the space, and levels, that it adds; may be the same space

    @property
    def id(self) -> str: ...

    def sources(self, level: str) -> tuple[str, ...]: ...  # which of `reads` a level that it gives is computed from

    def __call__(self, features: Features) -> Features: ...


class Codec(Protocol):
    """One level of one picture or tile to bytes and back. Symbols are exact on every machine.

    parent: the level that another is coded on top of, or ""; the flow codes and decodes that one first.
    """

    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> str: ...  # hash, or "" for a codec without tables

    @property
    def qualities(self) -> int: ...  # 1 (smallest) to this; 0: it has no quality

    def parent(self, level: str) -> str: ...

    def encode(self, level: str, values: Tensor, quality: int, parent: Parent | None = None) -> tuple[bytes, object]:
        """values: 1 C h w or 1 D, on any device. Gives the bytes and the symbols (for a child level's Parent)."""
        ...

    def decode(
        self, level: str, data: bytes, shape: tuple[int, ...], quality: int, parent: Parent | None = None
    ) -> Parent:
        """The inverse: float32 values 1 C h w (or 1 D), and the symbols. Raises PacketError for damaged bytes."""
        ...


class Head(Protocol):
    """Stored features to the answers of one task or several: task -> B C h w, or B C for a task of whole pictures.

    reads: the levels it needs of the space `space`; no other is fetched or decoded. margin: pixels around a place that
    can change what it answers there; None: the whole picture. A function of its arguments; it sees no pixel.
    """

    @property
    def space(self) -> str: ...

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def tasks(self) -> tuple[TaskSpec, ...]: ...

    @property
    def margin(self) -> int | None: ...

    def __call__(self, features: Features) -> dict[str, Tensor]: ...


class Store(Protocol):
    """Records on disk. `put` is one durable commit: when it returns, all of it is safe.

    levels: space -> names of the levels to read; None: all of them; {}: the facts alone. uris: uri -> key, of pictures
    that are stored or in this call. stats: uri -> size and mtime. replace: levels that are there give way.
    """

    def put(
        self,
        records: Sequence[Record],
        failures: Sequence[Failure] = (),
        uris: Mapping[str, str] | None = None,
        stats: Mapping[str, Stat] | None = None,
        replace: bool = False,
    ) -> None: ...

    def get_many(self, keys: Sequence[str], levels: Mapping[str, Sequence[str]] | None = None) -> list[Record]: ...

    def scan(self, levels: Mapping[str, Sequence[str]] | None = None, where: str = "") -> Iterator[Record]: ...

    def made(self, keys: Sequence[str], space: str) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        """key -> level -> (encoder id, codec id), of the levels that are stored in `space`."""
