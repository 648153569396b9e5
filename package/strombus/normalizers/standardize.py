"""Mean 0 and standard deviation 1 for each feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from strombus.errors import DataError
from strombus.normalizers.base import Array, Normalizer, Scaling
from strombus.normalizers.statistics import Moments, Statistic

__all__ = ["NormalizerStandardize"]


class NormalizerStandardize(Normalizer):
    """Subtract each feature's mean and divide by its standard deviation (DL4J: ``NormalizerStandardize``).

    The standard deviation is that of the whole population, as in DL4J and scikit-learn's ``StandardScaler``; a feature
    that is constant is divided by 1. Fitted values: ``mean`` and ``std``. See `Normalizer` for the parameters.

    Attributes
    ----------
    mean, std : ndarray of float64
        Those of the features (DL4J: ``getMean``, ``getStd``), where there is one array of them; all others, the labels'
        too, are in `fitted`.
    """

    name: ClassVar[str] = "standardize"
    statistic: ClassVar[type[Statistic] | None] = Moments

    @property
    def mean(self) -> Array:
        """Mean of each feature."""
        return self.fitted_to("mean")

    @property
    def std(self) -> Array:
        """Standard deviation of each feature, 0 for a constant one."""
        return self.fitted_to("std")

    def scaling(self, values: Mapping[str, Array]) -> Scaling:
        """Return mean and standard deviation, 1 in place of 0."""
        return Scaling(values["mean"], np.where(values["std"] == 0, 1.0, values["std"]))

    def check(self, name: str, values: Any) -> dict[str, Array]:
        """Refuse negative deviations; see `Normalizer.check`."""
        arrays = super().check(name, values)
        if (arrays["std"] < 0).any():
            raise DataError(f"{name}: a standard deviation is never negative")
        return arrays
