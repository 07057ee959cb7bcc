"""Real sensors: linear raw-RGB pictures of a camera, mosaicked again, against what they develop to.

    python benchmarks/real_raw.py --data FOLDER [--json OUT]

FOLDER holds 16-bit PNGs of linear camera colours, black subtracted, each with NAME_metadata.json beside it, whose
`illuminant_color_raw` is the white (the layout of INTEL-TAU's downscaled set). The target is the picture itself,
balanced and developed; the mosaic is sampled from it, with what noise the camera left in it. The colour matrix is not
known: both sides take 1. PSNR in dB without the outermost 8 pixels, and the alignment of `evaluate raw`.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

import workbench
from chiasm.contracts import Sensor
from chiasm.datasets import synthetic_raw
from chiasm.datasets.pinned_sensors import pinned
from chiasm.evaluation.baselines.demosaicing import METHODS, drawn
from chiasm.evaluation.meters.distances import distance
from chiasm.evaluation.meters.metrics import psnr, quantised
from chiasm.flow.pipeline import Pipeline
from chiasm.images.raw import sensor

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
WHITE = 99.5  # percentile of a picture's balanced values that becomes white: the set does not say its exposure
INNER = (..., slice(8, -8), slice(8, -8))


def png16(path: Path) -> np.ndarray:
    """H W 3 uint16 of a 16-bit RGB PNG that is not interlaced: Pillow would read its upper bytes only."""
    data, place, held = path.read_bytes(), 8, b""
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    assert (bits, colour, data[28]) == (16, 2, 0), f"{path} is no plain 16-bit RGB PNG"
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        held += data[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += length + 12
    rows = np.frombuffer(zlib.decompress(held), np.uint8).reshape(height, 1 + 6 * width).astype(int)
    above, found = np.zeros(6 * width + 6, int), []
    for row in rows:
        line = np.zeros(6 * width + 6, int)  # six zeros first: the pixel left of the picture
        for i in range(6, len(line)):
            left, up, corner = line[i - 6], above[i], above[i - 6]
            slopes = (abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner)
            line[i] = (row[i - 5] + (0, left, up, (left + up) // 2, min(slopes)[2])[row[0]]) % 256
        above = line
        found.append(line[6:].astype(np.uint8))
    return np.stack(found).view(">u2").reshape(height, width, 3).astype(np.uint16)


def read(path: Path) -> tuple[Tensor, Sensor]:
    """Balanced camera colours 1 3 H W, H and W multiples of 4, and the sensor."""
    red, green, blue = json.loads(path.with_name(f"{path.stem}_metadata.json").read_text())["illuminant_color_raw"]
    linear = torch.from_numpy(png16(path).astype(np.float32)).permute(2, 0, 1)[None]
    one = replace(pinned().sensors[0], gains=(green / red, 1.0, green / blue), matrix=IDENTITY, camera=path.stem)
    camera = synthetic_raw.balanced(linear, sensor.gains_of([one]))
    camera = camera / float(np.percentile(camera.numpy(), WHITE))
    height, width = (side // 4 * 4 for side in camera.shape[-2:])
    return camera[..., :height, :width].contiguous(), one


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--data", type=Path, help="the folder; without it nothing is measured")
    options = parser.parse_args()
    if options.data is None:
        print("nothing measured: name the pictures with --data FOLDER")
        return
    pipeline = Pipeline.load(precision="float32")
    encode, decode = pipeline.encode_pixels, pipeline.drawing
    scores: dict[str, list[float]] = {}
    gaps: dict[str, list[float]] = {}
    seen = []
    for path in sorted(options.data.glob("*.png")):
        camera, one = read(path)
        mosaic, matrix = synthetic_raw.mosaic(camera), sensor.matrices([one])
        target = synthetic_raw.develop(camera, matrix)
        features, wanted = pipeline.encode_raw(mosaic, sensor.condition([one])), encode(target)
        seen.append(wanted)
        shown = {"ours": decode(features), "ceiling": decode(wanted)}
        shown |= {method: drawn(mosaic, matrix, method) for method in METHODS}
        for name, pixels in shown.items():
            scores.setdefault(name, []).append(float(psnr(quantised(pixels)[INNER], quantised(target)[INNER])))
        for level, x in features.items():
            gaps.setdefault(level, []).append(distance(x, wanted[level]).l1)
    units = {level: fmean(distance(a[level], b[level]).l1 for a, b in combinations(seen, 2)) for level in gaps}
    found = {
        "machine": workbench.machine(),
        "pictures": len(seen),
        "PSNR, dB": {name: round(fmean(values), 2) for name, values in scores.items()},
        "alignment, L1": {level: round(fmean(values) / units[level], 3) for level, values in gaps.items()},
    }
    print(json.dumps(found, indent=1))
    workbench.write(found, options.json)


if __name__ == "__main__":
    main()
