"""Reports as pictures. Every figure is an object of its own, drawn by Agg: no window, and no state is
shared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from chiasm.evaluation.meters.curves import Curve
from chiasm.evaluation.protocols.codec import CodecReport
from chiasm.evaluation.protocols.space import SpaceReport

OWN = "#c1272d"
RIVALS = ("#8a8a8a", "#4c78a8", "#3a8f5c", "#b07aa1")
WINDOW = (27.0, 40.0)  # dB that are drawn: the compared range and what leads into it
RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


def rate_plot(report: CodecReport) -> Figure:
    """Mean PSNR against bits per pixel of each codec over the set, the rate on a logarithmic scale."""
    figure = _figure(8, 5.5)
    axes = figure.add_subplot()
    _curves(axes, report.curves, report.name, report.area)
    axes.set_xlabel("bits per pixel (real bytes, mean of the set)")
    axes.set_ylabel("PSNR (dB, mean of the set)")
    axes.set_title(f"{report.name} beside JPEG, WebP and AVIF at their best")
    axes.legend(frameon=False, loc="lower right")
    return figure


def pictures_plot(report: CodecReport) -> Figure:
    """One small rate-distortion plot per picture."""
    count = len(report.families)
    columns = min(6, count)
    lines = -(-count // columns)
    figure = _figure(max(2.6 * columns, 4), 2.2 * lines + 0.6)
    areas = {row.picture: row.area for row in report.rows}
    for index, ((name, area), families) in enumerate(zip(areas.items(), report.families, strict=True)):
        axes = figure.add_subplot(lines, columns, index + 1)
        _curves(axes, {codec: family.best for codec, family in families.items()}, report.name, area)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        if index == 0:
            figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=4)
    figure.supxlabel("bits per pixel", fontsize=9)
    figure.supylabel("PSNR (dB)", fontsize=9)
    return figure


def shift_plot(report: SpaceReport) -> Figure:
    """Bars: for each disturbance how far each space moves (L1, mean of the levels); shorter is better."""
    names = list(report.shift)
    shifts = list(report.shift[names[0]].shifts)
    figure = _figure(8, 0.7 + 0.22 * len(shifts) * (len(names) + 1))
    axes = figure.add_subplot()
    for order, name in enumerate(names):
        rows = report.shift[name].shifts
        lengths = [np.mean([item.l1 for item in rows[shift].values()]) for shift in shifts]
        places = np.arange(len(shifts)) * (len(names) + 1) + order
        colour = OWN if order == 0 else RIVALS[(order - 1) % len(RIVALS)]
        axes.barh(places, lengths, color=colour, label=f"{name} (mean {report.shift[name].mean.l1:.3f})")
    axes.set_yticks(np.arange(len(shifts)) * (len(names) + 1) + (len(names) - 1) / 2, shifts)
    axes.invert_yaxis()
    axes.set_xlabel("distance / distance between different pictures")
    axes.set_title("How far features move when the picture is disturbed")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _curves(axes: Axes, curves: Mapping[str, Curve], own: str, area: float) -> None:
    rivals = iter(RIVALS)
    for name, curve in curves.items():
        mine = name == own
        reached = np.linspace(*curve.reach, 200)
        rate = 8 * np.exp(curve.log_bytes(reached)) / area
        axes.plot(rate, reached, label=name, color=OWN if mine else next(rivals), linewidth=2.0 if mine else 1.3)
        if mine:  # where its qualities lie
            coded = [(8 * point.bytes / area, point.psnr) for point in curve.points]
            axes.plot(*zip(*coded, strict=True), color=OWN, linestyle="", marker="o", markersize=4)
    _window(axes, curves, area)
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _window(axes: Axes, curves: Mapping[str, Curve], area: float) -> None:
    """Limits around what lies in WINDOW, over all codecs; everything when nothing does."""
    points = [point for curve in curves.values() for point in curve.points]
    seen = [point for point in points if WINDOW[0] <= point.psnr <= WINDOW[1]] or points
    rates = [8 * point.bytes / area for point in seen]
    axes.set_xscale("log")
    axes.set_xlim(0.9 * min(rates), 1.1 * max(rates))
    axes.set_ylim(min(point.psnr for point in seen) - 0.5, max(point.psnr for point in seen) + 0.5)
    axes.xaxis.set_major_locator(FixedLocator(RATES))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
