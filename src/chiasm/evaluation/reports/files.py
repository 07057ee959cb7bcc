"""A report on disk: report.json (every number), report.md (the tables), and plots beside them."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path

from matplotlib.figure import Figure
from PIL import features

from chiasm.evaluation.protocols.codec import CodecReport
from chiasm.evaluation.protocols.denoising import DenoiseReport
from chiasm.evaluation.protocols.dense import DenseReport
from chiasm.evaluation.protocols.raw import RawReport
from chiasm.evaluation.protocols.space import SpaceReport
from chiasm.evaluation.reports.plots import pictures_plot, rate_plot, shift_plot
from chiasm.evaluation.reports.tables import codec_tables, denoise_tables, dense_tables, raw_tables, space_tables

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def write_codec(report: CodecReport, folder: Path) -> tuple[Path, ...]:
    """Writes report.json, report.md, rate.png and pictures.png into `folder`, made if needed; returns their
    paths."""
    plots = {"rate": rate_plot(report), "pictures": pictures_plot(report)}
    return _write(plain(report), codec_tables(report), plots, folder)


def write_space(report: SpaceReport, folder: Path) -> tuple[Path, ...]:
    """Writes report.json, report.md and shift.png into `folder`, made if needed; returns their paths."""
    return _write(plain(report), space_tables(report), {"shift": shift_plot(report)}, folder)


def write_raw(report: RawReport, folder: Path) -> tuple[Path, ...]:
    """Writes report.json and report.md into `folder`, made if needed; returns their paths."""
    return _write(plain(report), raw_tables(report), {}, folder)


def write_denoise(report: DenoiseReport, folder: Path) -> tuple[Path, ...]:
    """Writes report.json and report.md into `folder`, made if needed; returns their paths."""
    return _write(plain(report), denoise_tables(report), {}, folder)


def write_dense(report: DenseReport, sheet: Figure, folder: Path) -> tuple[Path, ...]:
    """Writes report.json, report.md and sheet.png into `folder`, made if needed; returns their paths."""
    return _write(plain(report), dense_tables(report), {"sheet": sheet}, folder)


def plain(value: object) -> Plain:
    """Dataclasses, mappings and sequences as what JSON holds; NaN and infinity, which it does not, as
    null."""
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a report holds numbers, text, mappings and sequences; got {type(value).__name__}")


def software() -> dict[str, Plain]:
    """Versions that decide the numbers: rivals are as good as the libraries that make them."""
    libraries = {name: str(features.version(name)) for name in ("libjpeg_turbo", "webp", "avif")}
    packages = {name: version(name) for name in ("torch", "pillow", "torchmetrics")}
    return {**packages, **libraries, "python": platform.python_version(), "machine": platform.machine()}


def _write(values: Plain, page: str, plots: Mapping[str, Figure], folder: Path) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "report.json", folder / "report.md", *(folder / f"{name}.png" for name in plots)]
    paths[0].write_text(json.dumps({"software": software(), "report": values}, indent=1) + "\n", encoding="utf-8")
    pictures = "".join(f"\n![{name}]({name}.png)\n" for name in plots)
    paths[1].write_text(page + pictures, encoding="utf-8")
    for path, figure in zip(paths[2:], plots.values(), strict=True):
        figure.savefig(path)
    return tuple(paths)
