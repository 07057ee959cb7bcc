"""Stage 3 of arXiv:2509.20481 for denoising: a network from noisy pictures to clean ones.

    clean crop ─► + noise, clipped, rounded to 8 bits ─► network ─► L1 to the clean crop

The network is a frozen encoder with a head behind it, whose features go through the codec half of the time;
or any network on pixels, for comparison, by the same recipe on the same crops for the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from chiasm.codecs.transform import TransformCodec
from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.datasets.pictures import PictureSet, crops
from chiasm.encoders.ns import SpaceEncoder
from chiasm.heads.denoise import DenoiseHead
from chiasm.training import losses
from chiasm.training.coding import Coding, quality_of
from chiasm.training.recipes.sources import read_sets

VALIDATED_SIGMA = 25.0


@dataclass(frozen=True)
class DenoiseConfig:
    """Every knob of the recipe `denoise`. Noise is Gaussian, its sigma (of 255) even in [quietest, loudest]."""

    steps: Count = 4_000
    batch: Annotated[int, Range(low=2)] = 8
    crop: Annotated[int, Range(low=32)] = 80
    rate: Positive = 1e-3
    warmup: Annotated[int, Range(low=0)] = 100
    decay: Share = 0.998
    weight_decay: Amount = 0.0
    seed: int = 1
    quietest: Amount = 0.0
    loudest: Positive = 55.0
    coded: Share = 0.5  # of pictures whose features go through the codec, at any of its qualities
    validate_every: Count = 500
    save_every: Count = 250


def noisy(pixels: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """B 3 H W in [0, 1] with Gaussian noise of sigma (B, of 255), clipped and rounded as an 8-bit file would."""
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    loud = pixels + sigma.view(-1, 1, 1, 1) / 255.0 * noise
    return loud.clamp(0, 1).mul(255.0).round() / 255.0


class SpaceDenoiser(nn.Module):
    """A frozen encoder, its codec, and the head that learns."""

    def __init__(self, encoder: SpaceEncoder, codec: TransformCodec, head: DenoiseHead) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.coding = Coding(codec, encoder.alignment)
        self.head = head

    def forward(self, pixels: Tensor, quality: Tensor) -> Tensor:
        """pixels: B 3 H W; quality: B, of the codec, 0 for features that are not coded."""
        with torch.no_grad():
            context, finer = self.coding.parts(*self.encoder.parts(pixels), quality)
        drawn: Tensor = self.head.body.draw(context, finer)
        return drawn


class PixelDenoiser(nn.Module):
    """Any network from noisy pixels to clean ones, as the recipe calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, quality: Tensor) -> Tensor:
        drawn: Tensor = self.network(pixels)
        return drawn


@dataclass(frozen=True)
class DenoiseRecipe:
    """The recipe `denoise`; `network` is a SpaceDenoiser or a PixelDenoiser."""

    config: DenoiseConfig
    training: tuple[PictureSet, ...]
    held_out: PictureSet
    network: nn.Module

    @staticmethod
    def load(config: DenoiseConfig, folders: Sequence[Path], network: nn.Module) -> DenoiseRecipe:
        """Read every picture below `folders`; see `read_sets`."""
        return DenoiseRecipe(config, *read_sets(folders), network)

    def modules(self) -> nn.Module:
        return self.network

    def pace(self, name: str) -> float:
        return 0.1 if "merge" in name or "linear" in name else 1.0

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]:
        """One step's loss terms: a function of its arguments."""
        config = self.config
        clean = crops(self.training, config.batch, config.crop, draws)
        u, v, w = torch.rand(3, config.batch, generator=draws)
        sigma = config.quietest + (config.loudest - config.quietest) * u
        quality = quality_of(v) * (w < config.coded)
        seen = noisy(clean, sigma, draws).to(device).contiguous(memory_format=torch.channels_last)
        drawn = module(seen, quality).float()
        error = losses.absolute(drawn, clean.to(device)).mean()
        return {"loss": error, "mse": losses.squared(drawn, clean.to(device)).mean().detach()}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """PSNR on held-out pictures at sigma 25, not coded, dB."""
        device, found = next(module.parameters()).device, []
        for index in range(len(self.held_out.pictures)):
            picture = self.held_out.tensor(index)
            height, width = (n // 4 * 4 for n in picture.shape[-2:])
            clean = picture[None, :, :height, :width]
            draws = torch.Generator().manual_seed(index)
            seen = noisy(clean, torch.full((1,), VALIDATED_SIGMA), draws)
            drawn = module(seen.to(device), torch.zeros(1, dtype=torch.int64)).float().cpu().clamp(0, 1)
            found.append(10 * math.log10(255.0**2 / losses.squared(drawn, clean).item()))
        return {"psnr": round(sum(found) / len(found), 3)}
