"""Draws a dashboard from its file and real results of its queries. It isn't Grafana, and says so on each picture."""

from __future__ import annotations

import html
import json
import math
import subprocess
import time
from datetime import datetime
from pathlib import Path

from panels import Sources, Span

CELL_W, CELL_H = 60, 32
COLOURS = [
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#705da0",
    "#37872d",
    "#fade2a",
]
STYLE = """
body{margin:0;background:#111217;color:#ccccdc;font:13px 'DejaVu Sans',sans-serif;position:relative}
h1{font-size:18px;margin:0;padding:14px 12px 2px}
.note{padding:0 12px 8px;color:#f2cc0c}
.panel{position:absolute;background:#181b1f;border:1px solid #2a2d33;border-radius:3px;overflow:hidden}
.row{position:absolute;font-size:15px;padding:6px 10px}
.title{padding:5px 9px;font-weight:bold;white-space:nowrap}
.stat{font-size:30px;text-align:center;line-height:68px}
.legend{font-size:10px;padding:0 9px;line-height:15px;height:30px;overflow:hidden}
table{border-collapse:collapse;font-size:11px;margin:0 9px;white-space:nowrap}
th{text-align:left;color:#6e9fff}th,td{padding:2px 14px 2px 0;max-width:220px;overflow:hidden;text-overflow:ellipsis}
.n{text-align:right}
.legend b{display:inline-block;width:10px;height:3px;margin:0 4px 3px 8px}
"""
HEAD_H = 64
# As Grafana writes them.
SUFFIXES = {
    "reqps": " req/s",
    "ops": " ops/s",
    "eps": " evt/s",
    "cps": " c/s",
    "recps": " rec/s",
    "rowsps": " rows/s",
}


def shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "ms":
        value, unit = value / 1e3, "s"
    if unit == "s" and value >= 120:
        return f"{value / 60:.3g} min"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        for name in ("B", "KiB", "MiB", "GiB"):
            if value < 1024 or name == "GiB":
                return f"{value:.3g} {name}"
            value /= 1024
    suffix = SUFFIXES.get(unit, "")
    for size, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if name == 'k' else size):.3g} {name}{suffix}"
    return f"{value:.4g}{suffix}"


def top(highest: float, unit: str) -> float:
    """Where an axis of four steps ends: a bit above the highest value, by steps that are whole to people."""
    if unit == "percentunit" and 0.5 < highest <= 1.001:
        return 1
    base = 1.0
    while unit == "bytes" and highest / base >= 4096:
        base *= 1024
    step = highest * 1.05 / 4 / base
    size = 10 ** math.floor(math.log10(step))
    return 4 * base * size * next(n for n in (1, 2, 2.5, 5, 10) if n * size >= step)


