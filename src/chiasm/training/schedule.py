"""Everything that depends on the step alone, so that a resumed run needs nothing but the step."""

from __future__ import annotations

import math

import torch


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """Linear warm-up to `peak`, then half a cosine down to 2 % of it at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The random numbers of one step on one device, a function of its arguments: a resumed run draws the
    same."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)
