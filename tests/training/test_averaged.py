"""Averaged weights for validation leave the module as it was."""

from __future__ import annotations

import torch
from torch import nn

from chiasm.training.loop import averaged


def test_a_frozen_part_stays_in_evaluation_mode():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    module[0].eval()
    average = {name: torch.ones_like(x) for name, x in module.state_dict().items()}
    before = {name: x.clone() for name, x in module.state_dict().items()}
    with averaged(module, average):
        assert not any(part.training for part in module.modules())
    assert (module.training, module[0].training, module[1].training) == (True, False, True)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
