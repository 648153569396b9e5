"""Regression: errors, explained variance and correlation of each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.evaluation.base import Array, BaseEvaluation
from strombus.evaluation.charts import Chart
from strombus.evaluation.options import at_least, axis_of, names_of, number_of
from strombus.evaluation.reading import read_values, read_weights
from strombus.evaluation.rows import value_rows
from strombus.evaluation.tally import plain

__all__ = ["RegressionEvaluation"]

Floats = NDArray[np.float64]


@dataclass(slots=True)
class _Moments:
    """Counts (or sums of weights), means and centred sums of labels (y) and predictions (p), each of shape (columns,).

    Centred sums lose no digits where values are large and vary little, and they add up (Chan, Golub and
    LeVeque, 1979); for the same reason a mean is kept as an origin near it and what it lies beside it. Bounds
    tell a constant column from one whose variance is rounding.
    """

    count: Array
    y_origin: Floats
    p_origin: Floats
    y_mean: Floats
    p_mean: Floats
    y_squares: Floats
    p_squares: Floats
    products: Floats
    squared_errors: Floats
    absolute_errors: Floats
    y_low: Floats
    y_high: Floats
    p_low: Floats
    p_high: Floats

    @classmethod
    def of(cls, y: Floats, p: Floats, weights: Array) -> Self:
        """Return those of rows, shape (rows, columns); masked values are 0, and their weight is."""
        count, keep = weights.sum(axis=0), weights != 0
        some = _divisor(count)
        origins = (y * weights).sum(axis=0) / some, (p * weights).sum(axis=0) / some
        dy, dp = (np.where(keep, values - origin, 0.0) for values, origin in zip((y, p), origins, strict=True))
        error = np.where(keep, p - y, 0.0)
        y_mean, p_mean = (dy * weights).sum(axis=0) / some, (dp * weights).sum(axis=0) / some
        bounds = [
            extreme(values, axis=0, where=keep, initial=start)
            for values in (y, p)
            for extreme, start in ((np.min, np.inf), (np.max, -np.inf))
        ]
        return cls(
            count,
            *origins,
            y_mean,
            p_mean,
            (dy * dy * weights).sum(axis=0) - count * y_mean * y_mean,
            (dp * dp * weights).sum(axis=0) - count * p_mean * p_mean,
            (dy * dp * weights).sum(axis=0) - count * y_mean * p_mean,
            (error * error * weights).sum(axis=0),
            (np.abs(error) * weights).sum(axis=0),
            *bounds,
        )

    def merged(self, other: Self) -> Self:
        """Return those of both."""
        count = self.count + other.count
        some = _divisor(count)
        share, both = other.count / some, self.count * other.count / some
        dy = (other.y_origin - self.y_origin) + (other.y_mean - self.y_mean)
        dp = (other.p_origin - self.p_origin) + (other.p_mean - self.p_mean)
        first = self.count > 0
        return type(self)(
            count,
            np.where(first, self.y_origin, other.y_origin),
            np.where(first, self.p_origin, other.p_origin),
            np.where(first, self.y_mean + dy * share, other.y_mean),
            np.where(first, self.p_mean + dp * share, other.p_mean),
            self.y_squares + other.y_squares + dy * dy * both,
            self.p_squares + other.p_squares + dp * dp * both,
            self.products + other.products + dy * dp * both,
            self.squared_errors + other.squared_errors,
            self.absolute_errors + other.absolute_errors,
            np.minimum(self.y_low, other.y_low),
            np.maximum(self.y_high, other.y_high),
            np.minimum(self.p_low, other.p_low),
            np.maximum(self.p_high, other.p_high),
        )


def _divisor(count: Array) -> Array:
    """Return counts to divide by, 1 where there is nothing."""
    return np.where(count > 0, count, 1)


class RegressionEvaluation(BaseEvaluation):
    """Errors, R squared and correlation of each output column (DL4J: ``RegressionEvaluation``).

    A figure without `column` is the mean over the columns in which it is defined. Masks may have an entry for
    each value.

    Parameters
    ----------
    columns : int, optional
        Number of outputs; found from the first batch when None.
    column_names : sequence of str, optional
        ``col_0``, ``col_1``, ... by default.
    precision : int
        Digits in `stats`.
    axis : int
        Where the output has its columns: 1, or -1 for (examples, steps, columns).
    """

    name = "regression_evaluation"
    probabilities = False
    figures = {  # noqa: RUF012 - a constant, declared by the base
        "MSE": "mean_squared_error",
        "MAE": "mean_absolute_error",
        "RMSE": "root_mean_squared_error",
        "RSE": "relative_squared_error",
        "PC": "pearson_correlation",
        "R2": "r_squared",
    }

    def __init__(
        self,
        columns: int | None = None,
        *,
        column_names: Sequence[str] | Mapping[int, str] | None = None,
        precision: int = 5,
        axis: int = 1,
    ) -> None:
        self.columns = None if columns is None else at_least("columns", columns, 1)
        self.column_names = names_of(column_names, columns, "column_names")
        self.precision = at_least("precision", precision, 1, 100)
        self.axis = axis_of(axis)
        self._moments: _Moments | None = None

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an evaluation like this one."""
        return {name: getattr(self, name) for name in ("columns", "column_names", "precision", "axis")}

    # -- counting --------------------------------------------------------------------------------

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Take in a batch; see `Metric.add` and `strombus.evaluation.rows.value_rows`."""
        wanted, rows, weights = value_rows(labels, output, mask, self.axis)
        if not (np.isfinite(wanted).all() and np.isfinite(rows).all()):
            raise DataError("RegressionEvaluation needs finite labels and outputs, got infinite ones")
        self._take(_Moments.of(wanted, rows, weights))

    def _take(self, moments: _Moments) -> None:
        have = self.columns or (self.column_names and len(self.column_names)) or len(moments.count)
        have = have if self._moments is None else len(self._moments.count)
        if len(moments.count) != have:
            raise DataError(f"a RegressionEvaluation of {have} columns was given {len(moments.count)}")
        self._moments = moments if self._moments is None else self._moments.merged(moments)

    @property
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""
        return self._moments is None

    def _merge(self, other: Self) -> None:
        assert other._moments is not None
        self._take(other._moments)
        self.column_names = self.column_names or other.column_names

    def statistics(self) -> dict[str, Any]:
        """Return counts, means and centred sums of each column; bounds of a column without values are 0."""
        if self._moments is None:
            return {}
        listed = {field.name: getattr(self._moments, field.name) for field in fields(_Moments)}
        return {name: np.where(np.isfinite(values), values, 0).tolist() for name, values in listed.items()} | {
            "count": self._moments.count.tolist()
        }

    def _load(self, statistics: Mapping[str, Any]) -> None:
        count = read_weights(statistics, "count", (None,))
        read = {f.name: read_values(statistics, f.name, (len(count),)) for f in fields(_Moments) if f.name != "count"}
        for name in ("y_low", "p_low", "y_high", "p_high"):
            read[name][count == 0] = np.inf if name.endswith("low") else -np.inf
        self._take(_Moments(count, **read))

    # -- figures ---------------------------------------------------------------------------------

    def num_columns(self) -> int:
        """Return the number of columns."""
        return len(self._read().count)

    def example_count(self, column: int | None = None) -> float:
        """Return how many values a column has, or all together, an int; where there are weights their sum."""
        count = self._read().count
        found = count.sum() if column is None else count[number_of(column, len(count), "column")]
        return plain(found)

    def mean_squared_error(self, column: int | None = None) -> float:
        """Return the mean of squared errors."""
        return self._figure(self._mean("squared_errors"), column)

    def mean_absolute_error(self, column: int | None = None) -> float:
        """Return the mean of absolute errors."""
        return self._figure(self._mean("absolute_errors"), column)

    def root_mean_squared_error(self, column: int | None = None) -> float:
        """Return the root of the mean of squared errors."""
        return self._figure(np.sqrt(self._mean("squared_errors")), column)

    def relative_squared_error(self, column: int | None = None) -> float:
        """Return squared errors over those of the labels' mean; infinite for constant labels that were missed."""
        return self._figure(self._relative(), column)

    def r_squared(self, column: int | None = None) -> float:
        """Return 1 minus the relative squared error; constant labels give 1 or, where missed, 0, as scikit-learn."""
        relative = self._relative()
        return self._figure(np.where(np.isinf(relative), 0.0, 1.0 - relative), column)

    def pearson_correlation(self, column: int | None = None) -> float:
        """Return the correlation of labels and predictions; NaN where one of them is constant."""
        m = self._read()
        varies = (m.y_low < m.y_high) & (m.p_low < m.p_high)
        scale = np.sqrt(np.where(varies, m.y_squares, 1)) * np.sqrt(np.where(varies, m.p_squares, 1))
        return self._figure(np.where(varies & (scale > 0), m.products / np.where(scale > 0, scale, 1), np.nan), column)

    def average_mean_squared_error(self) -> float:
        """Return the mean over the columns."""
        return self.mean_squared_error()

    def average_mean_absolute_error(self) -> float:
        """Return the mean over the columns."""
        return self.mean_absolute_error()

    def average_root_mean_squared_error(self) -> float:
        """Return the mean over the columns."""
        return self.root_mean_squared_error()

    def average_relative_squared_error(self) -> float:
        """Return the mean over the columns."""
        return self.relative_squared_error()

    def average_r_squared(self) -> float:
        """Return the mean over the columns."""
        return self.r_squared()

    def average_pearson_correlation(self) -> float:
        """Return the mean over the columns."""
        return self.pearson_correlation()

    def _read(self) -> _Moments:
        if self._moments is None:
            raise self._no_data()
        return self._moments

    def _mean(self, name: str) -> Floats:
        m = self._read()
        return np.where(m.count > 0, getattr(m, name) / _divisor(m.count), np.nan)

    def _relative(self) -> Floats:
        m = self._read()
        varies = m.y_low < m.y_high
        relative = m.squared_errors / np.where(varies, m.y_squares, 1.0)
        constant = np.where(m.squared_errors > 0, np.inf, 0.0)
        return np.where(varies, relative, np.where(m.count > 1, constant, np.nan))

    def _figure(self, values: Floats, column: int | None) -> float:
        if column is not None:
            return float(values[number_of(column, len(values), "column")])
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    # -- text and pictures -----------------------------------------------------------------------

    def stats(self) -> str:
        """Return a table, one line for each column."""
        m, digits = self._read(), self.precision
        names = self.column_names or [f"col_{i}" for i in range(len(m.count))]
        width, name_width = digits + 9, max(len("column"), *(len(name) for name in names)) + 2
        lines = ["column".ljust(name_width) + "".join(name.rjust(width) for name in self.figures)]
        for i, name in enumerate(names):
            values = (getattr(self, method)(i) for method in self.figures.values())
            lines.append(name.ljust(name_width) + "".join(f"{value:.{digits}e}".rjust(width) for value in values))
        return "\n".join(lines)

    def charts(self) -> list[Chart]:
        """Return nothing: sums have no picture."""
        return []
