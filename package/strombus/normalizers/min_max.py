"""Each feature from its least and largest value to a range of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from strombus.errors import DataError
from strombus.normalizers.base import Array, Normalizer, Scaling
from strombus.normalizers.ranges import check_range
from strombus.normalizers.statistics import Extremes, Statistic

__all__ = ["NormalizerMinMaxScaler"]


class NormalizerMinMaxScaler(Normalizer):
    """Bring each feature's values to ``min_range`` to ``max_range`` (DL4J: ``NormalizerMinMaxScaler``).

    As scikit-learn's ``MinMaxScaler``; a feature that is constant becomes `min_range`. Fitted values: ``low`` and
    ``high``.

    Parameters
    ----------
    min_range, max_range : float
        What the least and the largest value become.
    fit_labels, axis, inputs, outputs
        See `Normalizer`.

    Attributes
    ----------
    min, max : ndarray of float64
        Those of each feature (DL4J: ``getMin``, ``getMax``), where there is one array of features; all others, the
        labels' too, are in `fitted`, as ``low`` and ``high``.
    """

    name: ClassVar[str] = "min_max"
    statistic: ClassVar[type[Statistic] | None] = Extremes

    def __init__(
        self,
        min_range: float = 0.0,
        max_range: float = 1.0,
        *,
        fit_labels: bool = False,
        axis: int = 1,
        inputs: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__(fit_labels=fit_labels, axis=axis, inputs=inputs, outputs=outputs)
        self.min_range, self.max_range = check_range(min_range, max_range)

    @property
    def min(self) -> Array:
        """Least value of each feature."""
        return self.fitted_to("low")

    @property
    def max(self) -> Array:
        """Largest value of each feature."""
        return self.fitted_to("high")

    def scaling(self, values: Mapping[str, Array]) -> Scaling:
        """Return what brings `low` to `min_range` and `high` to `max_range`."""
        spread = values["high"] - values["low"]
        spread = np.where(spread == 0, 1.0, spread)
        return Scaling(values["low"], spread / (self.max_range - self.min_range), self.min_range)

    def check(self, name: str, values: Any) -> dict[str, Array]:
        """Refuse a largest value below the least; see `Normalizer.check`."""
        arrays = super().check(name, values)
        if (arrays["high"] < arrays["low"]).any():
            raise DataError(f"{name}: the largest value of a feature is never below its least")
        return arrays
