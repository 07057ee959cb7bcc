"""The verb doctor: what this machine has, and what that means for chiasm."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click

import chiasm
from chiasm.cli import options
from chiasm.cli.group import STOPPED
from chiasm.cli.terminal import Terminal, columns, size_words

LITTLE = 2 * 10**9  # bytes of free disk below which a large job will not end well


@click.command()
@options.common
@options.pass_terminal
@click.pass_context
def doctor(ctx: click.Context, terminal: Terminal) -> None:
    """Examine this machine and installation.

    Says which versions, devices, precisions and how much disk there are, and warns of what is wrong.

    Exits with 3 when something is missing without which nothing works.
    """
    warnings: list[str] = []
    missing = False
    facts: dict[str, object] = {
        "chiasm": chiasm.__version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for name, version in _dependencies():
        facts[name] = version or "missing"
        if version is None:
            missing = True
            warnings.append(f"{name} is not installed; run pip install chiasm again")
    for probe in (_devices, _formats, _disk):
        try:
            found, complaints = probe()
        except Exception as error:  # a doctor examines what is broken
            missing = True
            found, complaints = {}, [f"{probe.__name__.strip('_')} cannot be examined: {error}"]
        facts |= found
        warnings += complaints
    terminal.show(columns(list(facts.items())))
    for warning in warnings:
        terminal.warn("Doctor", warning)
    terminal.event("summary", {**facts, "warnings": warnings})
    terminal.show("no complaints" if not warnings else f"{len(warnings)} complaints")
    if missing:
        ctx.exit(STOPPED)


def _dependencies() -> Iterator[tuple[str, str | None]]:
    """What chiasm requires and the version that is here, None when it is not."""
    for requirement in metadata.requires("chiasm") or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, None


def _devices() -> tuple[dict[str, object], list[str]]:
    import torch

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, object] = {
        "cpu": f"{available} cores, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} torch threads",
        "cpu bf16": _cpu_bf16(),
    }
    complaints = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        facts[f"cuda:{index}"] = f"{properties.name}, {size_words(properties.total_memory)}, {bf16}"
    if torch.version.cuda and not torch.cuda.is_available():
        complaints.append("torch is a CUDA build but sees no GPU; everything runs on the CPU")
    return facts, complaints


def _cpu_bf16() -> str:
    """Whether the processor multiplies bfloat16 itself; torch can always emulate it."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    native = sorted(flags & {"amx_bf16", "avx512_bf16", "bf16"})
    return f"in hardware ({', '.join(native)})" if native else "emulated: float32 is as fast or faster"


def _formats() -> tuple[dict[str, object], list[str]]:
    from PIL import features

    wanted = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "avif": "AVIF", "libtiff": "TIFF", "littlecms2": "colour"}
    there = {title: features.check(name) for name, title in wanted.items()}
    lacking = [title for title, found in there.items() if not found]
    complaints = [f"Pillow was built without {', '.join(lacking)}; install its wheel"] if lacking else []
    return {"formats": ", ".join(title for title, found in there.items() if found)}, complaints


def _disk() -> tuple[dict[str, object], list[str]]:
    free = shutil.disk_usage(Path.cwd()).free
    complaints = [f"only {size_words(free)} of disk are free here"] if free < LITTLE else []
    return {"free disk": f"{size_words(free)} here"}, complaints
