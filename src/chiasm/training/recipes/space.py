"""Stage 1 of arXiv:2509.20481: build the space on RGB pictures (Eq. 2 and 3), with a rate term of our own.

    loss = (D(coded) + lambda step^2 bits) / (lambda step)  rate and distortion, each crop at a random step
         + fidelity   * L1(uncoded)                         what the codec does not limit
         + alone      * D(context alone) / lambda           `context` means something by itself
         + perceived  * (1 - SSIM)
         + equivariance * (latent Eq. 3  +  0.02 decoded Eq. 3 / lambda)

D is the squared error on the 0..255 scale. With lambda times step^2 as the price of a bit, every step asks
for the same features: at high rate dD/dR is proportional to step^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from PIL import Image
from torch import Tensor, nn

from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.datasets.pictures import PictureSet, crops
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.errors import ConfigError
from chiasm.features.layout import pad
from chiasm.features.plane import Affine, warp
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.training import losses
from chiasm.training.rate import RateModel
from chiasm.training.recipes.sources import read_sets

DECODED = 0.02  # weight of the decoded reading of Eq. 3 beside the latent one
# Names of the layers that start as wavelets. `second` is also what a residual block calls its second convolution:
# those learn as slowly, and the shipped weights were trained so.
LINEAR = ("split", "second", "linear", "merge")
RATE_WARMUP = 100  # steps over which the price of a bit rises from nothing
MARGIN = 24  # pixels from a border within which an encoder sees padding


@dataclass(frozen=True)
class SpaceConfig:
    """Every knob of the recipe `space`. Steps are optimiser steps; weights multiply the terms named above."""

    steps: Count = 8_000
    batch: Annotated[int, Range(low=2)] = 12
    crop: Annotated[int, Range(low=64)] = 128
    rate: Positive = 1.5e-3
    warmup: Annotated[int, Range(low=0)] = 200
    decay: Share = 0.999
    weight_decay: Amount = 0.0
    seed: int = 1
    price: Positive = 26.5
    finest: Positive = 0.35
    coarsest: Positive = 3.5
    fidelity: Amount = 0.1
    alone: Amount = 0.01
    perceived: Amount = 0.5
    equivariance: Amount = 1.0
    compress: bool = True
    validate_every: Count = 500
    save_every: Count = 250

    def __post_init__(self) -> None:
        if self.crop % 32:
            near = self.crop // 32 * 32
            raise ConfigError(f"crop: expected a multiple of 32, got {self.crop}; take {near}")


def draw(config: SpaceConfig, generator: torch.Generator) -> tuple[Tensor, Affine]:
    """What chance decides in one step: the quantiser's step for each crop (B), and one transform.

    Half of the transforms are exact (quarter turns and mirrors), half are small affine ones.
    """
    u = torch.rand(config.batch, generator=generator)
    steps = config.finest * (config.coarsest / config.finest) ** u
    pick = torch.rand(7, generator=generator).tolist()
    if pick[0] < 0.5:
        return steps, Affine.of(degrees=90.0 * int(pick[1] * 4), flip=pick[2] < 0.5)
    shape = Affine.of(
        degrees=30.0 * pick[1] - 15.0,
        scale=0.8 * (1.25 / 0.8) ** pick[3],
        shear=10.0 * pick[4] - 5.0,
        flip=pick[2] < 0.5,
    )
    right, down = (4.0 * round(8 * p - 4) for p in pick[5:7])
    return steps, shape._replace(right=right, down=down)


class SpaceObjective(nn.Module):
    """Encoder, decoder and rate model; `forward` is the whole loss, so that any strategy can wrap it."""

    def __init__(self, config: SpaceConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SpaceEncoder("rgb")
        self.decoder = ReconstructHead(NS)
        self.rate = RateModel()
        self.decoder.alignment = self.encoder.alignment  # one and the same while they train

    def forward(self, pixels: Tensor, steps: Tensor, transform: Affine, progress: float) -> dict[str, Tensor]:
        """Named terms and `loss`.

        pixels: B 3 H W in [0, 1]; steps: B; progress: 0 to 1 while the rate term warms up.
        """
        config, batch, few = self.config, len(pixels), max(1, len(pixels) // 5)
        priced, alignment = max(1, batch // 3), self.encoder.alignment
        encoded = self.encoder.parts(torch.cat([pixels, warp(pixels[:few], transform)]))
        context, finer = (x[:batch] for x in encoded)
        still = alignment.features(context[:few].float(), finer[:few].float())
        bent = alignment.parts(losses.moved(still, NS, transform))
        *coded, bits = self.rate(context, finer, steps, priced) if config.compress else (context, finer, steps * 0)
        exact, last = slice(few, 2 * few), slice(batch - few, batch)
        deep = [coded[0], context[exact], context[last], bent[0]]
        shallow = [coded[1], finer[exact], torch.zeros_like(finer[last]), bent[1]]
        whole = (torch.cat([x.to(context) for x in parts]) for parts in (deep, shallow))
        drawn = self.decoder.draw(*whole).float()
        rough, sharp, alone, turned = torch.split(drawn, [batch, few, few, few])
        bpp = bits[:priced] / (pixels.shape[-2] * pixels.shape[-1])
        distortion = losses.squared(rough, pixels)
        terms = {
            "coded": (distortion / (config.price * steps)).mean(),
            "rate": progress * (steps[:priced] * bpp).mean(),
            "uncoded": config.fidelity * losses.absolute(sharp, pixels[exact]).mean(),
            "alone": config.alone * losses.squared(alone, pixels[last]).mean() / config.price,
            "perceived": config.perceived * losses.dissimilarity(rough[:priced], pixels[:priced]),
        }
        if config.equivariance:
            moved = alignment.features(*(x[batch:].float() for x in encoded))
            latent = losses.latent_equivariance(moved, still, NS, transform, MARGIN)
            decoded = losses.decoded_equivariance(turned, pixels[:few], transform, MARGIN) / config.price
            terms["latent"] = config.equivariance * latent
            terms["decoded"] = config.equivariance * DECODED * decoded
        terms["loss"] = torch.stack(list(terms.values())).sum()
        return terms | {"bpp": bpp.mean().detach(), "mse": distortion.mean().detach()}

    def views(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """`uncoded`, `alone` and `coded` (at step 1): pixels as drawn from each, in [0, 1]; and the bits."""
        context, finer = self.encoder.parts(pixels)
        deep, shallow, bits = self.rate(context, finer, torch.ones(len(pixels)).to(pixels), len(pixels))
        shown = {"uncoded": (context, finer), "alone": (context, torch.zeros_like(finer)), "coded": (deep, shallow)}
        return {name: self.decoder.draw(*seen).float().clamp(0, 1) for name, seen in shown.items()}, bits


@torch.no_grad()
def validate(objective: SpaceObjective, pictures: list[Tensor]) -> dict[str, float]:
    """PSNR in dB uncoded, from context alone, and at step 1 with its estimated bits per pixel; means."""
    sums = dict.fromkeys(("uncoded", "alone", "coded", "bpp"), 0.0)
    for picture in pictures:
        height, width = (n // 32 * 32 for n in picture.shape[-2:])
        x = picture[None, :, :height, :width]
        seen, bits = objective.views(x)
        for name, drawn in seen.items():
            mse = losses.squared(drawn, x).item()
            sums[name] += 10 * math.log10(255.0**2 / max(mse, 1e-6))
        sums["bpp"] += bits.item() / (height * width)
    return {name: value / len(pictures) for name, value in sums.items()}


@dataclass(frozen=True)
class SpaceRecipe:
    """The recipe `space`: pictures from any folder, one file in ten (by hash of its name) held out."""

    config: SpaceConfig
    training: tuple[PictureSet, ...]
    held_out: PictureSet

    @staticmethod
    def load(config: SpaceConfig, folders: Sequence[Path]) -> SpaceRecipe:
        """Read every picture below `folders`; a crop comes from each of them with equal odds. See `read_sets`."""
        return SpaceRecipe(config, *read_sets(folders))

    def modules(self) -> SpaceObjective:
        return SpaceObjective(self.config)

    def pace(self, name: str) -> float:
        """The wavelets that the linear paths start from are good: they move slowly, the rate model fast."""
        if name.startswith("rate."):
            return 10.0
        if "alignment" in name:  # a logit, nearly flat where it starts
            return 60.0
        return 0.1 if any(part in name for part in LINEAR) else 1.0

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]:
        """One step's loss terms: a function of its arguments."""
        pixels = crops(self.training, self.config.batch, self.config.crop, draws).to(device)
        steps, transform = draw(self.config, draws)
        torch.manual_seed(draws.initial_seed() % 2**31)  # the rate model's noise
        terms: dict[str, Tensor] = module(
            pixels.contiguous(memory_format=torch.channels_last),
            steps.to(device),
            transform,
            min(1.0, (step + 1) / RATE_WARMUP),
        )
        return terms

    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """Scores on held-out pictures, and `grid-STEP.png`: original, decoded at step 1, `context` alone."""
        assert isinstance(module, SpaceObjective)
        device = next(module.parameters()).device
        pictures = [self.held_out.tensor(index).to(device) for index in range(len(self.held_out.pictures))]
        grid(module, pictures[:4], folder / f"grid-{step:06d}.png")
        return {name: round(value, 3) for name, value in validate(module, pictures).items()}


@torch.no_grad()
def grid(objective: SpaceObjective, pictures: Sequence[Tensor], path: Path) -> None:
    """Save rows of original, decoded at step 1, and drawn from `context` alone; 256 pixels square each."""
    rows = []
    for picture in pictures:
        x = pad(picture[None, :, :256, :256], (256, 256))
        seen, _ = objective.views(x)
        rows.append(torch.cat([x, seen["coded"], seen["alone"]], dim=3))
    shown = torch.cat(rows, dim=2)[0].mul(255).round().byte().permute(1, 2, 0)
    Image.fromarray(shown.cpu().numpy()).save(path)
