"""Draw charts with matplotlib, where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation.charts import Chart, Heatmap, LineChart
from strombus.evaluation.text import brief

__all__ = ["plot_charts"]


def plot_charts(charts: Sequence[Chart], ax: Any = None) -> Any:
    """Draw the first chart into `ax`, or all of them side by side into a new figure; return the figure.

    Raises
    ------
    ConfigurationError
        Without matplotlib.
    DataError
        When there is nothing to draw.
    """
    if not charts:
        raise DataError("there is nothing to draw: the metric has no data, or no charts")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError(
            "plot needs matplotlib, which is not installed: pip install matplotlib; to_html needs nothing"
        ) from None
    if ax is not None:
        _draw(charts[0], ax)
        return ax.figure
    figure = Figure(figsize=(5 * len(charts), 4.6), layout="constrained")
    for chart, axes in zip(charts, figure.subplots(1, len(charts), squeeze=False)[0], strict=True):
        _draw(chart, axes)
    return figure


def _draw(chart: Chart, ax: Any) -> None:
    if isinstance(chart, Heatmap):
        _draw_heatmap(chart, ax)
    elif isinstance(chart, LineChart):
        if chart.diagonal:
            ax.plot([0, 1], [0, 1], linestyle=":", color="grey")
        for line in chart.lines:
            ax.plot(line.x, line.y, marker="o" if chart.dots else None, label=line.name)
        ax.set(xlabel=chart.x_title, ylabel=chart.y_title)
        ax.legend()
    else:
        ax.stairs(chart.counts, chart.edges, fill=True)
        ax.set(xlabel=chart.x_title, ylabel="count")
    ax.set_title(chart.title)


def _draw_heatmap(chart: Heatmap, ax: Any) -> None:
    rows = chart.values.sum(axis=1, keepdims=True)
    shares = chart.values / np.where(rows > 0, rows, 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    count = len(chart.labels)
    ax.set_xticks(range(count), chart.labels, rotation=90 if count > 10 else 0)
    ax.set_yticks(range(count), chart.labels)
    ax.set(xlabel=chart.column_title, ylabel=chart.row_title)
    if count <= 20:
        for i, row in enumerate(chart.values.tolist()):
            for j, value in enumerate(row):
                ax.text(j, i, brief(value), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
