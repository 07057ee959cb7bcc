"""The head `dense` against pixel networks of equal size: training them by the same recipes, scores, and speed.

    python benchmarks/dense.py --teach PHOTOS ... --run runs/pixel-trunk --set teacher=mobilenet.tflite
    python benchmarks/dense.py --train nyuv2 ... --run runs/pixels --set beginning=runs/pixel-trunk/trunk.safetensors
    python benchmarks/dense.py --score nyuv2|camvid|room|... --data DATA --runs runs/pixels runs/dense [--json OUT]
    python benchmarks/dense.py --widths nyuv2|camvid --data DATA [--json OUT]
    python benchmarks/dense.py [--json OUT]                                                       speed

A pixel network is the same head behind a stem of convolutions of the encoder's size, which learns with it from the
first layer on: the same lessons, the same views, the same steps. Speed: 320 x 240, medians, each side channels-last
with BatchNorm folded, in float32 and bfloat16; ratios within one run. The exchange between tasks is timed on 1, 2 and 4
times the pixels. Widths: what the shipped head says of 40 validation frames that were resampled, which is what
`features.working.WORKING` was chosen by.
"""

from __future__ import annotations

import json
import resource
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import workbench
from chiasm import config as configs
from chiasm import models
from chiasm.contracts import Features
from chiasm.datasets import joined
from chiasm.datasets.camvid import CamVid
from chiasm.datasets.nyuv2 import NYUv2
from chiasm.encoders.ns import NS
from chiasm.evaluation.meters.semantics import raised
from chiasm.evaluation.protocols import dense
from chiasm.features.layout import pad, padded
from chiasm.flow.pipeline import Pipeline
from chiasm.heads.dense import DenseHead
from chiasm.heads.trunk import folded
from chiasm.scenes.generated import Scenes
from chiasm.training.loop import Where, train
from chiasm.training.recipes.dense import SPECS, DenseConfig, DenseRecipe, PixelNetwork
from chiasm.training.recipes.trunk import TrunkConfig, TrunkRecipe

SIZE = (240, 320)
WIDTHS = (200, 240, 280, 320, 400, 480, 560, 640)


def channels_last(features: Features) -> Features:
    return {name: x.contiguous(memory_format=torch.channels_last) for name, x in features.items()}


def speed(repeats: int) -> dict[str, dict[str, float]]:
    """Format -> what -> milliseconds, and the ratios."""
    torch.manual_seed(0)
    encoder = models.encoder("ns-rgb").to(memory_format=torch.channels_last)
    head = folded(models.head("depth", "ns-1")).to(memory_format=torch.channels_last)
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
    layer = models.head("depth", "ns-1").exchange
    calls = {}
    for times in (1, 2, 4):
        maps = [torch.randn(1, 32, 28, 35 * times) for _ in SPECS]
        calls[f"{times} x {28 * 35} places"] = partial(layer, maps)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return workbench.milliseconds(calls, repeats)


def teach(folders: list[Path], run: Path, overrides: list[str]) -> None:
    """The recipe `trunk` for a pixel network; leaves trunk.safetensors in `run`."""
    config = configs.load(TrunkConfig, None, overrides)
    torch.manual_seed(config.seed)
    recipe = TrunkRecipe.load(config, folders, pixel_network(tuple(SPECS)))
    lessons = train(recipe, run, Where(), lambda line: print(line, flush=True))
    save_file(lessons.learnt(), run / "trunk.safetensors")


def learn(folders: list[Path], run: Path, overrides: list[str]) -> None:
    """The recipe `dense` for a pixel network; leaves pixels.safetensors in `run`."""
    config = configs.load(DenseConfig, None, overrides)
    torch.manual_seed(config.seed)  # the network is made before the loop begins
    recipe = DenseRecipe.load(config, folders, pixel_network(config.tasks))
    network = train(recipe, run, Where(), lambda line: print(line, flush=True)).network
    held = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(held, run / "pixels.safetensors", {"tasks": ",".join(config.tasks)})


def pixel_network(tasks: tuple[str, ...]) -> PixelNetwork:
    return PixelNetwork(DenseHead(NS, tuple(SPECS[task] for task in tasks)))


def score(name: str, data: Path, runs: list[Path], limit: int | None) -> dict[str, object]:
    """A protocol's scores of runs, pixel networks or heads on the space, and of what can be said without looking."""
    opened = generated(name, limit or 60) if name in ("room", "street") else dense.opened(name, data, limit)
    with Pipeline.load("ns-rgb") as pipeline:
        ways = {run.name: way(run, pipeline, opened.protocol) for run in runs}
        report = dense.evaluate_dense(opened, ways)
    return {"protocol": name, "pictures": report.pictures, "scores": report.scores}


