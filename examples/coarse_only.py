"""Read one level of every picture in a store, and see what it costs: python examples/coarse_only.py photos.lance

`context` is a column of its own: the bytes of `detail` stay on the disk.
"""

from __future__ import annotations

import sys

import chiasm


def main(store: str) -> None:
    with chiasm.Pipeline.load("ns-rgb", store=store) as pipeline:
        for key in pipeline.keys():
            record = pipeline.store.get(key, levels=["context"])
            context = pipeline.features(key, levels=["context"])["context"]  # 1 64 H/4 W/4
            height, width = record.packet.size
            bpp = 8 * len(record.packet.streams["context"]) / (height * width)
            print(f"{key[:12]}  {height} x {width}  context {tuple(context.shape)}  {bpp:.3f} bits per pixel")


if __name__ == "__main__":
    main(sys.argv[1])
