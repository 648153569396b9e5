"""`RegressionEvaluation` under DL4J's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus import evaluation as core
from strombus.compat.dl4j.metrics import EvaluationMethods, setting, setting_setter

__all__ = ["RegressionEvaluation"]

Floats = NDArray[np.float64]


class RegressionEvaluation(EvaluationMethods, core.RegressionEvaluation):
    """Errors, R squared and correlation of each output column; see `strombus.RegressionEvaluation`.

    Parameters
    ----------
    *columns : int, list of str, or str...
        As DL4J's constructors: the number of columns, or their names as a list or one by one; then, optionally,
        the digits in `stats`.
    **settings
        `strombus.RegressionEvaluation`'s, by name.
    """

    _core = core.RegressionEvaluation

    def __init__(self, *columns: Any, **settings: Any) -> None:
        super().__init__(**{**_settings(columns), **settings})

    meanSquaredError = core.RegressionEvaluation.mean_squared_error
    meanAbsoluteError = core.RegressionEvaluation.mean_absolute_error
    rootMeanSquaredError = core.RegressionEvaluation.root_mean_squared_error
    relativeSquaredError = core.RegressionEvaluation.relative_squared_error
    pearsonCorrelation = core.RegressionEvaluation.pearson_correlation
    correlationR2 = core.RegressionEvaluation.pearson_correlation
    rSquared = core.RegressionEvaluation.r_squared
    averageMeanSquaredError = core.RegressionEvaluation.average_mean_squared_error
    averageMeanAbsoluteError = core.RegressionEvaluation.average_mean_absolute_error
    averagerootMeanSquaredError = core.RegressionEvaluation.average_root_mean_squared_error
    averagerelativeSquaredError = core.RegressionEvaluation.average_relative_squared_error
    averagePearsonCorrelation = core.RegressionEvaluation.average_pearson_correlation
    averagecorrelationR2 = core.RegressionEvaluation.average_pearson_correlation
    averageRSquared = core.RegressionEvaluation.average_r_squared
    numColumns = core.RegressionEvaluation.num_columns

    # -- sums of each column ---------------------------------------------------------------------

    def isInitialized(self) -> bool:
        """Say whether something was evaluated."""
        return not self.empty

    def getExampleCountPerColumn(self) -> NDArray[Any]:
        """Return how many values each column has, shape (columns,)."""
        return np.asarray(self._read().count)

    def getCurrentMean(self) -> Floats:
        """Return the labels' means, shape (columns,)."""
        m = self._read()
        return np.asarray(m.y_origin + m.y_mean)

    def getCurrentPredictionMean(self) -> Floats:
        """Return the predictions' means, shape (columns,)."""
        m = self._read()
        return np.asarray(m.p_origin + m.p_mean)

    def getSumLabels(self) -> Floats:
        """Return the sums of the labels, shape (columns,)."""
        return self.getCurrentMean() * self._read().count

    getLabelsSumPerColumn = getSumLabels

    def getSumSquaredLabels(self) -> Floats:
        """Return the sums of squared labels, shape (columns,)."""
        return self._read().y_squares + self.getSumLabels() * self.getCurrentMean()

    def getSumSquaredPredicted(self) -> Floats:
        """Return the sums of squared predictions, shape (columns,)."""
        m = self._read()
        return m.p_squares + m.count * self.getCurrentPredictionMean() ** 2

    def getSumOfProducts(self) -> Floats:
        """Return the sums of label times prediction, shape (columns,)."""
        return self._read().products + self.getSumLabels() * self.getCurrentPredictionMean()

    def getSumSquaredErrorsPerColumn(self) -> Floats:
        """Return the sums of squared errors, shape (columns,)."""
        return self._read().squared_errors.copy()

    def getSumAbsErrorsPerColumn(self) -> Floats:
        """Return the sums of absolute errors, shape (columns,)."""
        return self._read().absolute_errors.copy()

    # -- settings --------------------------------------------------------------------------------

    def getColumnNames(self) -> list[str]:
        """Return the columns' names; ``col_0``, ... where none were given."""
        return self.column_names or [f"col_{i}" for i in range(0 if self.empty else self.num_columns())]

    setColumnNames = setting_setter("column_names")
    getPrecision = setting("precision")
    setPrecision = setting_setter("precision")


def _settings(given: tuple[Any, ...]) -> dict[str, Any]:
    """Return the settings that DL4J's positional arguments stand for."""
    if not given:
        return {}
    if isinstance(given[0], str):
        return {"column_names": list(given)}
    named = isinstance(given[0], Mapping) or not isinstance(given[0], int | np.integer)
    names = ("column_names" if named else "columns", "precision")
    return dict(zip(names, given, strict=False))
