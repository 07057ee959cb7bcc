"""The one training loop: a laptop, a GPU or many, by the same call; resumes bit for bit after a kill.

    recipe.modules() ─► Fabric ─► for step: batch(step) ─► loss ─► clip ─► AdamW ─► average ─► log, validate, save

Batches and every other random draw are functions of (seed, step, rank), so a checkpoint holds weights, average and
optimizer moments, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from chiasm.errors import ConfigError
from chiasm.training import checkpoint
from chiasm.training.schedule import generator, learning_rate

CLIP = 1.0


class Settings(Protocol):
    """What the loop reads of a recipe's config."""

    steps: int
    rate: float
    warmup: int
    decay: float
    seed: int
    validate_every: int
    save_every: int


class Recipe(Protocol):
    """What a recipe gives the loop. `step` and `evaluate` are called with the module that `modules` made."""

    @property
    def config(self) -> Any: ...

    def modules(self) -> nn.Module: ...

    def step(self, module: nn.Module, draws: torch.Generator, step: int, device: torch.device) -> dict[str, Tensor]: ...

    def pace(self, name: str) -> float:
        """How fast a parameter moves, as a multiple of the learning rate."""
        ...

    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, float]: ...


@dataclass(frozen=True)
class Where:
    """Devices and precision, in Lightning Fabric's words."""

    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"


def train(recipe: Recipe, folder: Path, where: Where, say: Callable[[Mapping[str, object]], None]) -> nn.Module:
    """Train until `config.steps`, resuming whatever `folder` holds, and return the module with averaged weights.

    Writes `log.jsonl`, `last.safetensors` and the recipe's pictures into `folder`; `say` hears every log line. Raises
    ConfigError when the folder holds a run of another config, or the loss stops being a number.
    """
    config: Settings = recipe.config
    fabric = Fabric(accelerator=where.accelerator, devices=where.devices, precision=where.precision)
    fabric.launch()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    module = recipe.modules().to(memory_format=torch.channels_last)
    resolved = asdict(recipe.config)
    saved = checkpoint.read(folder, resolved)
    if saved:
        module.load_state_dict(saved.weights)
    optimizer = torch.optim.AdamW(parameter_groups(module, recipe.pace), lr=config.rate, weight_decay=0.0)
    average = {name: value.detach().clone() for name, value in (saved.average if saved else module.state_dict()).items()}
    wrapped, optimizer_ = fabric.setup(module, optimizer)
    if saved:
        checkpoint.restore_moments(module, optimizer, saved.moments)
        average = {name: value.to(fabric.device) for name, value in average.items()}
    started, first = time.monotonic(), saved.step if saved else 0
    log = _Log(folder, say, quiet=fabric.global_rank != 0)
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * learning_rate(step, peak=config.rate, warmup=config.warmup, steps=config.steps)
        terms = recipe.step(wrapped, generator(config.seed, step, fabric.global_rank), step, fabric.device)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(terms["loss"])
        norm = fabric.clip_gradients(wrapped, optimizer_, max_norm=CLIP, error_if_nonfinite=False)
        if norm is not None and not torch.isfinite(norm):
            raise ConfigError(f"the loss stopped being a number at step {step}; lower `rate` (now {config.rate:g})")
        optimizer_.step()
        _fold(average, module, min(config.decay, (1 + step) / (10 + step)))
        log.add(step + 1, terms, time.monotonic() - started)
        last = step + 1 == config.steps
        if fabric.global_rank == 0 and (last or (step + 1) % config.validate_every == 0):
            with averaged(module, average), fabric.autocast():
                log.write({"step": step + 1, "validation": recipe.evaluate(module, folder, step + 1)})
        if fabric.global_rank == 0 and (last or (step + 1) % config.save_every == 0):
            state = checkpoint.moments(module, optimizer)
            checkpoint.write(folder, checkpoint.Checkpoint(step + 1, resolved, module.state_dict(), average, state))
    module.load_state_dict(average)
    return module.eval()


def parameter_groups(module: nn.Module, pace: Callable[[str], float]) -> list[dict[str, Any]]:
    """Parameters by how fast they move, relative to the learning rate; every parameter is in exactly one group."""
    by_pace: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        by_pace.setdefault(pace(name), []).append(parameter)
    return [{"params": held, "pace": speed} for speed, held in sorted(by_pace.items())]


def _fold(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for name, value in module.state_dict().items():
            average[name].lerp_(value, 1.0 - decay)


@contextmanager
def averaged(module: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with its averaged weights for the duration of the block, in evaluation mode."""
    own = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(average)
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(own)
        module.train()


class _Log:
    """JSON lines: the mean of each term over 50 steps, and whatever validation says."""

    def __init__(self, folder: Path, say: Callable[[Mapping[str, object]], None], *, quiet: bool) -> None:
        self.path, self.say, self.quiet = folder / "log.jsonl", say, quiet
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, step: int, terms: Mapping[str, Tensor], seconds: float) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1
        if step % 50 == 0:
            means = {name: round(value / self.count, 5) for name, value in self.sums.items()}
            self.write({"step": step, "seconds": round(seconds, 1), **means})
            self.sums, self.count = {}, 0

    def write(self, line: Mapping[str, object]) -> None:
        if self.quiet:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.say(line)
