"""Whatever the bytes of a RAW file are, the outcome is a Mosaic, a Picture or an ImageError."""

from __future__ import annotations

from collections import Counter

import numpy as np

from chiasm.errors import ImageError
from chiasm.images import DecoderPool, Limits, Mosaic, decode
from chiasm.images.isolation.worker import attempt

FILES = 3000
KNOWN = {"damaged", "truncated", "unsupported", "too-large", "not-an-image"}  # and never crashed or timeout

HEADS = {
    "cr2": b"II*\0\x10\0\0\0CR\x02\0",
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    "raf": b"FUJIFILMCCD-RAW 0201FF119504",
    "orf": b"IIRO\x08\0\0\0",
    "rw2": b"IIU\0\x18\0\0\0",
    "x3f": b"FOVb",
    "crw": b"II\x1a\0\0\0HEAPCCDR",
    "mrw": b"\0MRM",
    "iiq": b"II*\0\x08\0\0\0IIIITwaR",
}


def mutated(whole: bytes, rng: np.random.Generator, everywhere: bool) -> bytes:
    """A few bytes changed, mostly in the directory, where they do most harm; at times a piece is cut out."""
    data = bytearray(whole)
    reach = len(data) if everywhere else 600
    for at in rng.integers(4, reach, rng.integers(1, 6)):
        data[at] = rng.choice([0, 1, 255, rng.integers(0, 256)])
    if rng.random() < 0.1:
        start, length = rng.integers(8, len(data)), rng.integers(1, 400)
        del data[start : start + length]
    return bytes(data)


def test_thousands_of_changed_files_stop_nothing(save_dng, tmp_path):
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 4096, (24, 26)).astype(np.uint16)
    matrix = np.array([[0.8, -0.2, -0.1], [-0.5, 1.3, 0.2], [-0.1, 0.2, 0.6]])
    bases = [
        save_dng(counts, "a.dng", black=(1, 2, 3, 4), matrix=matrix, more=[(274, "H", 1, 6)]).read_bytes(),
        save_dng(counts[..., None].repeat(3, 2), "b.dng", matrix=matrix).read_bytes(),
    ]
    paths = []
    for number in range(FILES):
        paths.append(tmp_path / f"{number}.dng")
        paths[-1].write_bytes(mutated(bases[number % 5 == 0], rng, number % 3 == 0))
    outcomes = Counter[str]()
    with DecoderPool(1, Limits(pixels=2**24, seconds=20)) as pool:
        for path, outcome in pool.decode_all(paths):
            assert "the decoder failed" not in str(outcome), path  # `decode` itself raised something else
            if isinstance(outcome, Mosaic):
                light = outcome.tile(0, 0, *outcome.size)
                assert bool(light.isfinite().all())
            outcomes[outcome.reason if isinstance(outcome, ImageError) else outcome.kind] += 1
    assert sum(outcomes.values()) == FILES
    assert set(outcomes) <= {"raw", "rgb"} | KNOWN
    assert outcomes["raw"] > 500
    assert outcomes["rgb"] > 50
    assert outcomes["damaged"] + outcomes["truncated"] + outcomes["unsupported"] > 300


def test_random_bytes_after_any_makers_beginning_are_errors(tmp_path):
    rng = np.random.default_rng(2)
    seen = Counter[str]()
    for name, head in HEADS.items():
        for size in (0, 1, 40, 300, 5000):
            path = tmp_path / f"a.{name}"
            path.write_bytes(head + rng.bytes(size))
            outcome = attempt(decode, path, Limits())
            assert isinstance(outcome, ImageError)
            assert "the decoder failed" not in str(outcome)
            assert str(outcome).startswith(str(path))
            assert "\n" not in str(outcome)
            seen[outcome.reason] += 1
    assert set(seen) <= KNOWN
    assert sum(seen.values()) == 5 * len(HEADS)
