"""The two comparisons of docs/results.md that no verb makes, on every STEP-th picture of a folder.

    python benchmarks/ablations.py --data KODAK --raw runs/a/raw.safetensors runs/untold/raw.safetensors --untold 2
    python benchmarks/ablations.py --data KODAK --step 6 --space runs/short/ns.safetensors ...

raw: RAW encoders of short runs through the pinned unseen sensors and noises: PSNR in dB and alignment (L1), as
`evaluate raw` has them, without its rivals. untold: which of them, counted from 1, were trained with told=false.
space: equivariance (L1) of the shipped encoder and of others, all amplitudes of their spaces set to one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import workbench
from chiasm import models
from chiasm.contracts import Features
from chiasm.datasets import synthetic_raw
from chiasm.encoders.ns import SpaceEncoder
from chiasm.evaluation.meters.distances import distance, relative, spread
from chiasm.evaluation.meters.metrics import psnr, quantised
from chiasm.evaluation.protocols.equivariance import equivariance
from chiasm.evaluation.protocols.pictures import Picture, read_folder
from chiasm.evaluation.protocols.raw import BORDER, CLEAN, cases
from chiasm.features.plane import double
from chiasm.flow.pipeline import Pipeline

INNER = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))


def raw_encoder(weights: Path) -> SpaceEncoder:
    encoder = SpaceEncoder("raw")
    encoder.load_state_dict({name.removeprefix("encoder."): x.float() for name, x in load_file(weights).items()})
    return encoder.eval().requires_grad_(False)


def raw_scores(
    pipeline: Pipeline, encode_raw: Callable[[synthetic_raw.Synthetic], Features], pictures: Sequence[Picture]
) -> dict[str, dict[str, float]]:
    """Noise -> PSNR, and alignment of each level."""
    encode, decode = pipeline.encode_pixels, pipeline.drawing
    units, found = spread(encode, pictures), {}
    held: dict[str, list[tuple[float, dict[str, object]]]] = {}
    for _, noise, made in cases(pictures):
        features, wanted = encode_raw(made), encode(made.target)
        score = float(psnr(quantised(decode(features))[INNER], quantised(made.target)[INNER]))
        gaps = {level: distance(x, wanted[level]) for level, x in features.items()}
        held.setdefault(noise.name if noise else CLEAN, []).append((score, gaps))
    for name, each in held.items():
        apart = relative({level: [gaps[level] for _, gaps in each] for level in units}, units)
        levels = {level: round(gap.l1, 3) for level, gap in apart.items()}
        found[name] = {"PSNR, dB": round(sum(score for score, _ in each) / len(each), 2)} | levels
    return found


def level_amplitudes(encoder: SpaceEncoder, pixels: Tensor) -> Features:
    """The features with every amplitude set to one."""
    context, finer = encoder.parts(pixels)
    return {"context": context, "detail": double(context) + finer}


def seen_by(encoder: SpaceEncoder, told: bool, made: synthetic_raw.Synthetic) -> Features:
    return encoder(made.mosaic, made.condition if told else None)


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--data", type=Path, help="folder of pictures; without it nothing is measured")
    parser.add_argument("--step", type=int, default=3)
    parser.add_argument("--raw", type=Path, nargs="*", default=[])
    parser.add_argument("--untold", type=int, nargs="*", default=[])
    parser.add_argument("--space", type=Path, nargs="*")
    options = parser.parse_args()
    if options.data is None:
        print("nothing measured: name the pictures with --data FOLDER")
        return
    pictures = read_folder(options.data)[:: options.step]
    found: dict[str, object] = {"machine": workbench.machine(), "pictures": len(pictures)}
    with torch.inference_mode():
        if options.raw:
            pipeline = Pipeline.load(precision="float32")
            for number, weights in enumerate(options.raw, 1):
                encode = partial(seen_by, raw_encoder(weights), number not in options.untold)
                found[weights.parent.name] = raw_scores(pipeline, encode, pictures)
        if options.space is not None:
            encoders = {"shipped": models.encoder("ns-rgb")}
            encoders |= {weights.parent.name: models.space_of(weights)[0] for weights in options.space}
            for name, encoder in encoders.items():
                levels = equivariance(partial(level_amplitudes, encoder), None, pictures).levels
                found[f"{name}, amplitudes of one"] = {level: round(gap.l1, 3) for level, gap in levels.items()}
    print(json.dumps(found, indent=1))
    workbench.write(found, options.json)


if __name__ == "__main__":
    main()