def generated(kind: Literal["room", "street"], count: int) -> dense.Opened:
    """Scenes that no run was trained on (another seed), with the joint classes."""
    protocol = dense.Protocol(kind, ("semantics", "depth", "normals"), joined.SEMANTICS.classes)
    return dense.Opened(protocol, list(Scenes(kind, count, 7)))


def way(run: Path, pipeline: Pipeline, protocol: dense.Protocol) -> dense.Predict:
    file = run / "pixels.safetensors"
    if not file.exists():
        head = models.head_of(run / "dense.safetensors", pipeline.space.name)
        return dense.predictor(pipeline, dense.selected(head, protocol))
    with safe_open(file, "pt") as held:
        network = pixel_network(tuple(held.metadata()["tasks"].split(",")))
    network.load_state_dict(load_file(file))
    fast = folded(network)

    def seen(pixels: Tensor, factor: int) -> Features:
        whole = padded((pixels.shape[-2], pixels.shape[-1]), 4 * factor)
        return fast.features(F.avg_pool2d(pad(pixels, whole), factor), torch.zeros(1))

    return dense.reading(seen, dense.selected(fast.head, protocol), 4)


def widths(name: Literal["nyuv2", "camvid"], data: Path) -> dict[str, object]:
    """Scores of the shipped head on validation frames, by the width at which it sees them."""
    opened = dense.opened(name, data)
    whole = {"nyuv2": NYUv2, "camvid": CamVid}[name].load(data / name, "val")
    chosen = [whole[index * len(whole) // 40] for index in range(40)]
    tasks = tuple(task for task in opened.protocol.tasks if task != "edges")  # their tolerance is of one size
    held = replace(opened, protocol=replace(opened.protocol, tasks=tasks), samples=chosen, training=())
    with Pipeline.load("ns-rgb") as pipeline:
        heads = dense.heads_of(held.protocol, pipeline.space.name)
        report = dense.evaluate_dense(held, {str(width): partial(seen_at, width, pipeline, heads) for width in WIDTHS})
    return {"protocol": f"{name}, validation frames", "pictures": report.pictures, "scores": report.scores}


def seen_at(width: int, pipeline: Pipeline, heads: dense.Heads, pixels: Tensor) -> dict[str, Tensor]:
    """What the heads say of 1 3 H W resampled to `width`, raised to H x W."""
    size = pixels.shape[-2:]
    height = round(size[0] * width / size[1] / 4) * 4
    small = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    maps = {task: raised(x, size) for task, x in heads(pipeline.encode_pixels(small)).items()}
    return maps | ({"depth": maps["depth"] * (width / size[1])} if "depth" in maps else {})


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--teach", nargs="+", type=Path, help="folders of photographs")
    parser.add_argument("--train", nargs="+", type=Path, help="folders called nyuv2, camvid or bsds500")
    parser.add_argument("--run", type=Path, default=Path("runs/pixels"))
    parser.add_argument("--set", nargs="*", default=[], help="differences of the recipe's config, key=value")
    parser.add_argument("--score", help="a protocol of `chiasm evaluate dense`, or room or street: generated")
    parser.add_argument("--widths", choices=("nyuv2", "camvid"), help="scores by the width that the head sees")
    parser.add_argument("--data", type=Path, help="holds a folder called as the protocol")
    parser.add_argument("--runs", nargs="+", type=Path, help="folders of runs to score")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    if options.score and not (options.data and options.runs):
        parser.error("--score wants --data and --runs")
    if options.widths and not options.data:
        parser.error("--widths wants --data")
    if options.teach:
        teach(options.teach, options.run, options.set)
    elif options.train:
        learn(options.train, options.run, options.set)
    else:
        measure(options)


def measure(options: Namespace) -> None:
    """Scores or speed, printed and written."""
    found: dict[str, object] = {"machine": workbench.machine()}
    if options.score:
        found |= score(options.score, options.data, options.runs, options.limit)
    elif options.widths:
        found |= widths(options.widths, options.data)
    else:
        found["speed, ms"] = speed(options.repeats)
        found["exchange, ms"] = exchange(options.repeats)
        found["peak memory, MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found, indent=1))
    workbench.write(found, options.json)


if __name__ == "__main__":
    main()
