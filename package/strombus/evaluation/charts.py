"""What a metric has to show, as plain records; `pictures` draws them as SVG, `plotting` with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strombus.evaluation.base import Array

__all__ = ["Chart", "Heatmap", "Histogram", "Line", "LineChart", "worst_lines"]


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """Counts in a square: a row for each actual class, a column for each predicted one."""

    title: str
    labels: Sequence[str]
    values: Array
    row_title: str = "actual"
    column_title: str = "predicted"


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A named line through points."""

    name: str
    x: Array
    y: Array


@dataclass(frozen=True, slots=True, eq=False)
class LineChart:
    """Lines in the unit square.

    Parameters
    ----------
    diagonal : bool
        Whether to draw the line of chance, or of perfect calibration.
    dots : bool
        Whether each point counts on its own.
    """

    title: str
    x_title: str
    y_title: str
    lines: Sequence[Line]
    diagonal: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts over equal bins of an interval (DL4J: ``Histogram``)."""

    title: str
    x_title: str
    lower: float
    upper: float
    counts: Array

    @property
    def edges(self) -> Array:
        """Bounds of the bins, one more than there are bins."""
        return np.linspace(self.lower, self.upper, len(self.counts) + 1)


Chart = Heatmap | LineChart | Histogram

MOST_LINES = 8


def worst_lines(title: str, areas: Sequence[float]) -> tuple[str, list[int]]:
    """Return a title and which lines a chart can show: all up to eight, else those of the smallest areas."""
    if len(areas) <= MOST_LINES:
        return title, list(range(len(areas)))
    order = sorted(range(len(areas)), key=lambda i: (np.isnan(areas[i]), areas[i]))[:MOST_LINES]
    return f"{title}: {MOST_LINES} smallest of {len(areas)} areas", sorted(order)
