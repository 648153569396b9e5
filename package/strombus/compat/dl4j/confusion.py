"""DL4J's confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from html import escape
from io import StringIO
from typing import Any

import numpy as np

from strombus.evaluation.tally import plain

__all__ = ["ConfusionMatrix"]


class ConfusionMatrix:
    """How often each class was predicted for each; numpy takes it for an array, row = actual class.

    Parameters
    ----------
    counts : ndarray, shape (classes, classes)
        Of int; of float where rows have weights.
    labels : sequence of str
    """

    def __init__(self, counts: Any, labels: Sequence[str]) -> None:
        self._counts = np.asarray(counts)
        self._labels = list(labels)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self._counts, dtype=dtype)

    def __str__(self) -> str:
        return self.toCSV()

    def getClasses(self) -> list[int]:
        """Return the numbers of the classes."""
        return list(range(len(self._counts)))

    def getCount(self, actual: int, predicted: int) -> float:
        """Return how often `predicted` was predicted for `actual`."""
        return plain(self._counts[actual, predicted])

    def getActualTotal(self, actual: int) -> float:
        """Return how many rows are labelled so."""
        return plain(self._counts[actual].sum())

    def getPredictedTotal(self, predicted: int) -> float:
        """Return for how many rows the class was predicted."""
        return plain(self._counts[:, predicted].sum())

    def toCSV(self) -> str:
        """Return the matrix as comma-separated text, with totals."""
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._cells())
        return text.getvalue()

    def toHTML(self) -> str:
        """Return the matrix as an HTML table, with totals."""
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._cells())
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"

    def _cells(self) -> list[list[str]]:
        totals = np.append(self._counts.sum(axis=0), self._counts.sum())
        rows = np.column_stack([self._counts, self._counts.sum(axis=1)])
        names = [*self._labels, "total"]
        return [["actual", *names], *([n, *map(str, r)] for n, r in zip(names, [*rows, totals], strict=True))]
