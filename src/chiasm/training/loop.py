"""The one training loop: a laptop, a GPU or many, by the same call; resumes bit for bit after a kill.

    recipe.modules() ─► Fabric ─► each step: loss ─► clip ─► AdamW ─► average ─► log, validate, save

Batches and every other random draw are functions of (seed, step, rank), so a checkpoint holds weights,
average and optimizer moments, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from chiasm import durable
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
    weight_decay: float
    seed: int
    validate_every: int
    save_every: int


M_co = TypeVar("M_co", bound=nn.Module, covariant=True)


class Recipe(Protocol[M_co]):
    """What a recipe gives the loop. `step` and `evaluate` are called with the module that `modules` made."""

    @property
    def config(self) -> Any: ...

    def modules(self) -> M_co: ...

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


@dataclass
class _Run:
    """What changes from step to step. wrapped, stepper: module and optimizer as Fabric drives them."""

    module: nn.Module
    optimizer: Optimizer
    wrapped: nn.Module
    stepper: Any
    average: dict[str, Tensor]
    done: int


def train(recipe: Recipe[M_co], folder: Path, where: Where, say: Callable[[Mapping[str, object]], None]) -> M_co:
    """Train until `config.steps`, resuming whatever `folder` holds; returns the module, weights averaged.

    Writes `log.jsonl`, `last.safetensors` and the recipe's pictures into `folder`; `say` hears every log
    line. Raises ConfigError when the folder holds a run of another config, or the loss stops being a number.
    """
    config: Settings = recipe.config
    fabric = Fabric(accelerator=where.accelerator, devices=where.devices, precision=where.precision)
    fabric.launch()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    module = recipe.modules()
    run = _begin(module, recipe, folder, fabric)
    started, log = time.monotonic(), _Log(folder, say, run.done, quiet=fabric.global_rank != 0)
    while run.done < config.steps:
        terms = _advance(run, recipe, fabric)
        log.add(run.done, terms, time.monotonic() - started)
        last = run.done == config.steps
        if fabric.global_rank == 0 and (last or run.done % config.validate_every == 0):
            with averaged(module, run.average), fabric.autocast():
                log.write({"step": run.done, "validation": recipe.evaluate(module, folder, run.done)})
        if fabric.global_rank == 0 and (last or run.done % config.save_every == 0):
            _save(run, recipe, folder)
    module.load_state_dict(run.average)
    return module.eval()


def _begin(module: nn.Module, recipe: Recipe[nn.Module], folder: Path, fabric: Fabric) -> _Run:
    """A run at its first step, or where the checkpoint in `folder` left it."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    saved = checkpoint.read(folder, asdict(recipe.config))
    if saved:
        module.load_state_dict(saved.weights)
    groups = parameter_groups(module, recipe.pace, recipe.config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.config.rate, weight_decay=0.0)
    first = saved.average if saved else module.state_dict()
    average = {name: value.detach().clone() for name, value in first.items()}
    wrapped, stepper = fabric.setup(module, optimizer)
    if saved:
        checkpoint.restore_moments(module, optimizer, saved.moments)
    average = {name: value.to(fabric.device) for name, value in average.items()}
    return _Run(module, optimizer, wrapped, stepper, average, saved.step if saved else 0)


def _advance(run: _Run, recipe: Recipe[nn.Module], fabric: Fabric) -> dict[str, Tensor]:
    """One step: its terms. Everything random in it is a function of the seed, the step and the rank."""
    config, step = recipe.config, run.done
    for group in run.optimizer.param_groups:
        rate = learning_rate(step, peak=config.rate, warmup=config.warmup, steps=config.steps)
        group["lr"] = group["pace"] * rate
    draws = generator(config.seed, step, fabric.global_rank)
    torch.manual_seed(draws.initial_seed())  # for what draws from there, such as dropout; `draws` itself is not used up
    terms = recipe.step(run.wrapped, draws, step, fabric.device)
    run.optimizer.zero_grad(set_to_none=True)
    fabric.backward(terms["loss"])
    norm = fabric.clip_gradients(run.wrapped, run.stepper, max_norm=CLIP, error_if_nonfinite=False)
    if norm is not None and not torch.isfinite(norm):
        raise ConfigError(f"the loss stopped being a number at step {step}; lower `rate` (now {config.rate:g})")
    run.stepper.step()
    _fold(run.average, run.module, min(config.decay, (1 + step) / (10 + step)))
    run.done = step + 1
    return terms


def _save(run: _Run, recipe: Recipe[nn.Module], folder: Path) -> None:
    moments = checkpoint.moments(run.module, run.optimizer)
    weights, config = run.module.state_dict(), asdict(recipe.config)
    checkpoint.write(folder, checkpoint.Checkpoint(run.done, config, weights, run.average, moments))


def parameter_groups(module: nn.Module, pace: Callable[[str], float], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters by how fast they move, relative to the learning rate; each is in exactly one group.

    Weights of convolutions and layers decay; biases and norms, which have one axis at most, do not.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        grouped.setdefault((pace(name), weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    ordered = sorted(grouped.items(), key=lambda item: item[0])
    return [{"params": held, "pace": speed, "weight_decay": each} for (speed, each), held in ordered]


def _fold(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1.0 - decay)
            else:  # counters have no mean
                average[name].copy_(value)


@contextmanager
def averaged(module: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with its averaged weights for the duration of the block, in evaluation mode.

    Each part then goes back to the mode that it was in: a frozen backbone stays in evaluation mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    own = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(average)
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(own)
        for part, training in modes:
            part.training = training


class _Log:
    """JSON lines: the mean of each term over 50 steps, and whatever validation says.

    A run that is resumed at step `done` forgets the lines of later steps: they are written again.
    """

    def __init__(self, folder: Path, say: Callable[[Mapping[str, object]], None], done: int, *, quiet: bool) -> None:
        self.path, self.say, self.quiet = folder / "log.jsonl", say, quiet
        self.sums: dict[str, float] = {}
        self.count = 0
        if self.path.exists() and not quiet:
            kept = [line for line in self.path.read_bytes().splitlines(keepends=True) if _before(line, done)]
            durable.write(self.path, b"".join(kept))

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


def _before(line: bytes, done: int) -> bool:
    """Whether a line of the log is whole and of a step up to `done`."""
    try:
        step: int = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return False
    return line.endswith(b"\n") and step <= done
