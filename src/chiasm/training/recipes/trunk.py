"""The trunk of dense heads begins as MobileNetV2: its entry learns to give the teacher's blocks what they expect.

    photographs ─► random view, 224 x 224 ─┬─► E0 (frozen) ─► codec, now and then ─► entry ─► blocks (frozen) ─► 4 maps
                                           └─► MobileNetV2 ──────────────────────────────────────────────────► 4 maps

The blocks come with their weights (`teacher.endow`), so only what stands before them has to be learnt, from pictures
without any label. What comes out is what the recipe `dense` begins with; the pixel networks of the comparison get the
same lessons for the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from chiasm.config import Amount, Count, Positive, Range, Share
from chiasm.contracts import Frame, Sample
from chiasm.datasets.augment import Augment, augmented
from chiasm.datasets.pictures import PictureSet
from chiasm.errors import ConfigError
from chiasm.heads.trunk import Trunk
from chiasm.training.coding import qualities
from chiasm.training.recipes.dense import FRESH, PixelNetwork, SpaceNetwork
from chiasm.training.recipes.sources import read_sets
from chiasm.training.teacher import EDGE, LEVELS, Teacher, endow, unexplained

LONGEST = 640  # pixels of the longer side of pictures, at most
NEUTRAL = 64  # pictures that the norms of the teacher's blocks are set with


@dataclass(frozen=True)
class TrunkConfig:
    """Every knob of the recipe `trunk`.

    teacher: MobileNetV2 1.0 224 as a quantised TFLite file. zoom: of the views, lowest and highest. coded: share of
    pictures whose features go through the codec. weights: of the maps at H/4, H/8, H/16 and H/32.
    """

    teacher: str = ""
    steps: Count = 2_000
    batch: Annotated[int, Range(low=2)] = 8
    zoom: tuple[float, float] = (0.5, 1.5)
    rate: Positive = 2e-3
    warmup: Annotated[int, Range(low=0)] = 100
    decay: Share = 0.995
    weight_decay: Amount = 0.0
    seed: int = 1
    coded: Share = 0.5
    weights: tuple[float, ...] = (20.0, 1.0, 1.0, 0.5)
    validate_every: Count = 500
    save_every: Count = 250


class Lessons(nn.Module):
    """A network whose trunk is to answer as a teacher does; the trunk's blocks stay as they are."""

    def __init__(self, network: SpaceNetwork | PixelNetwork) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        for part in self.learning():
            part.requires_grad_(True)
        self.train()  # the loop begins as it finds a module

    @property
    def trunk(self) -> Trunk:
        return self.network.head.trunk

    def learning(self) -> list[nn.Module]:
        """What stands between what the network is given and the teacher's blocks."""
        before = [self.trunk.standard, self.trunk.deep, self.trunk.shallow, self.trunk.stem, self.trunk.entry]
        return before + ([self.network.fine, self.network.coarse] if isinstance(self.network, PixelNetwork) else [])

    def train(self, mode: bool = True) -> Lessons:
        super().train(mode)
        self.trunk.stages.eval()  # their norms are set
        return self

    def forward(self, pixels: Tensor, quality: Tensor) -> list[Tensor]:
        """The trunk's maps at H/4 to H/32."""
        features = self.network.features(pixels, quality)
        return self.trunk.bottom_up(features["context"], features["detail"])[1]

    def learnt(self) -> dict[str, Tensor]:
        """What `dense` begins with: the trunk, and for a pixel network what is before it."""
        return {
            name: value.detach().cpu().contiguous()
            for name, value in self.network.state_dict().items()
            if name.startswith(("head.trunk.", "fine.", "coarse.")) and not name.startswith(FRESH)
        }


@dataclass(frozen=True)
class TrunkRecipe:
    """The recipe `trunk`."""

    config: TrunkConfig
    training: tuple[PictureSet, ...]
    held_out: PictureSet
    network: SpaceNetwork | PixelNetwork

    @staticmethod
    def load(config: TrunkConfig, folders: Sequence[Path], network: SpaceNetwork | PixelNetwork) -> TrunkRecipe:
        """Read every photograph below `folders`; see `read_sets`. Raises ConfigError, too when there is no teacher."""
        if len(config.weights) != len(LEVELS):
            raise ConfigError(f"expected {len(LEVELS)} weights, one for each map, got {list(config.weights)}")
        if not Path(config.teacher).is_file():
            raise ConfigError(f"expected a teacher, a TFLite file, got {config.teacher!r}; --set teacher=FILE")
        return TrunkRecipe(config, *read_sets(folders, LONGEST), network)

    @cached_property
    def teacher(self) -> Teacher:
        return Teacher(Path(self.config.teacher))

    def _view(self, pixels: Tensor, draws: torch.Generator) -> Tensor:
        """A random view of a picture 3 H W."""
        views = Augment(EDGE, EDGE, self.config.zoom, fill=0.9)
        return augmented(Sample("", Frame(pixels), {}, {}), views, draws).frame.pixels

    def _drawn(self, count: int, draws: torch.Generator) -> Tensor:
        """Random views, count 3 EDGE EDGE; a folder is drawn by the root of how many pictures it has."""
        sizes = torch.tensor([len(held.pictures) for held in self.training], dtype=torch.float32)
        picks = torch.multinomial(sizes.sqrt(), count, replacement=True, generator=draws).tolist()
        places = torch.rand(count, generator=draws).tolist()
        chosen = [(self.training[pick], place) for pick, place in zip(picks, places, strict=True)]
        return torch.stack([self._view(held.tensor(int(at * len(held.pictures))), draws) for held, at in chosen])

    @cached_property
    def judged(self) -> Tensor:
        """One view of each held-out picture, the same each time: B 3 EDGE EDGE."""
        each = range(len(self.held_out.pictures))
        return torch.stack([self._view(self.held_out.tensor(i), torch.Generator().manual_seed(i)) for i in each])

    def modules(self) -> Lessons:
        pixels = self._drawn(NEUTRAL, torch.Generator().manual_seed(self.config.seed))
        endow(self.network.head.trunk, self.teacher, pixels)
        return Lessons(self.network)

    def pace(self, name: str) -> float:
        return 1.0

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]:
        """One step's loss terms: a function of its arguments."""
        pixels = self._drawn(self.config.batch, draws)
        quality = qualities(self.config.batch, self.config.coded, draws)
        taught = [level.to(device) for level in self.teacher(pixels)]
        maps = module(pixels.to(device).contiguous(memory_format=torch.channels_last), quality)
        terms = {f"h{4 << index}": unexplained(*pair) for index, pair in enumerate(zip(maps, taught, strict=True))}
        total = sum(weight * value for weight, value in zip(self.config.weights, terms.values(), strict=True))
        return {**terms, "loss": cast(Tensor, total)}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]:
        """The share of the teacher's variance that is not explained on held-out pictures, by level."""
        device = next(module.parameters()).device
        own: list[list[Tensor]] = [[] for _ in LEVELS]
        for pixels in self.judged:
            for level, found in zip(own, module(pixels[None].to(device), torch.zeros(1)), strict=True):
                level.append(found.float().cpu())
        taught = self.teacher(self.judged)
        return {
            f"h{4 << index}": round(float(unexplained(torch.cat(level), its)), 4)
            for index, (level, its) in enumerate(zip(own, taught, strict=True))
        }
