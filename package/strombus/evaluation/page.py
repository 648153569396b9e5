"""One self-contained page of figures and charts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from strombus.errors import ConfigurationError, kind_of
from strombus.evaluation.base import BaseEvaluation, Metric
from strombus.evaluation.pictures import draw_svg

__all__ = ["export_evaluation_html"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{sections}
</main>
</body>
</html>
"""

_LIGHT = """
--page: #f6f7f8; --card: #ffffff; --ink: #1d2327; --faint: #5f6a72; --rule: #dde1e4; --cell: #0b62a4; --on: #ffffff;
--s0: #0b62a4; --s1: #c44f00; --s2: #00795a; --s3: #a8437c; --s4: #a06a00; --s5: #2b8cc4; --s6: #5b4aa8; --s7: #5f6a72;
"""
_DARK = """
--page: #14181b; --card: #1c2226; --ink: #e6eaed; --faint: #a3aeb5; --rule: #333c42; --cell: #3d94d6; --on: #0c1114;
--s0: #5aaeea; --s1: #f08a45; --s2: #3cc49b; --s3: #e58bbb; --s4: #e3b04b; --s5: #9ad4f5; --s6: #a99bf0; --s7: #aab4bb;
"""
# Hues that red-green blindness keeps apart; from the fifth line on they are dashed too.
_SERIES = "".join(
    f".s{i} {{ stroke: var(--s{i});{' stroke-dasharray: 7 3;' * (i > 3)} }} .dot.s{i} {{ fill: var(--s{i}); }}\n"
    for i in range(8)
)
_STYLE = (
    f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; font-weight: 600; margin: 0 0 1.5rem; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2.5rem 0 .75rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .5rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1rem; }
dl div, figure, details { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; }
dl div { padding: .5rem .9rem; min-width: 7.5rem; }
dt { color: var(--faint); font-size: .8rem; }
dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .75rem; }
figure, details { padding: .9rem; margin: 0 0 .75rem; }
.charts figure { margin: 0; }
.charts + details { margin-top: .75rem; }
summary { cursor: pointer; font-size: .9rem; color: var(--faint); }
pre { margin: .75rem 0 0; overflow-x: auto; font: .8rem/1.45 ui-monospace, monospace; }
svg { display: block; width: 100%; max-width: 30rem; height: auto; margin: 0 auto; font-family: inherit; }
.grid { stroke: var(--rule); stroke-width: 1; }
.chance { stroke: var(--faint); stroke-width: 1.2; stroke-dasharray: 3 4; }
.tick { fill: var(--faint); font-size: 12px; }
.axis { fill: var(--ink); font-size: 13px; }
.ink { fill: var(--ink); } .on { fill: var(--on); } .faint { fill: var(--faint); opacity: .7; }
.cell { fill: var(--cell); stroke: var(--rule); stroke-width: .5; }
.bar { fill: var(--s0); }
.series { fill: none; stroke-width: 2; stroke-linejoin: round; }
"""
    + _SERIES
    + "circle.dot { stroke: var(--card); stroke-width: 1; stroke-dasharray: none; }\n"
)


def export_evaluation_html(metrics: Any, path: str | PathLike[str], title: str = "Evaluation") -> Path:
    """Write metrics as one page that needs nothing beside it: figures, charts and the text of ``stats()``.

    Parameters
    ----------
    metrics : metric or iterable of metrics
        `Metric`, ``torchmetrics.Metric`` or ``MetricCollection``. One that only has ``stats()`` is shown as that text,
        those of torchmetrics as what they compute.
    path : str or path
        The file, which is replaced.
    title : str

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    ConfigurationError
        For what is no metric.
    """
    listed = [metrics] if isinstance(metrics, Metric) or hasattr(metrics, "compute") else list(metrics)
    sections = "\n".join(_section(metric, alone=len(listed) == 1) for metric in listed)
    file = Path(path)
    file.write_text(_PAGE.format(title=escape(title), style=_STYLE, sections=sections), encoding="utf-8")
    return file


def _section(metric: Any, alone: bool) -> str:
    name = type(metric).__name__
    heading = "" if alone else f"<h2>{escape(name)}</h2>\n"
    if not isinstance(metric, BaseEvaluation):
        text = f"<details open><summary>Figures</summary><pre>{escape(_text(metric))}</pre></details>"
        return f"<section>{heading}{text}</section>"
    if metric.empty:
        return f"<section>{heading}<p>No data.</p></section>"
    tiles = "".join(_tile(method, metric.value(known)) for known, method in metric.figures.items())
    charts = "".join(f"<figure><h3>{escape(chart.title)}</h3>{draw_svg(chart)}</figure>" for chart in metric.charts())
    shown = f'<div class="charts">{charts}</div>' if charts else ""
    text = f"<details><summary>As text</summary><pre>{escape(metric.stats())}</pre></details>"
    return f"<section>{heading}<dl>{tiles}</dl>{shown}{text}</section>"


def _text(metric: Any) -> str:
    """Return the figures of a metric without charts; torchmetrics' own are not Strombus's, and compute them."""
    if isinstance(metric, Metric):
        return metric.stats()
    if isinstance(metric, type) or not hasattr(metric, "compute"):
        raise ConfigurationError(
            f"a page shows metrics of strombus.evaluation and of torchmetrics, got {kind_of(metric)}"
        )
    found = metric.compute()
    figures = found if isinstance(found, Mapping) else {type(metric).__name__: found}
    return "\n".join(f"{name} {value.tolist()}" for name, value in figures.items())


def _tile(method: str, value: float) -> str:
    name = method.removeprefix("calculate_").replace("_", " ")
    shown = "-" if math.isnan(value) else f"{value:.4g}"
    return f"<div><dt>{escape(name)}</dt><dd>{shown}</dd></div>"
