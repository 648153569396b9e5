"""Draw charts as SVG, without any library; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from strombus.evaluation.base import Array
from strombus.evaluation.charts import Chart, Heatmap, Histogram, LineChart
from strombus.evaluation.text import brief

__all__ = ["draw_svg"]

SIDE = 320
"""Width and height of the plot itself; a viewBox scales it to the page."""
LEFT, TOP, RIGHT, BOTTOM = 62, 12, 14, 50


def draw_svg(chart: Chart) -> str:
    """Return the chart as an SVG element with a title and a description for those who cannot see it."""
    if isinstance(chart, Heatmap):
        return _heatmap(chart)
    return _line_chart(chart) if isinstance(chart, LineChart) else _histogram(chart)


# -- kinds of charts -----------------------------------------------------------------------------


def _heatmap(chart: Heatmap) -> str:
    values, count = chart.values, len(chart.values)
    cell = SIDE / count
    size = min(13.0, cell * 0.4)
    rows = values.sum(axis=1, keepdims=True)
    shares = values / np.where(rows > 0, rows, 1)
    room = max(len(_short(name)) for name in chart.labels) * min(12.0, max(7.0, cell * 0.8)) * 0.58
    left, bottom = 34 + max(20.0, room), 34 + max(20.0, room if room > cell else 0)
    parts: list[str] = []
    for i, j in np.ndindex(count, count):
        x, y, share = left + j * cell, TOP + i * cell, float(shares[i, j])
        hint = f"{chart.labels[i]} as {chart.labels[j]}: {brief(values[i, j].item())} ({share:.1%} of the row)"
        parts.append(
            f'<rect class="cell" x="{x:.2f}" y="{y:.2f}" width="{cell:.2f}" height="{cell:.2f}" '
            f'fill-opacity="{0.04 + 0.96 * share:.3f}"><title>{escape(hint)}</title></rect>'
        )
        if count <= 20 and (values[i, j] or count <= 12):
            shade = "on" if share > 0.75 else "faint" if not values[i, j] else "ink"
            shown = brief(values[i, j].item())
            parts.append(_text(x + cell / 2, y + cell / 2, shown, shade, size=_fit(shown, cell, size)))
    parts += _names(chart.labels, left, cell, room > cell)
    parts.append(_text(left + SIDE / 2, TOP + SIDE + bottom - 10, chart.column_title, "axis"))
    parts.append(_text(14, TOP + SIDE / 2, chart.row_title, "axis", turn=-90))
    return _svg(
        chart.title, f"{count} classes, colour by share of the row", left + SIDE + RIGHT, TOP + SIDE + bottom, parts
    )


def _line_chart(chart: LineChart) -> str:
    parts = _frame(chart.x_title, chart.y_title, [(tick / 5, f"{tick / 5:.1f}") for tick in range(6)])
    if chart.diagonal:
        parts.append(f'<line class="chance" x1="{LEFT}" y1="{TOP + SIDE}" x2="{LEFT + SIDE}" y2="{TOP}"/>')
    for number, line in enumerate(chart.lines):
        known = np.isfinite(line.x) & np.isfinite(line.y)
        x, y = LEFT + line.x[known] * SIDE, TOP + SIDE - line.y[known] * SIDE
        kind = f"series s{number % 8}"
        if len(x):
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in _thinned(x, y))
            parts.append(f'<polyline class="{kind}" points="{points}"><title>{escape(line.name)}</title></polyline>')
        if chart.dots:
            parts += [
                f'<circle class="{kind} dot" cx="{a:.1f}" cy="{b:.1f}" r="3.2"/>' for a, b in zip(x, y, strict=True)
            ]
    height = TOP + SIDE + BOTTOM
    legend = _legend([line.name for line in chart.lines], height)
    return _svg(
        chart.title,
        f"{chart.y_title} over {chart.x_title}: {', '.join(line.name for line in chart.lines)}",
        LEFT + SIDE + RIGHT,
        height + 20 * ((len(chart.lines) + 1) // 2),
        parts + legend,
    )


def _histogram(chart: Histogram) -> str:
    counts, top = chart.counts, _ceiling(math.ceil(chart.counts.max(initial=0)))
    ticks = [(i / 4, _brief(top * i / 4)) for i in range(5)]
    bottom = [(tick / 5, f"{chart.lower + (chart.upper - chart.lower) * tick / 5:.1f}") for tick in range(6)]
    parts = _frame(chart.x_title, "count", bottom, ticks)
    width, edges = SIDE / max(len(counts), 1), chart.edges
    for i, count in enumerate(counts.tolist()):
        height = SIDE * count / top
        hint = f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {brief(count)}"
        parts.append(
            f'<rect class="bar" x="{LEFT + i * width + 0.5:.2f}" y="{TOP + SIDE - height:.2f}" '
            f'width="{max(width - 1, 0.5):.2f}" height="{height:.2f}"><title>{hint}</title></rect>'
        )
    described = f"{brief(counts.sum().item())} values in {len(counts)} bins from {chart.lower:g} to {chart.upper:g}"
    return _svg(chart.title, described, LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM, parts)


# -- what they are made of -----------------------------------------------------------------------


def _svg(title: str, described: str, width: float, height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}. {escape(described)}">'
        f"{''.join(parts)}</svg>"
    )


def _frame(
    x_title: str,
    y_title: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]] | None = None,
) -> list[str]:
    parts = []
    for share, shown in y_ticks or x_ticks:
        y = TOP + SIDE * (1 - share)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + SIDE}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 8, y, shown, "tick", anchor="end"))
    for share, shown in x_ticks:
        x = LEFT + SIDE * share
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + SIDE}"/>')
        parts.append(_text(x, TOP + SIDE + 14, shown, "tick"))
    parts.append(_text(LEFT + SIDE / 2, TOP + SIDE + 36, x_title, "axis"))
    parts.append(_text(14, TOP + SIDE / 2, y_title, "axis", turn=-90))
    return parts


def _legend(names: Sequence[str], top: float) -> list[str]:
    parts = []
    for number, name in enumerate(names):
        x, y = LEFT + (number % 2) * (SIDE / 2), top + 8 + 20 * (number // 2)
        parts.append(f'<line class="series s{number % 8}" x1="{x:.0f}" y1="{y}" x2="{x + 24:.0f}" y2="{y}"/>')
        parts.append(_text(x + 31, y, _short(name, 19), "tick", anchor="start"))
    return parts


def _names(names: Sequence[str], left: float, cell: float, turned: bool) -> list[str]:
    """Name the rows and columns of a heatmap, leaving names out where they would touch."""
    every = max(1, int(np.ceil(9 / cell)))
    size = min(12.0, max(7.0, cell * 0.8))
    parts = []
    for i, name in enumerate(names):
        if i % every == 0:
            middle = (i + 0.5) * cell
            parts.append(_text(left - 6, TOP + middle, _short(name), "tick", anchor="end", size=size))
            x, y = left + middle, TOP + SIDE + (6 if turned else 12)
            anchor, turn = ("end", -90) if turned else ("middle", 0)
            parts.append(_text(x, y, _short(name), "tick", anchor=anchor, size=size, turn=turn))
    return parts


def _text(
    x: float, y: float, text: Any, kind: str, *, anchor: str = "middle", size: float | None = None, turn: int = 0
) -> str:
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    sized = f' style="font-size:{size:.1f}px"' if size else ""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'dominant-baseline="central"{sized}{turned}>{escape(str(text))}</text>'
    )


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _ceiling(value: int) -> int:
    """Return the next larger number that four ticks divide into round ones."""
    if value <= 4:
        return 4
    power = 10 ** (len(str(value)) - 1)
    return next(int(power * step) for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if power * step >= value)


def _brief(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _fit(shown: str, cell: float, size: float) -> float:
    """Shrink a number that is wider than its cell."""
    return min(size, 1.5 * cell / max(len(shown), 1))


def _thinned(x: Array, y: Array, most: int = 2000) -> Iterable[tuple[float, float]]:
    """Leave points out that no screen could show, so that a page stays small."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).round().astype(np.int64))
    return zip(x[kept].tolist(), y[kept].tolist(), strict=True)
