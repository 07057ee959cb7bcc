"""Read one level of every picture in a store, and see what it costs: python examples/coarse_only.py photos.lance

`context` is a table of its own: the bytes of `detail` stay on the disk.
"""

from __future__ import annotations

import sys

import chiasm


def main(store: str) -> None:
    with chiasm.open(store) as pipeline:
        for key in pipeline.keys():
            record = pipeline.store.get(key, {"ns-1": ["context"]})
            context = pipeline.features(key, levels=["context"])["context"]  # 1 64 H/4 W/4
            height, width = record.size
            bpp = 8 * len(record.spaces["ns-1"]["context"].coded.data) / (height * width)
            print(f"{key[:12]}  {height} x {width}  context {tuple(context.shape)}  {bpp:.3f} bits per pixel")


if __name__ == "__main__":
    main(sys.argv[1])
