"""The denoising head against the pixel network DnCNN-17: quality at equal training, and speed.

    python benchmarks/denoise.py --run runs/dncnn --train FOLDER [FOLDER ...]     trains DnCNN by the recipe `denoise`
    python benchmarks/denoise.py --run runs/dncnn [--data ROOT] [--json OUT]      speed; with ROOT, quality too

Both are trained by the same recipe, on the same crops and noise, for the same steps; the head starts as the one that
draws, DnCNN from He's initialisation. Speed: 512 x 512, medians, each side channels-last with BatchNorm folded, in
float32 and in bfloat16; ratios within one run. ROOT holds kodak/ and, for real noise, polyu/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

import workbench
from baselines.dncnn import DnCNN
from chiasm import config as configs
from chiasm import models
from chiasm.evaluation.protocols.denoising import evaluate_denoise, read_pairs, smoothed, ways_of
from chiasm.evaluation.protocols.pictures import read_folder
from chiasm.flow.pipeline import Pipeline
from chiasm.training.loop import Where, train
from chiasm.training.recipes.denoise import DenoiseConfig, DenoiseRecipe, PixelDenoiser

SIZE = 512


def trained(run: Path) -> nn.Module:
    """DnCNN with the averaged weights of a run, BatchNorm folded."""
    network = DnCNN()
    with safe_open(run / "last.safetensors", framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    prefix = "average/network."
    network.load_state_dict({name.removeprefix(prefix): x for name, x in held.items() if name.startswith(prefix)})
    return network.eval().folded().requires_grad_(False)


def quality(pipeline: Pipeline, head: nn.Module, rival: nn.Module, data: Path) -> dict[str, Mapping[str, float]]:
    """Noise -> way -> mean PSNR in dB."""
    ways = ways_of(pipeline.encode_pixels, pipeline.coded, lambda features: head(features)["denoise"])
    ways |= {"DnCNN-17": rival, "non-local means": smoothed}
    real = read_pairs(data / "polyu") if (data / "polyu").is_dir() else []
    with torch.inference_mode():
        return dict(evaluate_denoise(ways, read_folder(data / "kodak"), real).psnr)


def speed(head: nn.Module, rival: nn.Module, repeats: int) -> dict[str, dict[str, float]]:
    """Format -> what -> milliseconds, and the two ratios."""
    networks = [module.to(memory_format=torch.channels_last) for module in (models.encoder("ns-rgb"), head, rival)]
    pixels = torch.rand(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        maps = networks[0](pixels)
        features = {name: x.contiguous(memory_format=torch.channels_last) for name, x in maps.items()}
        found = {}
        for name, half in (("float32", False), ("bfloat16", True)):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                calls = {
                    "encoder": partial(networks[0], pixels),
                    "head": partial(networks[1], features),
                    "DnCNN-17": partial(networks[2], pixels),
                }
                row = workbench.milliseconds(calls, repeats)
            row["DnCNN over head"] = round(row["DnCNN-17"] / row["head"], 2)
            row["DnCNN over encoder and head"] = round(row["DnCNN-17"] / (row["encoder"] + row["head"]), 2)
            found[name] = row
    return found


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--run", type=Path, help="folder of DnCNN's training run (default: untrained, for speed)")
    parser.add_argument("--train", nargs="+", type=Path, help="folders of photographs to train on")
    parser.add_argument("--set", nargs="*", default=[], help="differences of the recipe's config, key=value")
    parser.add_argument("--data", type=Path, help="folder with kodak/ and polyu/")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if options.train:
        config = configs.load(DenoiseConfig, None, options.set)
        recipe = DenoiseRecipe.load(config, options.train, PixelDenoiser(DnCNN()))
        train(recipe, options.run, Where(), lambda line: print(line, flush=True))
        return
    head = models.head("denoise", "ns-1")
    rival = trained(options.run) if options.run else DnCNN().eval().folded()
    found: dict[str, object] = {"machine": workbench.machine(), "speed, ms": speed(head, rival, options.repeats)}
    if options.data:
        found["PSNR, dB"] = quality(Pipeline.load(), head, rival, options.data)
    print(json.dumps(found, indent=1))
    workbench.write(found, options.json)


if __name__ == "__main__":
    main()
