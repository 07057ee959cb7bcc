"""Features through the real codec inside a training step, so that what learns sees what will be stored.

    parts ─► maps ─► transform ─► round, thin ─► inverse ─► parts

The values are the codec's own to the last bit; the gradient is that of its projection: components that the tables do
not keep get none, the others get theirs as if nothing had been rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from chiasm.codecs.tables import QUALITIES
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Features, Parent
from chiasm.features.alignment import Alignment


def qualities(count: int, share: float, generator: torch.Generator) -> Tensor:
    """A quality, 1 to 8, for about `share` of `count` pictures, and 0, not coded, for the others: int64."""
    coded, which = torch.rand(2, count, generator=generator)
    chosen: Tensor = quality_of(which) * (coded < share)
    return chosen


def quality_of(which: Tensor) -> Tensor:
    """Numbers in [0, 1) to qualities 1 to 8 with equal odds."""
    chosen: Tensor = 1 + (which * QUALITIES).long()
    return chosen


@dataclass(frozen=True)
class Coding:
    """The codec of a space, and the amplitudes that its tables were fitted with."""

    codec: TransformCodec
    alignment: Alignment

    def parts(self, context: Tensor, finer: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Parts B C H/4 W/4 and B C H/2 W/2 as they come back at each picture's quality, B; 0 leaves them."""
        context, finer = context.float(), finer.float()
        with torch.no_grad():
            back = self.alignment.parts(self.maps(self.alignment.features(context, finer), quality))
        through = (quality > 0).to(context.device).view(-1, 1, 1, 1)
        found = []
        kept = self._kept(context, finer) if torch.is_grad_enabled() else (context, finer)
        for x, inside, y in zip((context, finer), kept, back, strict=True):
            found.append(torch.where(through, y.to(x) + (inside - inside.detach()), x))
        return found[0], found[1]

    def maps(self, features: Features, quality: Tensor) -> Features:
        """The same of the space's maps, without gradient."""
        each = list(self._each(features, quality.tolist()))
        return {level: torch.cat([maps[level] for maps in each]) for level in features}

    def _each(self, features: Features, chosen: list[int]) -> Iterator[Features]:
        for index, quality in enumerate(chosen):
            maps = {name: x[index : index + 1] for name, x in features.items()}
            if quality:
                back = self._coded({name: x.float().cpu() for name, x in maps.items()}, quality)
                maps = {name: back[name].to(x) for name, x in maps.items()}
            yield maps

    def _coded(self, maps: Features, quality: int) -> Features:
        """The maps 1 C h w of one picture as they come back, each coded on top of its original parent."""
        found: dict[str, Parent] = {}
        for level in self.codec.fitted.levels:
            if level.name not in maps:
                continue
            above = found[level.parent] if level.parent else None
            original = None if above is None else Parent(maps[level.parent], above.symbols)
            _, symbols = self.codec.encode(level.name, maps[level.name], quality, original)
            found[level.name] = Parent(self.codec.restore(level.name, symbols, quality, above), symbols)
        return {name: each.values for name, each in found.items()}

    def _kept(self, context: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
        """What of parts the tables keep: their projection on each level's components."""
        found = []
        for x, level in zip((context, finer), self.codec.fitted.levels, strict=True):
            basis, mean = (torch.from_numpy(y).to(x) for y in (level.basis, level.mean))  # C K, C
            centred = x - mean.view(1, -1, 1, 1)
            found.append(x - centred + torch.einsum("dk,ck,bchw->bdhw", basis, basis, centred))
        return found[0], found[1]
