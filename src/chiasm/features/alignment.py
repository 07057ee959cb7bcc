"""How much of each component a space shows: the amplitudes of its channels, and their exact inverse.

    context, finer  ──► x amplitude ──► context, detail = doubled context + finer      (what is stored and read)
    context, finer  ◄── / amplitude ◄── context, detail                                (what is coded and drawn)

Only the ratio of a component to the quantiser's step decides what it costs and how well it is drawn, so its
amplitude in the space is free. Training spends that freedom on Eq. 3 of arXiv:2509.20481: what moves with the
picture stays large, what turns or flips with it (oriented edges) or is mostly noise becomes small, and the
codec's steps and the decoder undo it (value alignment).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chiasm.contracts import Features
from chiasm.features.plane import double

# Where a space that starts as wavelets puts them. What is finer has channels of its own, so that sums in half
# precision do not drown it in the coarse content that `detail` also holds.
COARSE, EDGES, FINER = range(3), range(16, 25), range(32, 41)

# No component may become so small that a head which computes in 8 bits cannot see it.
FLOOR = 0.2
START = 4.0  # sigmoid(START) is nearly 1


class Alignment(nn.Module):
    """Amplitudes in (0.2, 1) of the channels of `context` and of what `detail` adds to it, as many."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.full((channels,), START))
        self.finer = nn.Parameter(torch.full((channels,), START))

    def amplitudes(self) -> tuple[Tensor, Tensor]:
        """Those of `context`, 1 C 1 1, and of what is finer, 1 C 1 1."""
        deep, shallow = (
            (FLOOR + (1.0 - FLOOR) * x.float().sigmoid()).view(1, -1, 1, 1) for x in (self.context, self.finer)
        )
        return deep, shallow

    def features(self, context: Tensor, finer: Tensor) -> Features:
        """Aligned parts, B C H/4 W/4 and B C H/2 W/2, to the maps of the space, float32.

        In half precision the sum would round the coarse content to steps that what is finer is as small as.
        """
        deep, shallow = self.amplitudes()
        context = deep * context.float()
        return {"context": context, "detail": torch.addcmul(double(context), shallow, finer.float())}

    def parts(self, features: Features) -> tuple[Tensor, Tensor]:
        """The inverse of `features`; without `detail`, nothing is finer."""
        context = features["context"]
        deep, shallow = (x.to(context) for x in self.amplitudes())
        detail = features.get("detail")
        if detail is None:
            batch, _, height, width = context.shape
            return context / deep, context.new_zeros(batch, shallow.shape[1], 2 * height, 2 * width)
        inverse = 1.0 / shallow
        return context / deep, torch.addcmul(double(-inverse * context), inverse, detail)
