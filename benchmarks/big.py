"""What a picture of 100 megapixels costs, and whether its tiles equal the whole.

    python benchmarks/big.py [--megapixels 100] [--quality 5] [--json OUT]

A JPEG is made of skimage's pictures, side by side with noise. A child encodes it into a store; its memory and
that of its decoding worker is read from /proc every 50 ms (PSS: what both share is counted once; RSS: twice).
Then 256 x 256 pixels about a corner where four tiles meet are decoded from the packet and compared with the
same pixels encoded untiled with 256 more around them, as they are and through the codec (which decides a few
symbols by what else is in its tile, so that two codings of the same features differ by a part of their error).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import workbench
from chiasm.encoders.ns import RECEPTIVE_FIELD
from chiasm.features.layout import Window, assemble, cut
from chiasm.flow.pipeline import Pipeline
from chiasm.flow.see import TILE
from chiasm.flow.tiles import PacketReader
from chiasm.images import decode

MODEL = "ns-rgb"
HALF = 128  # half the edge of the crop that is compared
AROUND = 256  # pixels around it that the untiled side sees: a multiple of the codec's unit
SEAM = 16  # pixels from a tile's border that count as its seam


def make_picture(path: Path, megapixels: float) -> tuple[int, int]:
    """A JPEG of photographs side by side, each with its own brightness and noise."""
    from skimage import data

    photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    blocks = [photo[:300, :400] for photo in photos]
    edge = round((megapixels * 1e6) ** 0.5)
    whole = np.empty((edge, edge, 3), np.uint8)
    chance = np.random.default_rng(0)
    for top in range(0, edge, 300):
        for left in range(0, edge, 400):
            block = blocks[chance.integers(len(blocks))].astype(np.float32)
            block = block * chance.uniform(0.6, 1.1) + chance.standard_normal((*block.shape[:2], 1), np.float32) * 4
            part = whole[top : top + 300, left : left + 400]
            part[:] = block.clip(0, 255)[: part.shape[0], : part.shape[1]]
    Image.fromarray(whole).save(path, quality=92)
    return edge, edge


def child(path: str, store: str, quality: int, threads: int) -> None:
    torch.set_num_threads(threads)
    print(json.dumps({"loaded": time.monotonic()}), flush=True)
    with Pipeline.load(MODEL, store=store, writable=True) as pipeline:
        summary = pipeline.encode([path], quality=quality)
        if summary.stored != 1:
            raise SystemExit(f"not stored: {pipeline.store.failures()}")
    print(json.dumps({"seconds": summary.seconds, "bytes": dict(summary.level_bytes)}), flush=True)


def tree(root: int) -> list[int]:
    """A process and everything below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def memory(processes: list[int]) -> tuple[int, int]:
    """Bytes of all of them: PSS, RSS."""
    sums = {"Pss:": 0, "Rss:": 0}
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, rest = line.partition(" ")
            if name in sums:
                sums[name] += int(rest.split()[0]) * 1024
    return sums["Pss:"], sums["Rss:"]


