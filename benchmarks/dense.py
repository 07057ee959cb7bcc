"""The head `dense` against pixel networks of equal size: training them by the same recipe, and speed.

    python benchmarks/dense.py --train nyuv2 [FOLDER ...] --task depth --run runs/pixel-depth [--set steps=6000]
    python benchmarks/dense.py [--json OUT]                                                       speed

A pixel network is the same head behind a stem of convolutions of the encoder's size, trained from the first layer on
by the same recipe, on the same views, for the same steps. Speed: 320 x 240, medians, each side channels-last with
BatchNorm folded, in float32 and bfloat16; ratios within one run. The exchange between tasks is timed on 1, 2 and 4
times the pixels.
"""

from __future__ import annotations

import json
import resource
from functools import partial
from pathlib import Path

import torch

import workbench
from chiasm import config as configs
from chiasm import zoo
from chiasm.contracts import Features
from chiasm.encoders.space import NS
from chiasm.tasks.dense import DenseHead, folded
from chiasm.training.loop import Where, train
from chiasm.training.recipes.dense import SPECS, DenseConfig, DenseRecipe, PixelNetwork

SIZE = (240, 320)


def channels_last(features: Features) -> Features:
    return Features({name: x.contiguous(memory_format=torch.channels_last) for name, x in features.maps.items()})


def speed(repeats: int) -> dict[str, dict[str, float]]:
    """Format -> what -> milliseconds, and the ratios."""
    torch.manual_seed(0)
    encoder = zoo.encoder("ns-rgb").to(memory_format=torch.channels_last)
    head = folded(zoo.head("depth", "ns-1")).to(memory_format=torch.channels_last)
    rivals = {
        name: folded(PixelNetwork(DenseHead(NS, (spec,)))).to(memory_format=torch.channels_last)
        for name, spec in SPECS.items()
    }
    pixels = torch.rand(1, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    nothing = torch.zeros(1, dtype=torch.int64)
    found = {}
    with torch.inference_mode():
        features = channels_last(encoder(pixels))
        for name, half in (("float32", False), ("bfloat16", True)):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                calls = {
                    "encoder": partial(encoder, pixels),
                    "four tasks from features": partial(head, features),
                    **{f"pixels to {task}": partial(rival, pixels, nothing) for task, rival in rivals.items()},
                }
                row = workbench.milliseconds(calls, repeats)
            four = sum(row[f"pixels to {task}"] for task in rivals)
            both = row["encoder"] + row["four tasks from features"]
            row["four pixel networks over four tasks from features"] = round(four / row["four tasks from features"], 2)
            row["four pixel networks over encoder and head"] = round(four / both, 2)
            row["frames a second from pixels"] = round(1e3 / both, 1)
            found[name] = row
    return found


def exchange(repeats: int) -> dict[str, float]:
    """Times the exchange's pixels -> milliseconds, bfloat16."""
    layer = zoo.head("depth", "ns-1").exchange
    calls = {}
    for times in (1, 2, 4):
        maps = [torch.randn(1, 32, 28, 35 * times) for _ in SPECS]
        calls[f"{times} x {28 * 35} places"] = partial(layer, maps)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return workbench.milliseconds(calls, repeats)


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--train", nargs="+", type=Path, help="folders called nyuv2, camvid or bsds500")
    parser.add_argument("--task", choices=tuple(SPECS), default="depth")
    parser.add_argument("--run", type=Path, default=Path("runs/pixels"))
    parser.add_argument("--set", nargs="*", default=[], help="differences of the recipe's config, key=value")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    if options.train:
        config = configs.load(DenseConfig, None, [f'tasks=["{options.task}"]', *options.set])
        network = PixelNetwork(DenseHead(NS, (SPECS[options.task],)))
        recipe = DenseRecipe.load(config, options.train, network)
        train(recipe, options.run, Where(), lambda line: print(line, flush=True))
        return
    found: dict[str, object] = {"machine": workbench.machine(), "speed, ms": speed(options.repeats)}
    found["exchange, ms"] = exchange(options.repeats)
    found["peak memory, MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found, indent=1))
    workbench.write(found, options.json)


if __name__ == "__main__":
    main()
