"""How fast one picture is encoded, packed, read and drawn, beside JPEG, WebP and AVIF.

    python benchmarks/speed.py [--data FOLDER] [--threads 2] [--repeats 15] [--json OUT]

Every row is timed in turn, round after round, in one process, so that ratios hold whatever the machine does;
medians with the 10th and 90th percentile over all pictures and rounds. Nothing is read from disk, and weights
are loaded before. chiasm runs channels-last, its encoder in bfloat16 where a row says so; the rivals are
Pillow's codecs at quality 90 (JPEG, optimised), 80 (WebP, method 4) and 75 (AVIF, its default speed), with as
many threads as we have. Pictures: 768 x 512 from a folder (Kodak's, say), else one made of skimage's astronaut.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import AvifImagePlugin, Image

import workbench
from chiasm.contracts import View
from chiasm.features.layout import pad, padded
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.tiles import Seen, coded_levels
from chiasm.images import Picture, decode, find

QUALITY = 5
LEVELS = ("context", "detail")
RIVALS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 90, "optimize": True},
    "WebP": {"quality": 80, "method": 4},
    "AVIF": {"quality": 75},
}
Jobs = dict[str, Callable[[], object]]


def pictures(data: list[Path], most: int) -> list[Picture]:
    """Pictures of 768 x 512, either way up."""
    if not data:
        from skimage.data import astronaut

        face = astronaut()
        return [Picture(np.concatenate([face, face[:, :255:-1]], axis=1), "", 0, "astronaut and mirror image")]
    found = [decode(path) for path in find(data)]
    chosen = [picture for picture in found if sorted(picture.size) == [512, 768]][:most]
    if not chosen:
        raise SystemExit(f"no picture of 768 x 512 pixels among {len(found)} in {', '.join(map(str, data))}")
    return chosen


def ours(fast: Pipeline, exact: Pipeline, picture: Picture) -> tuple[Jobs, bytes]:
    """What chiasm does with one picture; `fast` encodes in bfloat16, `exact` in float32."""
    size = padded(picture.size, fast.space.grid)
    pixels = pad(picture.tile(0, 0, *picture.size), size)[None]
    data = fast.pack_picture(picture, QUALITY)
    encoded, decoded = fast.encode_pixels(pixels), fast.opened(data).whole(LEVELS)
    _, choices = fast.choices(LEVELS, QUALITY)
    view = View(size)
    jobs: Jobs = {
        "stem, float32": lambda: exact.encode_pixels(pixels),
        "stem, bfloat16": lambda: fast.encode_pixels(pixels),
        "features to streams": lambda: coded_levels(fast.space, Seen(view, 0, [encoded]), choices),
        "pixels to packet, bfloat16": lambda: fast.pack_picture(picture, QUALITY),
        "packet to features": lambda: fast.opened(data).whole(LEVELS),
        "packet to context alone": lambda: fast.opened(data).whole(("context",)),
        "features to pixels": lambda: fast.drawing(decoded),
        "packet to pixels": lambda: fast.unpack(data),
    }
    return jobs, data


def rival(name: str, image: Image.Image) -> tuple[Jobs, bytes]:
    def save() -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, name, **RIVALS[name])
        return buffer.getvalue()

    data = save()
    return {f"{name} encode": save, f"{name} decode": lambda: Image.open(io.BytesIO(data)).convert("RGB")}, data


def psnr(shown: np.ndarray, picture: Picture) -> float:
    error = np.mean((shown.astype(np.float64) - picture.pixels) ** 2)
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


def measure(jobs: Jobs, repeats: int, spent: dict[str, list[float]]) -> None:
    """Three rounds thrown away, then `repeats` rounds, each of every job in turn."""
    for turn in range(3 + repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn >= 3:
                spent.setdefault(name, []).append(1e3 * (time.perf_counter() - start))


def run(chosen: list[Picture], repeats: int) -> dict[str, object]:
    fast, exact = (Pipeline.load("ns-rgb", precision=kind) for kind in ("bfloat16", "float32"))
    spent: dict[str, list[float]] = {}
    bits: dict[str, list[float]] = {}
    quality: dict[str, list[float]] = {}
    for picture in chosen:
        jobs, data = ours(fast, exact, picture)
        files = {"chiasm": (data, fast.unpack(data))}
        image = Image.fromarray(picture.pixels)
        for name in RIVALS:
            more, data = rival(name, image)
            jobs |= more
            files[name] = (data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        for name, (data, shown) in files.items():
            bits.setdefault(name, []).append(8 * len(data) / (picture.size[0] * picture.size[1]))
            quality.setdefault(name, []).append(psnr(shown, picture))
        measure(jobs, repeats, spent)
    return {
        "ms": {name: summary(values) for name, values in spent.items()},
        "bits_per_pixel": {name: round(statistics.mean(values), 3) for name, values in bits.items()},
        "psnr_db": {name: round(statistics.mean(values), 2) for name, values in quality.items()},
    }


def summary(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {"median": round(middle, 2), "p10": round(low, 2), "p90": round(high, 2)}


def ratios(ms: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over each rival's; below 1 we are faster."""
    pairs = {f"pixels to packet / {name} encode": ("pixels to packet, bfloat16", f"{name} encode") for name in RIVALS}
    pairs |= {f"packet to features / {name} decode": ("packet to features", f"{name} decode") for name in RIVALS}
    pairs |= {f"packet to pixels / {name} decode": ("packet to pixels", f"{name} decode") for name in RIVALS}
    pairs["stem float32 / bfloat16"] = ("stem, float32", "stem, bfloat16")
    pairs["context alone / both levels"] = ("packet to context alone", "packet to features")
    return {name: round(ms[a]["median"] / ms[b]["median"], 3) for name, (a, b) in pairs.items()}


def show(results: dict[str, object]) -> None:
    print(json.dumps(results["machine"], indent=1))
    print(f"\n{'ms, 768 x 512':<34}{'median':>9}{'p10':>9}{'p90':>9}")
    for name, row in results["ms"].items():
        print(f"{name:<34}{row['median']:>9.1f}{row['p10']:>9.1f}{row['p90']:>9.1f}")
    print(f"\n{'same pictures':<34}{'bpp':>9}{'dB':>9}")
    for name, value in results["bits_per_pixel"].items():
        print(f"{name:<34}{value:>9.2f}{results['psnr_db'][name]:>9.2f}")
    print("\nratios of medians (below 1: ours is faster)")
    for name, value in results["ratios"].items():
        print(f"  {name:<44}{value:>8.2f}")


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of 768 x 512 pictures")
    parser.add_argument("--pictures", type=int, default=6, help="at most so many of them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    AvifImagePlugin.DEFAULT_MAX_THREADS = options.threads
    chosen = pictures(options.data, options.pictures)
    facts = {"machine": workbench.machine(options.threads), "pictures": [Path(picture.uri).name for picture in chosen]}
    results = {**facts, **run(chosen, options.repeats)}
    results["ratios"] = ratios(results["ms"])
    show(results)
    workbench.write(results, options.json)


if __name__ == "__main__":
    main()
