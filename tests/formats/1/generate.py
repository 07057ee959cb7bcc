"""Makes the golden files of packet format 1, which lie beside this script.

    python tests/formats/1/generate.py [FOLDER]

Nothing here is random or measured: tables and symbols are integers from SHA-256 and a few exact fractions, so
that every machine makes the same packets, and a difference shows a change of format or of the range coder.

    tables.bin     codec tables of a small space, `golden-1`: 8 channels, `context` of 4 components (2 smooth,
                   three wavelet steps), `detail` of 3 on top of it
    *.chm          packets: height x width, quality, and what is special about them
    expected.npz   NAME/TILE/LEVEL/BAND: the int32 symbols, K n h w, which a decoder must give exactly;
                   NAME/features/LEVEL: every n-th value of the synthesised map (f32), n = ceil(size / 400),
                   which it must give within 1e-4 of the map's largest magnitude

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

from chiasm.codecs import packet as bitstream
from chiasm.codecs.bands import Symbols, band_shapes, synthesise
from chiasm.codecs.tables import LevelTables, Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Level, Packet, Space
from chiasm.features.layout import Window, assemble, padded, tiles

SPEC = Space("golden-1", (Level("context", 8, 4), Level("detail", 8, 2)), 4)
BOTH = ("context", "detail")
# Every edge of the buckets of large magnitudes, and the largest magnitude there is.
EXTREMES = (11, 12, 15, 16, 23, 24, 39, 40, 71, 72, 135, 136, 255, 256, 263, 264, 519, 520, 65_000, 66_055)


@dataclass(frozen=True)
class Golden:
    name: str
    size: tuple[int, int]
    quality: int
    levels: tuple[str, ...] = BOTH
    tile: int = 1024
    embedded: bool = False
    extreme: bool = False


GOLDENS = (
    Golden("1x1-q5", (1, 1), 5),
    Golden("5x7-q1", (5, 7), 1),
    Golden("5x7-q8-context", (5, 7), 8, ("context",)),
    Golden("5x7-q5-embedded", (5, 7), 5, embedded=True),
    Golden("1x300-q5", (1, 300), 5),
    Golden("64x48-q1", (64, 48), 1),
    Golden("64x48-q5-context", (64, 48), 5, ("context",)),
    Golden("64x48-q8-extreme", (64, 48), 8, extreme=True),
    Golden("101x70-q5-tile32", (101, 70), 5, tile=32),
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


def symbols(golden: Golden, fitted: Tables, tile: int, size: tuple[int, int]) -> Symbols:
    """Integers of one tile: mostly zero, larger in coarse bands and first components, one always zero."""
    source = numbers(f"symbols {golden.name} {tile}")
    found: Symbols = {}
    for name in golden.levels:
        bands = []
        for index, shape in enumerate(band_shapes(fitted.level(name), size)):
            band = np.zeros(shape, np.int32)
            for place in np.ndindex(*shape):
                drawn = next(source)
                length = (drawn & -drawn).bit_length() if drawn else 32  # n with probability 2^-n
                scale = golden.quality * (index + 1) * (4 if place[0] == 0 else 2)
                band[place] = (length - 1) * scale // 16 * (-1 if drawn >> 31 else 1)
            if shape[0] > 1:
                band[1] *= index % 2 == 0
            bands.append(band)
        found[name] = bands
    if golden.extreme:
        for bands in found.values():
            flat = bands[0].reshape(-1)
            flat[: 2 * len(EXTREMES) : 2] = EXTREMES
            flat[1 : 2 * len(EXTREMES) : 2] = [-x for x in EXTREMES]
    return found


def generate(folder: Path) -> None:
    if bitstream.VERSION != 1:
        raise SystemExit(f"these are the goldens of format 1; this chiasm writes {bitstream.VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    fitted = tables()
    codec = TransformCodec(fitted)
    (folder / "tables.bin").write_bytes(fitted.data)
    expected: dict[str, np.ndarray] = {}
    strides = {level.name: level.stride for level in SPEC.levels}
    for golden in GOLDENS:
        size = padded(golden.size, SPEC.grid)
        parts: dict[str, list[bytes]] = {name: [] for name in golden.levels}
        maps = []
        for index, window in enumerate(tiles(size, golden.tile)):
            integers = symbols(golden, fitted, index, window.size)
            for name, stream in codec.encode(integers, golden.quality).items():
                parts[name].append(stream)
            for name, bands in integers.items():
                expected |= {f"{golden.name}/{index}/{name}/{band}": x for band, x in enumerate(bands)}
            maps.append((window, synthesise(integers, fitted, golden.quality, window.size)))
        whole = assemble(Window(0, 0, *size), maps, strides)
        for name, x in whole.items():
            expected[f"{golden.name}/features/{name}"] = sampled(x.numpy())
        streams = {name: bitstream.seal(held, name) for name, held in parts.items()}
        packet = Packet(
            SPEC.name, codec.name, golden.quality, codec.tables, golden.size, golden.tile, streams
        )
        embedded = fitted.data if golden.embedded else b""
        (folder / f"{golden.name}.chm").write_bytes(bitstream.write(packet, embedded))
    np.savez_compressed(folder / "expected.npz", **expected)


def sampled(x: np.ndarray) -> np.ndarray:
    """Every n-th value of a map, at most 400 of them."""
    return x.reshape(-1)[:: -(-x.size // 400)]


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
