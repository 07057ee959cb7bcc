"""How the demo shows what it measured: one self-contained HTML page, one PNG contact sheet."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from demo import Shown

GAIN = 8
INK, FAINT, OWN, OTHER = "#1d1d1f", "#6e6e73", "#0b6e4f", "#b9bfc6"
TITLES = ("original", "from the store", "from context alone", f"difference x{GAIN}")
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 100rem; background: #fdfdfb; color: #1d1d1f;
       font: 17px/1.55 Georgia, "Times New Roman", serif; }
h1 { font-size: 2.1rem; font-weight: normal; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; font-weight: normal; margin: 0 0 .75rem; }
h2 small, figcaption, table, .note { color: #6e6e73; font: 14px/1.5 system-ui, sans-serif; }
p { max-width: 44rem; }
section { margin-top: 3.5rem; padding-top: 1.5rem; border-top: 1px solid #e3e3df; }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; display: block; }
figcaption { padding-top: .35rem; }
table { border-collapse: collapse; margin-top: 1.25rem; color: inherit; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem 1.25rem .25rem 0; text-align: right; font-weight: normal; }
th:first-child, td:first-child { text-align: left; }
thead th { color: #6e6e73; border-bottom: 1px solid #d5d5d0; }
tr.own td { color: #0b6e4f; font-weight: 600; }
.bar { display: inline-block; height: .7em; background: #b9bfc6; vertical-align: baseline; }
.own .bar { background: #0b6e4f; }
"""


def difference(row: Shown) -> np.ndarray:
    """|drawn - original| x GAIN as a picture: black is equal."""
    gap = np.abs(row.drawn.astype(np.int16) - row.original.astype(np.int16)) * GAIN
    return gap.clip(0, 255).astype(np.uint8)


def views(row: Shown) -> tuple[np.ndarray, ...]:
    return row.original, row.drawn, row.alone, difference(row)


def sizes(row: Shown) -> list[tuple[str, float | None]]:
    """Names and bytes in the order in which they are shown: the packet first."""
    return [("chiasm", float(row.total)), *row.rivals.items()]


# --- the page ---


def inline(pixels: np.ndarray) -> str:
    """A data URI of lossless WebP: nothing is lost between the store and the reader's eye."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def write_page(rows: Sequence[Shown], quality: int, path: Path) -> None:
    body = "".join(section(row) for row in rows)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>chiasm: from the store alone</title><style>{STYLE}</style></head><body>
<h1>Encoded once, drawn from the store alone</h1>
<p>Each photograph went once through the encoder at quality {quality}; its two levels, <i>context</i> and <i>detail</i>,
were compressed and stored. Everything below was then drawn by a fresh process step that had only the store. JPEG,
WebP and AVIF are given the bytes that they need for the same PSNR, each at its best; where no figure stands, the
format has no such PSNR among the settings tried.</p>
{summary(rows)}{body}
<p class="note">The photographs belong to scikit-image and scikit-learn, which say where each comes from.</p>
</body></html>
"""
    path.write_text(page, encoding="utf-8")


def summary(rows: Sequence[Shown]) -> str:
    """One table over all photographs: bytes, and the packet's share of each rival."""
    names = list(rows[0].rivals)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("photograph", "PSNR", "chiasm", *names))
    lines = []
    for row in rows:
        cells = [html.escape(row.name), f"{row.decibel:.1f} dB", *(figure(size) for _, size in sizes(row))]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def figure(size: float | None) -> str:
    return "&ndash;" if size is None else f"{size:,.0f}"