class Drawing:
    """One dashboard over a span."""

    def __init__(self, sources: Sources, span: Span) -> None:
        self.sources, self.span = sources, span

    def page(self, board: dict) -> tuple[str, int]:
        parts, bottom = [], 0
        for panel in board["panels"]:
            at = panel["gridPos"]
            left, top = at["x"] * CELL_W, at["y"] * CELL_H + HEAD_H
            width, height = at["w"] * CELL_W - 6, at["h"] * CELL_H - 6
            place = (
                f"left:{left + 3}px;top:{top + 3}px;width:{width}px;height:{height}px"
            )
            title = html.escape(panel["title"])
            if panel["type"] == "row":
                parts.append(f'<div class="row" style="{place}">{title}</div>')
            else:
                inner = self.panel(panel, width, height)
                head = f'<div class="title">{title}</div>'
                parts.append(f'<div class="panel" style="{place}">{head}{inner}</div>')
            bottom = max(bottom, top + height + 12)
        note = "Preview: drawn by the project's test tool from real results, not by Grafana."
        head = f'<h1>{html.escape(board["title"])}</h1><div class="note">{note}</div>'
        page = f'<meta charset="utf-8"><style>{STYLE}</style>{head}{"".join(parts)}'
        return page, bottom

    def panel(self, panel: dict, width: int, height: int) -> str:
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "table":
            return self.table(panel)
        series = [
            one
            for target in panel["targets"]
            for one in self.sources.series(target, self.span).items()
        ]
        if panel["type"] == "stat":
            value = series[0][1][-1][1] if series else math.nan
            colour = "#73bf69"
            for step in defaults["thresholds"]["steps"][1:]:
                if value >= step["value"]:
                    colour = {"orange": "#ff9830", "red": "#f2495c"}[step["color"]]
            text = shown(value, defaults["unit"])
            return f'<div class="stat" style="color:{colour}">{text}</div>'
        stacking = defaults["custom"].get("stacking", {})
        stacked = stacking.get("mode") == "normal"
        return self.graph(series, defaults["unit"], stacked, width, height)

    def table(self, panel: dict) -> str:
        answer = self.sources.rows(panel["targets"][0], self.span)
        config = panel["fieldConfig"]
        units = {
            one["matcher"]["options"]: one["properties"][0]["value"]
            for one in config["overrides"]
        }

        def cell(column: str, value: object) -> str:
            if isinstance(value, (int, float)):
                unit = units.get(column, config["defaults"]["unit"])
                return f'<td class="n">{shown(value, unit)}</td>'
            if isinstance(value, datetime):
                value = value.strftime("%H:%M:%S")
            return f"<td>{html.escape('' if value is None else str(value))}</td>"

        head = "".join(f"<th>{html.escape(name)}</th>" for name in answer.columns)
        body = "".join(
            f"<tr>{''.join(map(cell, answer.columns, row))}</tr>"
            for row in answer.rows[:11]
        )
        return f"<table><tr>{head}</tr>{body}</table>"

    def graph(self, series, unit: str, stacked: bool, width: int, height: int) -> str:
        left, above, right, bottom = 80, 6, 10, 22
        w, h = width - left - right, height - 28 - 34 - above - bottom
        if stacked:
            base: dict[float, float] = {}
            lifted = []
            for name, points in series:
                raised = [(at, value + base.get(at, 0)) for at, value in points]
                base.update(raised)
                lifted.append((name, raised))
            series = lifted
        highest = max((v for _, points in series for _, v in points), default=1) or 1
        highest = top(highest, unit)

        def place(at: float, value: float) -> str:
            x = left + w * (at - self.span.start) / self.span.seconds
            return f"{x:.1f},{above + h * (1 - value / highest):.1f}"

        lines = []
        for part in range(5):
            y = above + h * part / 4
            text = shown(highest * (1 - part / 4), unit)
            lines.append(
                f'<line x1="{left}" x2="{left + w}" y1="{y}" y2="{y}" stroke="#2a2d33"/>'
            )
            lines.append(
                f'<text x="{left - 6}" y="{y + 4}" fill="#9a9aa8" font-size="10" text-anchor="end">{text}</text>'
            )
        for number, (_, points) in reversed(list(enumerate(series))):
            colour = COLOURS[number % len(COLOURS)]
            path = " ".join(place(*point) for point in points)
            fill = "none"
            if stacked:
                ends = [place(points[-1][0], 0), place(points[0][0], 0)]
                lines.append(
                    f'<polygon points="{path} {" ".join(ends)}" fill="{colour}" opacity="0.35"/>'
                )
            lines.append(
                f'<polyline points="{path}" fill="{fill}" stroke="{colour}" stroke-width="1.6"/>'
            )
        for part in range(5):
            x, at = left + w * part / 4, self.span.start + self.span.seconds * part / 4
            text = time.strftime("%H:%M:%S", time.gmtime(at))
            anchor = {0: "start", 4: "end"}.get(part, "middle")
            lines.append(
                f'<text x="{x}" y="{above + h + 15}" fill="#9a9aa8" font-size="10" text-anchor="{anchor}">{text}</text>'
            )
        legend = "".join(
            f'<b style="background:{COLOURS[n % len(COLOURS)]}"></b>{html.escape(name)}'
            for n, (name, _) in enumerate(series)
        )
        svg = f'<svg width="{width}" height="{height - 62}">{"".join(lines)}</svg>'
        return f'{svg}<div class="legend">{legend}</div>'


def picture(drawing: Drawing, file: Path, out: Path, work: Path) -> None:
    """Writes a picture of a dashboard's file, by Chromium."""
    page, height = drawing.page(json.loads(file.read_text()))
    source = work / f"{file.stem}.html"
    source.write_text(page)
    subprocess.run(
        ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]
        + ["--hide-scrollbars", f"--window-size={24 * CELL_W + 8},{height}"]
        + [f"--user-data-dir={work / 'chromium'}", f"--screenshot={out}"]
        + [f"file://{source}"],
        check=True,
        stderr=subprocess.DEVNULL,
        timeout=120,
    )
