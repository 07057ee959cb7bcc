"""Window cross-task attention: every task looks at every task, inside the same window (arXiv:2510.17363, M2H, WMCA).

    T maps B C H W ─► windows of 7 x 7 ─► LN per task ─► T x 49 tokens attend to each other ─► MLP ─► T maps B C H W

    U = concat_t LN_t(window of t)        A = U + MHA(U, U, U)        Z = A + W2 GELU(W1 A)        out_t = LN'_t(Z_t)

As in the paper there is no position, no task embedding and no shift, so the cost is linear in pixels. Two things are
ours: places that only pad the last window are not attended to, and the answer is added to the map it came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chiasm.features.layout import crop, padded
from chiasm.features.layout import pad as grown

WINDOW = 7
HEADS = 4


class WindowExchange(nn.Module):
    """One layer of attention across `tasks` maps of `channels` channels each."""

    def __init__(self, tasks: int, channels: int) -> None:
        super().__init__()
        self.before = nn.ModuleList([nn.LayerNorm(channels) for _ in range(tasks)])
        self.after = nn.ModuleList([nn.LayerNorm(channels) for _ in range(tasks)])
        self.ask = nn.Linear(channels, 3 * channels)
        self.answer = nn.Linear(channels, channels)
        self.mix = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """As many maps B C H W, of any one size, as there are tasks; what each hears from all is added to it."""
        size = (maps[0].shape[-2], maps[0].shape[-1])
        whole = padded(size, WINDOW)
        tokens = [norm(windows(grown(x, whole))) for norm, x in zip(self.before, maps, strict=True)]
        joint = torch.cat(tokens, dim=1)  # B*n T*49 C
        real = windows(_inside(size, whole, maps[0]))[..., 0].bool().repeat(1, len(maps))  # n T*49
        mask = real.repeat(len(maps[0]), 1)[:, None, None]  # B*n 1 1 T*49
        attended = joint + self.answer(self._attend(joint, mask))
        heard = attended + self.mix(attended)
        parts = heard.chunk(len(maps), dim=1)
        back = [unwindowed(norm(part), whole) for norm, part in zip(self.after, parts, strict=True)]
        return [x + crop(y, size) for x, y in zip(maps, back, strict=True)]

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        asked = self.ask(x).view(batch, tokens, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(asked[0], asked[1], asked[2], attn_mask=mask)  # B*n h T*49 c/h
        return found.transpose(1, 2).reshape(batch, tokens, channels)


def windows(x: Tensor) -> Tensor:
    """B C H W, multiples of the window, to B*n 49 C."""
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // WINDOW, WINDOW, width // WINDOW, WINDOW)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, WINDOW * WINDOW, channels)


def unwindowed(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `windows`."""
    height, width = size
    x = x.view(-1, height // WINDOW, width // WINDOW, WINDOW, WINDOW, x.shape[-1])
    return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], x.shape[-1], height, width)


def _inside(size: tuple[int, int], whole: tuple[int, int], like: Tensor) -> Tensor:
    """1 1 H W: one where the map is, nothing where it was padded."""
    mask = like.new_zeros(1, 1, *whole)
    mask[..., : size[0], : size[1]] = 1.0
    return mask
