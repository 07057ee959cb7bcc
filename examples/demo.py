"""Real photographs into a store, and out of the store alone: one page and one contact sheet that show what it costs.

    photographs of scikit-image and scikit-learn ──encode──► photos.lance ──reconstruct──► index.html, sheet.png

Run by `make demo`; needs the extra `demo`. Everything is drawn by a fresh Pipeline that has only the store.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from demo_page import write_page, write_sheet

import chiasm
from chiasm.evaluation.baselines.classical import Way, families
from chiasm.evaluation.meters.metrics import psnr
from chiasm.evaluation.protocols.pictures import Picture
from chiasm.images import decode

PHOTOGRAPHS = {
    "skimage": ("data/chelsea.png", "data/astronaut.png", "data/coffee.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
QUALITY = 5
# Fewer points than the protocol `evaluate codec` measures; between them the curve is interpolated.
JPEG, WEBP = (20, 36, 50, 64, 75, 82, 87, 91, 94, 97), (10, 34, 54, 72, 82, 88, 92, 96, 99)
AVIF = (36, 48, 60, 70, 78, 86, 93)
WAYS = (
    Way("JPEG", "4:2:0", JPEG),
    Way("JPEG", "4:4:4", JPEG),
    Way("WebP", "4:2:0", WEBP),
    Way("AVIF", "4:2:0", AVIF),
    Way("AVIF", "4:4:4", AVIF),
)


@dataclass(frozen=True)
class Shown:
    """One photograph and what came out of the store. levels, total: bytes of the streams, and of a whole packet file;
    rivals: bytes of each rival at this PSNR, None where it has no such PSNR."""

    name: str
    original: np.ndarray
    drawn: np.ndarray
    alone: np.ndarray
    decibel: float
    alone_decibel: float
    levels: Mapping[str, int]
    total: int
    rivals: Mapping[str, float | None]


def photographs() -> list[Path]:
    """Files that travel inside the two packages: no download."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed; run pip install 'chiasm[demo]'")
        found += [path for name in names if (path := Path(spec.origin).parent / name).is_file()]
    if not found:
        raise SystemExit("these versions of scikit-image and scikit-learn ship no photographs")
    return found


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def shown(store: chiasm.Pipeline, key: str, path: Path) -> Shown:
    original = decode(path).pixels
    drawn, alone = store.reconstruct(key), store.reconstruct(key, levels=["context"])
    picture = Picture(path.stem, tensor(original))
    decibel = float(psnr(tensor(drawn), picture.pixels))
    rivals = {name: family.bytes_at(decibel) for name, family in families(picture, WAYS).items()}
    levels = store.store.get(key).spaces[store.space.name]
    return Shown(
        name=path.stem,
        original=original,
        drawn=drawn,
        alone=alone,
        decibel=decibel,
        alone_decibel=float(psnr(tensor(alone), picture.pixels)),
        levels={level: len(stored.coded.data) for level, stored in levels.items()},
        total=len(store.pack(path, quality=QUALITY)),
        rivals=rivals,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write into")
    parser.add_argument("--model", default="ns-rgb", help="name among the models")
    parser.add_argument("--limit", type=int, help="take only the first photographs")
    options = parser.parse_args()
    started, paths = time.monotonic(), photographs()[: options.limit]
    folder = options.out / "photos.lance"
    shutil.rmtree(folder, ignore_errors=True)  # the demo shows an encode from nothing, not a second run
    options.out.mkdir(parents=True, exist_ok=True)

    with chiasm.Pipeline.load(options.model, store=folder, writable=True) as pipeline:
        summary = pipeline.encode(paths, quality=QUALITY)
        print(f"encoded {summary.stored} photographs in {summary.seconds:.1f} s")

    rows = []
    with chiasm.Pipeline.load(options.model, store=folder) as pipeline:  # knows nothing but the store
        for path in paths:
            rows.append(shown(pipeline, pipeline.store.get(str(path), {}).key, path))
            print(f"{path.name}: {rows[-1].decibel:.1f} dB, {rows[-1].total} bytes")
    write_sheet(rows, options.out / "sheet.png")
    write_page(rows, QUALITY, options.out / "index.html")
    where = f"{options.out / 'index.html'} and {options.out / 'sheet.png'}"
    print(f"{time.monotonic() - started:.0f} s in all; look at {where}")


if __name__ == "__main__":
    main()
