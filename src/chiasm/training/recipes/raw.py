"""Stage 2 of arXiv:2509.20481: a RAW encoder that lands where the RGB encoder lands (Eq. 4 and 5).

    clean picture ─► E0 (frozen) ──────────────────────────────► context, finer ┐
         │                                                                      ├─ L2 in both streams
         └─► synthetic sensor ─► noisy mosaic ─► E1 (learns) ──► context, finer ┘
                                                     └─► codec ─► D0 (frozen) ─► pixels ── L2 to the clean picture

The target is the *clean* picture: E1 denoises as it demosaics. Distances are taken with the amplitudes of the
space undone (`features.alignment`), where an error of one costs the same in every component. E1 starts as E0
with another first layer, fitted by least squares: the best linear demosaicing for the pinned training sensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.codecs.transform import TransformCodec
from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.contracts import Sensor
from chiasm.datasets import synthetic_raw
from chiasm.datasets.pictures import PictureSet
from chiasm.datasets.pinned_sensors import pinned
from chiasm.encoders.ns import MosaicSplit, SpaceEncoder
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.training import losses
from chiasm.training.coding import Coding, qualities
from chiasm.training.recipes.sources import read_sets

FITTED = 48  # crops that the first layer is fitted to
RIDGE = 1e-5  # of the mean square of a tap
DARK = 0.02  # linear light at which shadows stop counting more


@dataclass(frozen=True)
class RawConfig:
    """Every knob of the recipe `raw`.

    pairs: how many RAW and RGB pairs there are (0: a new sensor for every crop). pixel: weight of the pixel term
    beside Eq. 5. coded: share of mosaics whose features go through the codec before they are drawn for the pixel
    term. told: whether the encoder is told the sensor's matrix, noise and gains. quiet: share of mosaics without
    noise.
    """

    steps: Count = 5_000
    batch: Annotated[int, Range(low=2)] = 16
    crop: Annotated[int, Range(low=32)] = 96
    rate: Positive = 1e-3
    warmup: Annotated[int, Range(low=0)] = 100
    decay: Share = 0.998
    weight_decay: Amount = 0.0
    seed: int = 1
    pairs: Annotated[int, Range(low=0)] = 0
    pixel: Amount = 0.2
    coded: Share = 0.5
    told: bool = True
    quiet: Share = 0.25
    validate_every: Count = 500
    save_every: Count = 250


@dataclass(frozen=True)
class Pair:
    """One picture and the sensor that saw it; no sensor: a new one each time."""

    held: PictureSet
    index: int
    sensor: Sensor | None


def pairs_of(sets: Sequence[PictureSet], count: int) -> tuple[Pair, ...]:
    """All pictures with a new sensor each time, or `count` fixed pairs, taken evenly from all sets in turn."""
    longest = max(len(held.pictures) for held in sets)
    each = [
        (held, index % len(held.pictures)) for index in range(longest) for held in sets
    ]  # a small set comes again, so that every set has equal odds
    if not count:
        return tuple(Pair(held, index, None) for held, index in each)
    fixed = synthetic_raw.draw_sensors(pinned().training, count, torch.Generator().manual_seed(count))
    return tuple(Pair(*each[i % len(each)], fixed[i]) for i in range(count))


def silent(one: Sensor) -> Sensor:
    """The same sensor without noise."""
    return replace(one, shot=0.0, read=0.0)


@dataclass(frozen=True)
class Teacher:
    """The frozen RGB encoder, the frozen decoder, and the codec of their space."""

    encoder: SpaceEncoder
    decoder: ReconstructHead
    codec: TransformCodec

    def to(self, device: torch.device) -> Teacher:
        self.encoder.to(device).eval().requires_grad_(False)
        self.decoder.to(device).eval().requires_grad_(False)
        return self


class RawStudent(nn.Module):
    """E1; `forward` gives what the loss compares."""

    def __init__(self, encoder: SpaceEncoder, told: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.told = told

    def forward(self, mosaic: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """B 1 H W and B 13 to parts."""
        parts: tuple[Tensor, Tensor] = self.encoder.parts(mosaic, condition if self.told else None)
        return parts


@dataclass(frozen=True)
class RawRecipe:
    """The recipe `raw`: photographs of any folder, seen by synthetic sensors of the pinned training range."""

    config: RawConfig
    training: tuple[PictureSet, ...]
    held_out: PictureSet
    teacher: Teacher

    @staticmethod
    def load(config: RawConfig, folders: Sequence[Path], teacher: Teacher) -> RawRecipe:
        """Read every picture below `folders`; see `read_sets`."""
        return RawRecipe(config, *read_sets(folders), teacher)

    def modules(self) -> RawStudent:
        """E1 as it starts."""
        taught = self.teacher.encoder.state_dict()
        encoder = SpaceEncoder("raw", len(taught["fine.0.weight"]))
        own = {name: x for name, x in taught.items() if not name.startswith("split.")}
        encoder.load_state_dict(own, strict=False)
        encoder.alignment.requires_grad_(False)
        draws = torch.Generator().manual_seed(self.config.seed)
        assert isinstance(encoder.split, MosaicSplit)
        encoder.split.begin(taught["split.weight"])
        self._fit(encoder.split, draws)
        return RawStudent(encoder, self.config.told)

    def pace(self, name: str) -> float:
        linear = name.startswith(("encoder.second.", "encoder.split.")) or "linear" in name
        return 0.1 if linear else 1.0

    def _crops(self, count: int, draws: torch.Generator) -> tuple[Tensor, list[Sensor]]:
        """Crops of some pairs, count 3 crop crop, and their sensors."""
        picks = [self.pairs[i] for i in torch.randint(len(self.pairs), (count,), generator=draws).tolist()]
        clean = torch.stack([pair.held.crop_of(pair.index, self.config.crop, draws) for pair in picks])
        fresh = synthetic_raw.draw_sensors(pinned().training, count, draws)
        return clean, [pair.sensor or new for pair, new in zip(picks, fresh, strict=True)]

    def _synthetic(self, count: int, draws: torch.Generator) -> synthetic_raw.Synthetic:
        """Crops of some pairs, as their sensors see them."""
        clean, sensors = self._crops(count, draws)
        exposures = synthetic_raw.draw_exposures(pinned().training, count, draws)
        quiet = torch.rand(count, generator=draws) < self.config.quiet
        sensors = [silent(one) if still else one for one, still in zip(sensors, quiet.tolist(), strict=True)]
        return synthetic_raw.unprocess(clean, sensors, draws, exposures)

    def _fit(self, split: MosaicSplit, draws: torch.Generator) -> None:
        """Fit the first layer to crops of the pairs, without noise."""
        made, cameras = [], []
        for _ in range(FITTED // 8):
            clean, sensors = self._crops(8, draws)
            cameras.append(synthetic_raw.exposed(clean, sensors))
            made.append(synthetic_raw.unprocess(clean, sensors))
        fit_split(split, made, cameras)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        return pairs_of(self.training, self.config.pairs)

    @cached_property
    def _coding(self) -> Coding:
        return Coding(self.teacher.codec, self.teacher.encoder.alignment)

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]:
        """One step's loss terms: a function of its arguments."""
        config, teacher = self.config, self.teacher.to(device)
        made = self._synthetic(config.batch, draws)
        clean = made.target.to(device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = teacher.encoder.parts(clean)
        found = module(made.mosaic.to(device), made.condition.to(device))
        context, finer = (F.mse_loss(x.float(), y.float()) * x.shape[1] for x, y in zip(found, wanted, strict=True))
        terms = {"context": context, "finer": finer}
        if config.pixel:
            quality = qualities(config.batch, config.coded, draws)
            drawn = teacher.decoder.draw(*self._coding.parts(found[0], found[1], quality)).float()
            terms["pixel"] = config.pixel * losses.squared(drawn, clean).mean() / 26.5
        terms["loss"] = torch.stack(list(terms.values())).sum()
        return terms

    @torch.no_grad()
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """PSNR of D0(E1(raw)) on held-out pictures through training sensors, without noise and with it, dB."""
        device = next(module.parameters()).device
        teacher, found = self.teacher.to(device), {"clean": 0.0, "noisy": 0.0}
        count = len(self.held_out.pictures)
        for index in range(count):
            draws = torch.Generator().manual_seed(index)
            picture = self.held_out.tensor(index)
            height, width = (min(256, n // 4 * 4) for n in picture.shape[-2:])
            one = synthetic_raw.draw_sensors(pinned().training, 1, draws)[0]
            for name, seen in {"clean": silent(one), "noisy": one}.items():
                made = synthetic_raw.unprocess(picture[None, :, :height, :width], [seen], draws)
                parts = module(made.mosaic.to(device), made.condition.to(device))
                drawn = teacher.decoder.draw(*parts).float().cpu().clamp(0, 1)
                found[name] += 10 * math.log10(255.0**2 / max(1e-6, losses.squared(drawn, made.target).item()))
        return {name: round(value / count, 3) for name, value in found.items()}


@torch.no_grad()
def fit_split(split: MosaicSplit, batches: Sequence[synthetic_raw.Synthetic], cameras: Sequence[Tensor]) -> None:
    """Least squares from 5 x 5 cells of mosaics to the pixels of the cell in their middle, in the camera's colours.

    Errors count in proportion to how dark it is around them: the sRGB curve will stretch shadows.
    """
    taps = split.linear.weight[0].numel()
    left, right = torch.zeros(taps, taps).double(), torch.zeros(taps, 12).double()
    for made, camera in zip(batches, cameras, strict=True):
        rows = F.unfold(F.pixel_unshuffle(made.mosaic, 2), 5)  # B taps n, those that lie inside
        rows = rows.transpose(1, 2).flatten(0, 1).double()
        cells = F.pixel_unshuffle(camera, 2)[..., 2:-2, 2:-2]  # B 12 h w, at the same places: colour by pixel
        batch, _, height, width = cells.shape
        cells = cells.reshape(batch, 3, 4, height, width).transpose(1, 2).flatten(1, 2)  # pixel by colour
        values = cells.flatten(2).transpose(1, 2).flatten(0, 1).double()
        weight = 1.0 / (rows.mean(dim=1, keepdim=True).clamp_min(0.0) + DARK)
        left += (rows * weight).T @ (rows * weight)
        right += (rows * weight).T @ (values * weight)
    ridge = RIDGE * left.diagonal().mean() * torch.eye(taps).double()
    solved = torch.linalg.solve(left + ridge, right)  # taps 12
    split.linear.weight.copy_(solved.T.reshape(split.linear.weight.shape))
