"""How the losses of several tasks become one. All state is in buffers and parameters, so that a run resumes exactly.

fixed     the sum
dwa       dynamic weight averaging (Liu et al. 2019, arXiv 1803.10704): T softmax(r / 2), r = mean / mean before
variance  sum of exp(-s) L + s with a learnt s for each task (Kendall et al. 2018, arXiv 1705.07115)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Way = Literal["fixed", "dwa", "variance"]
PERIOD = 100  # steps whose mean is what dynamic weight averaging calls an epoch
TEMPERATURE = 2.0


class Weighting(nn.Module):
    """Weights of the losses of `tasks`."""

    means: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, tasks: Sequence[str], way: Way) -> None:
        super().__init__()
        self.tasks, self.way = tuple(tasks), way
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)), requires_grad=way == "variance")
        self.register_buffer("means", torch.zeros(2, len(self.tasks)))  # of the period before last, and the last
        self.register_buffer("sums", torch.zeros(len(self.tasks)))
        self.register_buffer("counts", torch.zeros(len(self.tasks)))

    def forward(self, losses: Mapping[str, Tensor], step: int) -> Tensor:
        """The scalar to minimise, from a loss for each task; call once a step."""
        each = torch.stack([losses[task] for task in self.tasks])
        if self.way == "variance":
            known = each.detach() > 0  # a task that a batch has no targets of says nothing of its variance
            return (((-self.log_variance).exp() * each + self.log_variance) * known).sum()
        if self.way == "dwa":
            weights = self.weights()
            self._remember(each.detach().float(), step)
            return (weights.to(each) * each).sum()
        return each.sum()

    def weights(self) -> Tensor:
        """Of dynamic weight averaging: ones until two periods have been seen."""
        seen = (self.means > 0).all(dim=0)
        slowness = torch.where(seen, self.means[1] / self.means[0].clamp_min(1e-9), 1.0)
        weights: Tensor = len(self.tasks) * (slowness / TEMPERATURE).softmax(dim=0)
        return weights

    @torch.no_grad()
    def _remember(self, each: Tensor, step: int) -> None:
        known = each > 0  # a batch without a task's targets says nothing of it
        self.sums += torch.where(known, each, 0.0)
        self.counts += known
        if (step + 1) % PERIOD == 0:
            latest = torch.where(self.counts > 0, self.sums / self.counts.clamp_min(1), self.means[1])
            self.means.copy_(torch.stack([self.means[1], latest]))
            self.sums.zero_()
            self.counts.zero_()
