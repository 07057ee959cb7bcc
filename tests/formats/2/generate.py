"""Makes the golden files of packet format 2, which lie beside this script.

    python tests/formats/2/generate.py [FOLDER]

Nothing here is random or measured: tables, symbols and values are integers from SHA-256 and a few exact fractions, so
that every machine makes the same packets, and a difference shows a change of format or of the range coder. Only the
deflate streams of `plain-*` may differ, with another zlib; what they hold may not.

    tables.bin     codec tables of a small space, `golden-1`: 8 channels, `context` of 4 components (2 smooth,
                   three wavelet steps), `detail` of 3 on top of it
    *.chm          packets: height x width, and what is special about them
    expected.npz   NAME/TILE/LEVEL/BAND: the symbols of a level, which a decoder must give exactly: int32 bands K n h w
                   of `transform` (further components last), bit patterns or steps C h w of `plain-*`, numbers D
                   of `vector-*`;
                   NAME/features/LEVEL: every n-th value of the map (f32), n = ceil(size / 400), which it must give
                   within 1e-4 of the map's largest magnitude

Before the first release these may be made again when the format is changed on purpose. After it: never; a new
format gets a folder of its own, and this one must still be readable.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from chiasm.codecs import NAMES, codec_named
from chiasm.codecs import packet as bitstream
from chiasm.codecs.bands import Bands, Further, Symbols, band_shapes
from chiasm.codecs.tables import LevelTables, Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Codec, Coded, Level, Packet, Parent, Space, View
from chiasm.features.layout import Window, assemble, padded, tiles

SPEC = Space(
    "golden-1",
    (
        Level("context", 8, 4),
        Level("detail", 8, 2),
        Level("pixels", 3, 1),
        Level("tokens", 6, 16),
        Level("deep", 5, 16),
        Level("summary", 7, 0),
        Level("cls", 4, 0),
    ),
    4,
)
# Every edge of the buckets of large magnitudes, and the largest magnitude there is.
EXTREMES = (11, 12, 15, 16, 23, 24, 39, 40, 71, 72, 135, 136, 255, 256, 263, 264, 519, 520, 65_000, 66_055)
RESIZED = View((224, 224), (3.5, 3.5), (0.0, 28.0))  # 64 x 48 enlarged, and 28 pixels of padding on the left


@dataclass(frozen=True)
class Golden:
    """levels: name -> codec and quality. view: of the levels that are not coded by `transform`; None: native.

    further: level -> how many components it has beside those of the tables.
    """

    name: str
    size: tuple[int, int]
    levels: dict[str, tuple[str, int]]
    tile: int = 0
    embedded: bool = False
    extreme: bool = False
    view: View | None = None
    further: tuple[tuple[str, int], ...] = ()


def both(context: int, detail: int = 0) -> dict[str, tuple[str, int]]:
    return {"context": ("transform", context), "detail": ("transform", detail or context)}


def context(quality: int) -> dict[str, tuple[str, int]]:
    return {"context": ("transform", quality)}


GOLDENS = (
    Golden("1x1-q5", (1, 1), both(5)),
    Golden("5x7-q1", (5, 7), both(1)),
    Golden("5x7-q8-context", (5, 7), context(8)),
    Golden("5x7-q5-embedded", (5, 7), both(5), embedded=True),
    Golden("1x300-q5", (1, 300), both(5)),
    Golden("64x48-q1", (64, 48), both(1)),
    Golden("64x48-q3-q7", (64, 48), both(3, 7)),
    Golden("64x48-q5-context", (64, 48), context(5)),
    Golden("64x48-q8-extreme", (64, 48), both(8), extreme=True),
    Golden("64x48-q6-further", (64, 48), both(6), further=(("context", 1), ("detail", 4))),
    Golden("260x258-q5-context-tiles", (260, 258), context(5), tile=256),
    Golden("300x20-q4-tiles", (300, 20), both(4), tile=256),
    Golden(
        "64x48-mixed",
        (64, 48),
        {**both(2), "tokens": ("plain-int8", 0), "deep": ("plain-fp16", 0), "summary": ("vector-fp16", 0)},
        view=RESIZED,
    ),
    Golden(
        "33x20-plain",
        (33, 20),
        {"tokens": ("plain-bf16", 0), "deep": ("plain-int8", 0), "cls": ("vector-fp32", 0)},
        view=View((48, 160)),
    ),
    Golden("9x14-pixels", (9, 14), {"pixels": ("pixels", 0), "context": ("pixels", 0)}),
    Golden("258x20-plain-tiles", (258, 20), {"context": ("plain-int8", 0)}, tile=256),
)


def numbers(seed: str) -> Iterator[int]:
    """Endless 32-bit integers that are the same on every machine."""
    block = 0
    while True:
        yield from np.frombuffer(hashlib.sha256(f"{seed} {block}".encode()).digest(), "<u4").tolist()
        block += 1


def weights(name: str, bands: int, components: int) -> np.ndarray:
    """8 bands 3 3 K 9, int32: about the size of fitted ones."""
    usual = (300, 30, 3, 60, 8, 40, 150, 60, 100)
    shape = (8, bands, 3, 3, components)
    source = numbers(f"weights {name}")
    flat = [
        typical * (64 + next(source) % 128) // 128 for _ in range(int(np.prod(shape))) for typical in usual
    ]
    return np.array(flat, np.int32).reshape(*shape, 9)


def level(name: str, stride: int, parent: str, components: int, smooth: int, depth: int) -> LevelTables:
    places = np.arange(8)
    hadamard = np.array([[(-1) ** bin(i & j).count("1") for j in places] for i in places], np.float32)
    bands = depth + 2 if smooth else 1
    source = numbers(f"offsets {name}")
    offsets = [next(source) % 16 / 64 for _ in range(8 * bands * components * 3)]
    return LevelTables(
        name=name,
        stride=stride,
        parent=parent,
        smooth=smooth,
        depth=depth,
        scale=(0.25 + places / 8).astype(np.float32),
        mean=(places / 4 - 1).astype(np.float32),
        basis=hadamard[:, :components] * np.float32(0.35355338),
        weights=weights(name, bands, components),
        offsets=np.array(offsets, np.float32).reshape(8, bands, components, 3),
    )


def counts() -> np.ndarray:
    """64 geometric distributions over 20 symbols: each next symbol (c + 1) / (c + 9) times as likely."""
    rows = []
    for c in range(64):
        share = [(c + 1) ** k * (c + 9) ** (19 - k) for k in range(20)]
        row = [65_516 * x // sum(share) + 1 for x in share]
        row[0] += 65_536 - sum(row)
        rows.append(row)
    return np.array(rows, np.int64)


def classes() -> np.ndarray:
    """4096 classes, even in the logarithm: five to each power of two."""
    found = []
    for size in range(1, 4097):
        power = size.bit_length() - 1
        found.append(min(63, 5 * power + (5 * size >> power) - 5))
    return np.array(found, np.uint8)


def tables() -> Tables:
    levels = (level("context", 4, "", 4, 2, 3), level("detail", 2, "context", 3, 0, 0))
    steps = [(s, s) for s in (4.0, 3.0, 2.25, 1.75, 1.25, 1.0, 0.75, 0.5)]
    return Tables("golden-1", levels, np.array(steps, np.float32), counts(), classes())


def symbols(seed: str, facts: LevelTables, size: tuple[int, int], quality: int, extreme: bool) -> Bands:
    """Integers of one tile: mostly zero, larger in coarse bands and first components, one always zero."""
    source, bands = numbers(seed), []
    for index, shape in enumerate(band_shapes(facts, size)):
        band = np.zeros(shape, np.int32)
        for place in np.ndindex(*shape):
            drawn = next(source)
            length = (drawn & -drawn).bit_length() if drawn else 32  # n with probability 2^-n
            scale = quality * (index + 1) * (4 if place[0] == 0 else 2)
            band[place] = (length - 1) * scale // 16 * (-1 if drawn >> 31 else 1)
        if shape[0] > 1:
            band[1] *= index % 2 == 0
        bands.append(band)
    if extreme:
        flat = bands[0].reshape(-1)
        flat[: 2 * len(EXTREMES) : 2] = EXTREMES
        flat[1 : 2 * len(EXTREMES) : 2] = [-x for x in EXTREMES]
    return bands


def further(seed: str, count: int, shape: tuple[int, ...]) -> Further | None:
    """`count` components of a level C h w beside those of the tables: sixteenths along, few integers but large ones."""
    if not count:
        return None
    source = numbers(f"further {seed}")
    directions = [(next(source) % 33 - 16) / 16 for _ in range(count * shape[0])]
    integers = [
        (drawn % 40 - 20) * (drawn >> 16) % 600 - 300 if (drawn := next(source)) % 7 == 0 else 0
        for _ in range(count * shape[1] * shape[2])
    ]
    return Further(
        np.array(directions, np.float16).reshape(count, shape[0]),
        np.array(integers, np.int32).reshape(count, 1, *shape[1:]),
    )


def values(seed: str, shape: tuple[int, ...]) -> torch.Tensor:
    """1 C ...: fractions that float16 rounds, one channel of zeros, one of large, one of very small numbers.

    Of levels called `deep` and `pixels`: ramps, for which differences are shorter.
    """
    if seed.endswith(("deep", "pixels")):
        return (torch.arange(float(np.prod(shape))).reshape(shape) / 8)[None]
    source = numbers(seed)
    flat = [(next(source) % 8191 - 4095) / 1024 for _ in range(int(np.prod(shape)))]
    x = torch.tensor(flat, dtype=torch.float32).reshape(shape)
    if len(shape) == 3:
        x *= torch.tensor([1.0, 0.0, 8192.0, 2.0**-20] + [1.0] * (shape[0] - 4))[:, None, None]
    return x[None]


def codecs() -> dict[str, Codec]:
    """Every codec there is, that with tables with those of the goldens."""
    fitted = tables()
    return {name: codec_named(name, fitted.data if name == "transform" else None) for name in NAMES}


def shape_of(level: Level, size: tuple[int, int]) -> tuple[int, ...]:
    """Of a level of a picture or tile that was seen at `size`."""
    return (level.channels, *(-(-edge // level.stride) for edge in size)) if level.stride else (level.channels,)


class Made:
    """One golden as it is being made: its levels, and what must come out of them."""

    def __init__(self, golden: Golden, known: dict[str, Codec]) -> None:
        self.golden, self.known = golden, known
        self.expected: dict[str, np.ndarray] = {}
        self.levels: dict[str, Coded] = {}
        self.decoded: dict[str, list[Parent]] = {}  # level -> tiles

    def add(self, name: str, codec: Codec, quality: int) -> None:
        golden, level = self.golden, SPEC.level(name)
        native = View(padded(golden.size, SPEC.grid))
        view = native if codec.name == "transform" or golden.view is None else golden.view
        tile = golden.tile if level.stride else 0
        windows = list(tiles(view.size, tile))
        above = codec.parent(name)
        parts = []
        self.decoded[name] = []
        for index, window in enumerate(windows):
            shape = shape_of(level, window.size)
            parent = self.decoded[above][index] if above else None
            data, held = self.encoded(name, codec, quality, index, shape, parent)
            self.decoded[name].append(codec.decode(name, data, shape, quality, parent))
            for band, x in enumerate(held):
                self.expected[f"{golden.name}/{index}/{name}/{band}"] = x
            parts.append(data)
        base = self.levels[above].crc if above else 0
        shape = shape_of(level, view.size)
        stream = bitstream.seal(parts, tile)
        self.levels[name] = Coded(codec.name, codec.tables, quality, shape, view, stream, tile, above, base)
        self.expected[f"{golden.name}/features/{name}"] = sampled(self.whole(name, windows).numpy())

    def encoded(
        self, name: str, codec: Codec, quality: int, index: int, shape: tuple[int, ...], parent: Parent | None
    ) -> tuple[bytes, list[np.ndarray]]:
        seed = f"{self.golden.name} {index} {name}"
        if not isinstance(codec, TransformCodec):
            x = values(seed, shape)
            if codec.name == "pixels":
                x = (x * 999).long().remainder(256) / 255
            data, held = codec.encode(name, x, quality)
            return data, [np.asarray(held)]
        bands = symbols(seed, codec.fitted.level(name), (shape[1], shape[2]), quality, self.golden.extreme)
        held = Symbols(bands, further(seed, dict(self.golden.further).get(name, 0), shape))
        data = codec.write(name, held, quality, None if parent is None else parent.symbols.bands)
        return data, bands if held.further is None else [*bands, held.further.integers]

    def whole(self, name: str, windows: list[Window]) -> torch.Tensor:
        parts = [(window, {name: tile.values}) for window, tile in zip(windows, self.decoded[name], strict=True)]
        if len(parts) == 1:
            return parts[0][1][name]
        outer = Window(0, 0, windows[-1].bottom, windows[-1].right)
        return assemble(outer, parts, {name: SPEC.level(name).stride})[name]


def generate(folder: Path) -> None:
    if bitstream.VERSION != 2:
        raise SystemExit(f"these are the goldens of format 2; this chiasm writes {bitstream.VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    fitted, known = tables(), codecs()
    (folder / "tables.bin").write_bytes(fitted.data)
    expected: dict[str, np.ndarray] = {}
    for golden in GOLDENS:
        made = Made(golden, known)
        for name, (codec, quality) in golden.levels.items():
            made.add(name, known[codec], quality)
        embedded = {fitted.name: fitted.data} if golden.embedded else {}
        packet = Packet(SPEC.name, golden.size, made.levels)
        (folder / f"{golden.name}.chm").write_bytes(bitstream.write(packet, embedded))
        expected |= made.expected
    np.savez_compressed(folder / "expected.npz", **expected)


def sampled(x: np.ndarray) -> np.ndarray:
    """Every n-th value of a map, at most 400 of them."""
    return x.reshape(-1)[:: -(-x.size // 400)]


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