def section(row: Shown) -> str:
    height, width = row.original.shape[:2]
    notes = ("", f"{row.decibel:.1f} dB", f"{row.alone_decibel:.1f} dB", "")
    captions = [f"{title}{', ' + note if note else ''}" for title, note in zip(TITLES, notes, strict=True)]
    figures = "".join(
        f'<figure><img alt="{html.escape(row.name)}: {caption}" src="{inline(view)}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, view in zip(captions, views(row), strict=True)
    )
    longest = max(size for _, size in sizes(row) if size is not None)
    lines = []
    for name, size in sizes(row):
        label = " + ".join(f"{level} {count:,}" for level, count in row.levels.items()) if name == "chiasm" else ""
        bar = "" if size is None else f'<span class="bar" style="width: {14 * size / longest:.2f}rem"></span>'
        bpp = "&ndash;" if size is None else f"{8 * size / (height * width):.3f}"
        kind = ' class="own"' if name == "chiasm" else ""
        cells = "".join(f"<td>{cell}</td>" for cell in (html.escape(name), figure(size), bpp, label))
        lines.append(f'<tr{kind}>{cells}<td style="text-align:left">{bar}</td></tr>')
    head = "<tr><th></th><th>bytes</th><th>bits per pixel</th><th>of which</th><th></th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"
    title = f"<h2>{html.escape(row.name)} <small>{width} x {height}</small></h2>"
    return f'<section>{title}<div class="views">{figures}</div>{table}</section>'


# --- the contact sheet ---

CELL, GAP, MARGIN, HEAD, SIDE = 380, 14, 40, 44, 400


def font(size: int, face: str = "DejaVuSans.ttf") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face), size)


def write_sheet(rows: Sequence[Shown], path: Path) -> None:
    heights = [round(CELL * row.original.shape[0] / row.original.shape[1]) for row in rows]
    width = 2 * MARGIN + 4 * (CELL + GAP) + SIDE
    sheet = Image.new("RGB", (width, 2 * MARGIN + HEAD + sum(heights) + GAP * len(rows)), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate((*TITLES, "bytes at equal PSNR")):
        left = MARGIN + column * (CELL + GAP) + (GAP if column == len(TITLES) else 0)
        draw.text((left, MARGIN), title, INK, font(20))
    top = MARGIN + HEAD
    for row, height in zip(rows, heights, strict=True):
        for column, view in enumerate(views(row)):
            small = Image.fromarray(view).resize((CELL, height), Image.Resampling.LANCZOS)
            sheet.paste(small, (MARGIN + column * (CELL + GAP), top))
        draw_bars(draw, row, MARGIN + 4 * (CELL + GAP) + GAP, top, height)
        top += height + GAP
    sheet.save(path, optimize=True)


def draw_bars(draw: ImageDraw.ImageDraw, row: Shown, left: int, top: int, height: int) -> None:
    """Name and scores, then a bar for each format; the packet's is cut where `context` ends and `detail` begins."""
    size = row.original.shape[:2]
    draw.text((left, top), row.name, INK, font(19, "DejaVuSans-Bold.ttf"))
    scores = f"{size[1]} x {size[0]}   {row.decibel:.1f} dB   context alone {row.alone_decibel:.1f} dB"
    draw.text((left, top + 27), scores, FAINT, font(14))
    entries, room = sizes(row), SIDE - GAP
    longest = max(value for _, value in entries if value is not None)
    step = min(46, (height - 56) // len(entries))
    for index, (name, value) in enumerate(entries):
        y = top + 58 + index * step
        text = "no such PSNR" if value is None else f"{value:,.0f}"
        draw.text((left, y), f"{name}  {text}", INK, font(14))
        if value is None:
            continue
        end = left + round(room * value / longest)
        draw.rectangle((left, y + 20, end, y + 20 + max(4, step - 30)), fill=OWN if index == 0 else OTHER)
        if index == 0:
            cut = left + round(room * row.levels.get("context", 0) / longest)
            draw.rectangle((cut, y + 20, cut + 1, y + 20 + max(4, step - 30)), fill="#ffffff")
            levels = "  ".join(f"{level} {count:,}" for level, count in row.levels.items())
            draw.text((left + 130, y), levels, FAINT, font(14))
