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

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from chiasm.camera import find
from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.contracts import Features
from chiasm.datasets.pictures import PictureSet, crops, held_out
from chiasm.encoders.space import NS, SpaceEncoder
from chiasm.errors import ConfigError
from chiasm.features.layout import pad
from chiasm.features.plane import Affine, warp
from chiasm.tasks.reconstruct import ReconstructHead
from chiasm.training import losses
from chiasm.training.rate import RateModel

DECODED = 0.02  # weight of the decoded reading of Eq. 3 beside the latent one
LINEAR = ("split", "second", "linear", "merge")  # names of the layers that start as wavelets
RATE_WARMUP = 100  # steps over which the price of a bit rises from nothing
VALIDATED = 24  # held-out pictures that are scored
MARGIN = 24  # pixels from a border within which an encoder sees padding


@dataclass(frozen=True)
class SpaceConfig:
    """Every knob of the recipe `space`. Steps are optimiser steps; weights multiply the terms named above."""

    steps: Count = 12_000
    batch: Annotated[int, Range(low=2)] = 12
    crop: Annotated[int, Range(low=64)] = 128
    rate: Positive = 1.5e-3
    warmup: Annotated[int, Range(low=0)] = 200
    decay: Share = 0.999
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


def take(features: Features, start: int, stop: int) -> Features:
    """The pictures start to stop of a batch."""
    return Features({name: x[start:stop] for name, x in features.maps.items()})


class SpaceObjective(nn.Module):
    """Encoder, decoder and rate model; `forward` is the whole loss, so that any strategy can wrap it."""

    def __init__(self, config: SpaceConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SpaceEncoder("rgb")
        self.decoder = ReconstructHead(NS)
        self.rate = RateModel()

    def forward(self, pixels: Tensor, steps: Tensor, transform: Affine, progress: float) -> dict[str, Tensor]:
        """Named terms and `loss`.

        pixels: B 3 H W in [0, 1]; steps: B; progress: 0 to 1 while the rate term warms up.
        """
        config, batch, few = self.config, len(pixels), max(1, len(pixels) // 5)
        twisted = warp(pixels[:few], transform)
        features = self.encoder(torch.cat([pixels, twisted]))
        still = take(features, 0, batch)
        priced = max(1, batch // 3)
        coded, bits = self.rate(still, steps, priced) if config.compress else (still, steps[:priced] * 0.0)
        exact = take(still, few, 2 * few)
        last = take(still, batch - few, batch).maps
        lone = {"context": last["context"], "detail": torch.zeros_like(last["detail"])}
        turned = losses.moved(take(still, 0, few), NS, transform)
        drawn = self.decoder(joined([coded, exact, Features(lone), turned])).float()
        rough, sharp, alone, bent = drawn.split([batch, few, few, few])
        bpp = bits / (pixels.shape[-2] * pixels.shape[-1])
        distortion = losses.squared(rough, pixels)
        price = config.price * steps
        terms = {
            "coded": (distortion / price).mean(),
            "rate": progress * (steps[:priced] * bpp).mean(),
            "uncoded": config.fidelity * losses.absolute(sharp, pixels[few : 2 * few]).mean(),
            "alone": config.alone * losses.squared(alone, pixels[-few:]).mean() / config.price,
            "perceived": config.perceived * losses.dissimilarity(rough[:priced], pixels[:priced]),
        }
        if config.equivariance:
            moved, unmoved = take(features, batch, batch + few), take(still, 0, few)
            latent = losses.latent_equivariance(moved, unmoved, NS, transform, MARGIN)
            decoded = losses.decoded_equivariance(bent, pixels[:few], transform, MARGIN) / config.price
            terms["latent"] = config.equivariance * latent
            terms["decoded"] = config.equivariance * DECODED * decoded
        terms["loss"] = torch.stack(list(terms.values())).sum()
        return terms | {"bpp": bpp.mean().detach(), "mse": distortion.mean().detach()}


def joined(parts: list[Features]) -> Features:
    """One batch of several, in the precision of the second part: the convolutions would cast it again."""
    dtype = parts[1].maps["context"].dtype
    return Features({name: torch.cat([part.maps[name].to(dtype) for part in parts]) for name in NS.names})


@torch.no_grad()
def validate(objective: SpaceObjective, pictures: list[Tensor]) -> dict[str, float]:
    """PSNR in dB uncoded, from context alone, and at step 1 with its estimated bits per pixel; means."""
    sums = dict.fromkeys(("uncoded", "alone", "coded", "bpp"), 0.0)
    for picture in pictures:
        height, width = (n // 32 * 32 for n in picture.shape[-2:])
        x = picture[None, :, :height, :width]
        features = objective.encoder(x)
        coded, bits = objective.rate(features, torch.ones(1).to(x), 1)
        alone = Features({"context": features.maps["context"]})
        for name, seen in {"uncoded": features, "alone": alone, "coded": coded}.items():
            mse = losses.squared(objective.decoder(seen).float().clamp(0, 1), x).item()
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
        """Read every picture below `folders`; a crop comes from each of them with equal odds.

        A folder none of whose names is held out is scored on its first picture. Raises ConfigError when a
        folder holds no readable picture.
        """
        sets: list[PictureSet] = []
        chosen: list[np.ndarray] = []
        for folder in folders:
            files = find([folder])
            aside = [path for path in files if held_out(path.name)][: max(1, VALIDATED // len(folders))]
            kept = [path for path in files if not held_out(path.name)] or files
            sets.append(PictureSet.load(kept or [folder]))
            try:
                chosen += PictureSet.load(aside).pictures if aside else sets[-1].pictures[:1]
            except ConfigError:  # what the names picked cannot be read
                chosen += sets[-1].pictures[:1]
        return SpaceRecipe(config, tuple(sets), PictureSet(tuple(chosen)))

    def modules(self) -> SpaceObjective:
        return SpaceObjective(self.config)

    def pace(self, name: str) -> float:
        """The wavelets that the linear paths start from are good: they move slowly, the rate model fast."""
        if name.startswith("rate."):
            return 10.0
        return 0.03 if any(part in name for part in LINEAR) else 1.0

    def step(
        self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device
    ) -> dict[str, Tensor]:
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
        features = objective.encoder(x)
        coded, _ = objective.rate(features, torch.ones(1).to(x), 1)
        alone = Features({"context": features.maps["context"]})
        rows.append(torch.cat([x, objective.decoder(coded).float(), objective.decoder(alone).float()], dim=3))
    shown = torch.cat(rows, dim=2)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    Image.fromarray(shown.cpu().numpy()).save(path)
