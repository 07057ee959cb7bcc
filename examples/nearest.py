"""Which stored picture is most like this one? python examples/nearest.py photos.lance KEY_OR_PATH

A plain answer without any training: compare the mean and spread of every channel of `context`.
"""

from __future__ import annotations

import sys

import torch

import chiasm


def describe(pipeline: chiasm.Pipeline, key: str) -> torch.Tensor:
    """A vector of 128 numbers."""
    context = pipeline.features(key, levels=["context"])["context"]  # 1 64 H/4 W/4
    return torch.cat([context.mean((2, 3)), context.std((2, 3))], dim=1)[0]


def main(store: str, wanted: str) -> None:
    with chiasm.open(store) as pipeline:
        mine = pipeline.store.get(wanted, {}).key
        vectors = {key: describe(pipeline, key) for key in pipeline.keys()}
        others = [key for key in vectors if key != mine]
        for key in sorted(others, key=lambda key: float((vectors[key] - vectors[mine]).norm()))[:5]:
            distance = float((vectors[key] - vectors[mine]).norm())
            print(f"{distance:8.2f}  {key[:12]}  {', '.join(pipeline.store.get(key, {}).uris)}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
