"""Run by test_space.py: the tiny recipe `space`, in a process that ends by SIGKILL before a given step."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

from chiasm.datasets.pictures import PictureSet
from chiasm.training.loop import train
from chiasm.training.recipes.space import SpaceConfig, SpaceRecipe

MADE = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
generated = MADE["generated"]


class Doomed(SpaceRecipe):
    def step(self, module, draws, step, device):
        if step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(module, draws, step, device)


pictures = PictureSet(tuple(generated(seed) for seed in range(4)))
recipe = Doomed(SpaceConfig(**MADE["TINY"]), (pictures,), PictureSet((generated(9),)))
train(recipe, Path(sys.argv[1]), MADE["HERE"], lambda line: None)