def encode(path: Path, store: Path, quality: int, threads: int) -> dict[str, object]:
    """Run the child and watch it."""
    command = [sys.executable, __file__, "--child", str(path), str(store), "--quality", str(quality)]
    began, peaks = time.monotonic(), (0, 0)
    with subprocess.Popen(
        [*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as running:
        while running.poll() is None:
            now = memory(tree(running.pid))
            peaks = (max(peaks[0], now[0]), max(peaks[1], now[1]))
            time.sleep(0.05)
        assert running.stdout
        lines = running.stdout.read().splitlines()
    if running.returncode:
        raise SystemExit("the child failed; what it printed is above")
    said = json.loads(lines[-1])
    return {
        "peak_pss_mib": round(peaks[0] / 2**20),
        "peak_rss_sum_mib": round(peaks[1] / 2**20),
        "encode_seconds": round(said["seconds"], 2),
        "process_seconds": round(time.monotonic() - began, 2),
        "stream_bytes": said["bytes"],
    }


def decoded(opened: PacketReader, window: Window) -> dict[str, torch.Tensor]:
    """The maps over one window, from the tiles that meet it."""
    names, parts = tuple(opened.packet.levels), []
    for index, tile in enumerate(opened.windows(names[0])):
        if tile.meet(window):
            parts.append((tile, opened.decoded(names, index)))
    return assemble(window, parts, opened.strides)


def compare(path: Path, store: Path) -> dict[str, object]:
    """Tiled and coded against untiled, near the seams and away from them."""
    with Pipeline.load(MODEL, store=store) as pipeline:
        packet = pipeline.reader.packet(pipeline.keys()[0], pipeline.space)
        opened, quality = pipeline.reader.opened(packet, pipeline.space), packet.levels["context"].quality
        corner = [min(TILE, n // 2 // 64 * 64) for n in packet.size]
        window = Window(corner[0] - HALF, corner[1] - HALF, corner[0] + HALF, corner[1] + HALF)
        outer = window.grown(AROUND, tuple(n // 64 * 64 for n in packet.size))
        pixels = decode(path).tile(outer.top, outer.left, outer.bottom, outer.right)[None]
        strides = opened.strides
        features = pipeline.encode_pixels(pixels)
        untiled = pipeline.coded(features, quality)
        exact = cut(features, strides, window.within(outer))
        quarter = Window(window.top, window.left, corner[0], corner[1])  # what of it lies in the first tile
        sees = RECEPTIVE_FIELD["rgb"]
        seen = quarter.grown(sees, (corner[0] + sees, corner[1] + sees))
        tile = pipeline.encode_pixels(pixels[..., *seen.within(outer).at(1)])
        whole = cut(features, strides, quarter.within(outer))
        uncoded = {
            name: (x - whole[name]).abs().max().item() / whole[name].std().item()
            for name, x in cut(tile, strides, quarter.within(seen)).items()
        }
        coded = cut(untiled, strides, window.within(outer))
        found = decoded(opened, window)
        drawn = [pipeline.drawing(maps).clamp(0, 1) * 255 for maps in (found, coded)]
        inner = slice(32, -32)
        difference = (drawn[0] - drawn[1])[..., inner, inner].abs()
    rows = {name: errors(found[name], exact[name], coded[name], strides[name]) for name in found}
    rows["uncoded, a tile's corner to untiled, at most"] = uncoded
    return {**rows, "drawn, grey levels": {"mean": difference.mean().item(), "most": difference.max().item()}}


def errors(found: torch.Tensor, exact: torch.Tensor, coded: torch.Tensor, stride: int) -> dict[str, float]:
    """RMS over the standard deviation of the features. coding error: of ours at the seam, away, and untiled."""
    edge = found.shape[-1]
    near = torch.zeros(edge, dtype=torch.bool)
    near[edge // 2 - SEAM // stride : edge // 2 + SEAM // stride] = True
    seam = near[:, None] | near[None, :]
    scale = exact.std()

    def rms(difference: torch.Tensor, where: torch.Tensor) -> float:
        return round(float(difference[..., where].square().mean().sqrt() / scale), 5)

    return {
        "coding error at the seam": rms(found - exact, seam),
        "coding error away from it": rms(found - exact, ~seam),
        "coding error untiled, same seam": rms(coded - exact, seam),
        "coding error untiled, away": rms(coded - exact, ~seam),
        "tiled to untiled": rms(found - coded, torch.ones_like(seam)),
    }


def main() -> None:
    parser = workbench.parser(__doc__, child=True)
    parser.add_argument("--megapixels", type=float, default=100.0)
    parser.add_argument("--quality", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.quality, options.threads)
        return
    torch.set_num_threads(options.threads)
    with workbench.workplace(options.folder) as folder:
        path, store = folder / "big.jpg", folder / "big.lance"
        size = make_picture(path, options.megapixels)
        results: dict[str, object] = {"machine": workbench.machine(options.threads), "size": size}
        results["source_bytes"] = path.stat().st_size
        results |= encode(path, store, options.quality, options.threads)
        results["features"] = compare(path, store)
    print(json.dumps(results, indent=1))
    workbench.write(results, options.json)


if __name__ == "__main__":
    main()
