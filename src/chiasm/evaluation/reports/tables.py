"""Reports as Markdown. Gains and losses stand in the same columns; what could not be measured is a dash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from chiasm.evaluation.meters.curves import RANGE, Saving
from chiasm.evaluation.meters.distances import Distance
from chiasm.evaluation.protocols.codec import CodecReport
from chiasm.evaluation.protocols.denoising import DenoiseReport
from chiasm.evaluation.protocols.dense import DenseReport
from chiasm.evaluation.protocols.raw import RawReport
from chiasm.evaluation.protocols.space import SpaceReport

Cell = str | int | float | None


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], digits: int = 2) -> str:
    """A Markdown table: the first column is text, the others are aligned right, floats have `digits`
    decimals."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" + "---:|" * (len(columns) - 1)]
    lines += [f"| {' | '.join(_cell(value, digits) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def codec_tables(report: CodecReport) -> str:
    """The whole of `evaluate codec` as one page."""
    low, high = RANGE
    parts = [
        f"# Rate and distortion: {report.name}\n",
        "Real bytes of whole packets and files; PSNR of 8-bit RGB, mean of the pictures. Each rival is used\n"
        "at its best: JPEG optimised and progressive, WebP method 6, AVIF speed 6; JPEG and AVIF with the\n"
        "better of 4:2:0 and 4:4:4. Saved: positive is fewer bytes than the rival, negative is more.\n",
        "## Each quality, over the set\n\nRivals at equal mean PSNR.\n",
        _qualities(report),
        f"## At equal mean PSNR\n\n{_equals(report)}",
        "## Delta rate (Bjontegaard)\n",
        f"Mean difference in bytes between {low:.0f} and {high:.0f} dB: negative is fewer.\n",
        _deltas(report),
        f"## Bytes of each level, mean of the pictures\n\n{_level_bytes(report)}",
        "## Each picture\n\nRivals at the PSNR of that picture.\n",
        _pictures(report),
    ]
    return "\n".join(parts)


def space_tables(report: SpaceReport) -> str:
    """The whole of `evaluate space` as one page."""
    parts = [
        "# What the space is worth\n",
        f"{len(report.pictures)} pictures. Distances are divided by the mean distance between two different\n"
        "pictures in the same space and level: 0 is the same, 1 is as far as another picture. L1 leads.\n",
        _reconstructions(report),
        _motions(report),
        _shifts(report),
        _probe(report),
    ]
    return "\n".join(part for part in parts if part)


def raw_tables(report: RawReport) -> str:
    """The whole of `evaluate raw` as one page."""
    rows = (*report.rows, *report.sensors)
    ways = list(dict.fromkeys(way for row in rows for way in row.psnr))
    levels = list(report.rows[0].alignment)
    drawn = table(["noise or sensor", *ways], ([row.noise, *map(row.psnr.get, ways)] for row in rows))
    columns = ["noise or sensor", *(f"{level}, {norm}" for level in levels for norm in ("L1", "L2"))]
    gaps: list[list[Cell]] = [
        [row.noise, *(value for level in levels for value in (row.alignment[level].l1, row.alignment[level].l2))]
        for row in rows
    ]
    parts = [
        "# RAW files in the space\n",
        f"{len(report.pictures)} pictures, each seen by one of the pinned unseen sensors in turn. The ceiling is\n"
        "the photograph itself, encoded and drawn. A sensor's row is the mean over all noises.\n",
        f"## PSNR of the developed picture (dB)\n\n{drawn}",
        "## Alignment\n\nDistance of a mosaic's features from those of its clean photograph, over the mean\n"
        f"distance between two different pictures.\n\n{table(columns, gaps, 3)}",
    ]
    return "\n".join(parts)


def denoise_tables(report: DenoiseReport) -> str:
    """The whole of `evaluate denoise` as one page."""
    ways = list(next(iter(report.psnr.values()), {}))
    rows = ([noise, report.counts[noise], *map(found.get, ways)] for noise, found in report.psnr.items())
    return f"# Denoising\n\nMean PSNR in dB against the clean picture.\n\n{table(['noise', 'pictures', *ways], rows)}"


def dense_tables(report: DenseReport) -> str:
    """The whole of `evaluate dense` as one page."""
    parts = [
        f"# Dense tasks: {report.protocol}\n",
        f"{report.pictures} pictures. Constant and position prior are the best that can be said without looking,\n"
        f"from {report.training} training pictures. Shares are in [0, 1].\n",
    ]
    for task, ways in report.scores.items():
        measures = list(next(iter(ways.values()), {}))
        rows: list[list[Cell]] = [[way, *map(found.get, measures)] for way, found in ways.items()]
        parts.append(f"## {task}\n\n{table(['way', *measures], rows, 3)}")
    if report.classes:
        ways_of = list(report.classes)
        names = list(next(iter(report.classes.values())))
        shares: list[list[Cell]] = [[name, *(report.classes[way][name] for way in ways_of)] for name in names]
        parts.append(f"## IoU of each class\n\n{table(['class', *ways_of], shares, 3)}")
    return "\n".join(parts)


def _qualities(report: CodecReport) -> str:
    columns = ["quality", "bpp", "PSNR (dB)", "SSIM"]
    for rival in report.rivals:
        columns += [f"{rival} (bpp)", "saved (%)", "saved, per picture (%)"]
    rows: list[list[Cell]] = []
    for row in report.means:
        cells: list[Cell] = [str(row.quality), row.bpp, row.psnr, f"{row.ssim:.4f}"]
        for rival in report.rivals:
            cells += [row.rivals[rival], _one_digit(row.saved[rival]), _one_digit(row.saved_each[rival])]
        rows.append(cells)
    return table(columns, rows, 3)


def _equals(report: CodecReport) -> str:
    columns = ["PSNR (dB)", *(f"{codec} (bpp)" for codec in report.curves), *_saved(report)]
    rows = ([f"{row.psnr:.0f}", *row.bpp.values(), *map(_one_digit, row.saved.values())] for row in report.equal)
    return table(columns, rows, 3)


def _deltas(report: CodecReport) -> str:
    found = {"**over the set**": report.bd, **report.bd_pictures}
    rows = ([name, *(_percent(item[rival]) for rival in report.rivals)] for name, item in found.items())
    return table(["picture", *(f"vs {rival} (%)" for rival in report.rivals)], rows)


def _level_bytes(report: CodecReport) -> str:
    columns = ["quality", *report.means[0].levels, "total", "context alone (dB)"]
    rows = ([str(row.quality), *row.levels.values(), sum(row.levels.values()), row.coarse_psnr] for row in report.means)
    return table(columns, rows, 1)


def _pictures(report: CodecReport) -> str:
    columns = ["picture", "quality", "bytes", "PSNR (dB)", "SSIM"]
    columns += [*(f"{rival} (bytes)" for rival in report.rivals), *_saved(report)]
    rows: list[list[Cell]] = []
    for row in report.rows:
        cells: list[Cell] = [row.picture, row.quality, row.bytes, row.psnr, f"{row.ssim:.4f}"]
        cells += [None if size is None else round(size) for size in row.rivals.values()]
        rows.append(cells + [_one_digit(value) for value in row.saved.values()])
    return table(columns, rows)


def _saved(report: CodecReport) -> list[str]:
    return [f"saved vs {rival} (%)" for rival in report.rivals]


def _reconstructions(report: SpaceReport) -> str:
    coarse = report.settings.coarse
    rows: list[list[Cell]] = []
    for name, found in report.reconstruction.items():
        for item in (found.mean, *found.pictures):
            label = f"**{name}, mean**" if item is found.mean else f"{name}, {item.name}"
            rows.append([label, item.psnr, f"{item.ssim:.4f}", item.coarse_psnr, item.bicubic_psnr])
    columns = ["space, picture", "PSNR (dB)", "SSIM", f"{coarse} alone (dB)", "bicubic x4 (dB)"]
    return f"## Reconstruction\n\n{table(columns, rows)}" if rows else ""


def _motions(report: SpaceReport) -> str:
    parts = ["## Equivariance\n\nE(f(x)) against f_s(E(x)); drawn: D(f_s(E(x))) against f(x), still: D(E(f(x))).\n"]
    for name, score in report.equivariance.items():
        levels = list(score.levels)
        rows: list[list[Cell]] = [
            [f"**{title}**", *_pairs(found, levels), None, None, None]
            for title, found in (
                ("mean", score.levels),
                ("exact", score.exact),
                ("resampled", score.resampled),
            )
            if found
        ]
        for item in score.motions:
            drawn = (None, None, None) if item.drawn is None else (item.drawn.psnr, item.drawn.still, item.drawn.l1)
            rows.append([item.motion, *_pairs(item.levels, levels), *drawn])
        columns = ["motion", *_titles(levels), "drawn (dB)", "still (dB)", "drawn L1"]
        parts.append(f"### {name}\n\n{table(columns, rows, 4)}")
    return "\n".join(parts)


def _shifts(report: SpaceReport) -> str:
    names = list(report.shift)
    shifts = list(next(iter(report.shift.values())).shifts)
    mean: list[list[Cell]] = [["**mean**", *(report.shift[name].mean.l1 for name in names)]]
    mean.append(["**mean, L2**", *(report.shift[name].mean.l2 for name in names)])
    for shift in shifts:
        found = ([item.l1 for item in report.shift[name].shifts[shift].values()] for name in names)
        mean.append([shift, *(sum(values) / len(values) for values in found)])
    rows: list[list[Cell]] = []
    for name in names:
        for shift, levels in report.shift[name].shifts.items():
            rows += [[f"{name}, {shift}, {level}", item.l1, item.l2] for level, item in levels.items()]
    return (
        f"## Feature shift\n\nL1, mean of the levels.\n\n{table(['shift', *names], mean, 4)}\n"
        f"### Each level\n\n{table(['space, shift, level', 'L1', 'L2'], rows, 4)}"
    )


def _probe(report: SpaceReport) -> str:
    notes = "".join(f"Skipped: {reason}.\n" for reason in report.skipped)
    if not report.probe:
        return f"## Linear probe\n\n{notes}"
    classes = list(next(iter(report.probe.values())).iou)
    rows: list[list[Cell]] = []
    for name, score in report.probe.items():
        shares = (score.miou, score.accuracy, *score.iou.values())
        rows.append([name, score.inputs, *(None if share is None else 100 * share for share in shares)])
    columns = ["inputs from", "inputs", "mIoU", "accuracy", *classes]
    return f"## Linear probe\n\nCamVid, percent.\n\n{table(columns, rows, 1)}"


def _titles(levels: Sequence[str]) -> list[str]:
    return [f"{level} {measure}" for level in levels for measure in ("L1", "L2")]


def _pairs(found: Mapping[str, Distance], levels: Sequence[str]) -> list[Cell]:
    return [value for level in levels for value in (found[level].l1, found[level].l2)]


def _percent(saving: Saving | None) -> str | None:
    if saving is None:
        return None
    whole = (saving.low, saving.high) == RANGE
    return f"{saving.percent:+.1f}" if whole else f"{saving.percent:+.1f} ({saving.low:.1f} to {saving.high:.1f} dB)"


def _one_digit(value: float | None) -> str | None:
    return None if value is None else f"{value:+.1f}"


def _cell(value: Cell, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
