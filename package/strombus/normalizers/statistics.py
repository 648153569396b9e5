"""What is gathered from rows to fit a normalizer: small, mergeable in any grouping, in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Extremes", "Moments", "Statistic", "feature_rows"]

Array = NDArray[Any]

_CHUNK = 1 << 19
"""Values that are widened to float64 at once."""


class Statistic(ABC):
    """What some rows have in common, feature by feature.

    Attributes
    ----------
    fields : tuple of str
        Names of what `values` returns.
    """

    __slots__ = ()
    fields: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def of(cls, rows: Array) -> Self:
        """Describe float64 rows of shape (n, features), n at least 1."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Number of features."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Describe the rows of both, which have as many features."""

    @abstractmethod
    def values(self) -> dict[str, Array]:
        """Return what a normalizer is fitted to, by name, shape (features,) each."""


@dataclass(frozen=True, slots=True)
class Moments(Statistic):
    """Number of rows, means and sums of squared deviations; merged by the rule of Chan, Golub and LeVeque (1979).

    A mean is kept as the first row and the distance from it: deviations that are far smaller than the values lose no
    digits when parts are merged, and a feature that is constant has none at all.
    """

    fields: ClassVar[tuple[str, ...]] = ("mean", "std")
    count: int
    first: Array
    distance: Array
    squares: Array

    @classmethod
    def of(cls, rows: Array) -> Self:
        """Describe float64 rows of shape (n, features), n at least 1."""
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused at the end
            deviations = rows - rows[0]
            distance = deviations.mean(axis=0)
            deviations -= distance
            return cls(len(rows), rows[0], distance, (deviations**2).sum(axis=0))

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.first)

    def merge(self, other: Self) -> Self:
        """Describe the rows of both."""
        count = self.count + other.count
        between, share = (other.first - self.first) + (other.distance - self.distance), other.count / count
        squares = self.squares + other.squares + between**2 * (self.count * share)
        return type(self)(count, self.first, self.distance + between * share, squares)

    def values(self) -> dict[str, Array]:
        """Return the means, and the standard deviations of the whole population.

        A deviation that rounding explains is 0, by the bound that scikit-learn has for it.
        """
        mean, variance = self.first + self.distance, self.squares / self.count
        rounding = self.count * np.finfo(np.float64).eps
        constant = variance <= rounding * variance + (rounding * mean) ** 2
        return {"mean": mean, "std": np.where(constant, 0.0, np.sqrt(variance))}


@dataclass(frozen=True, slots=True)
class Extremes(Statistic):
    """The least and the largest values."""

    fields: ClassVar[tuple[str, ...]] = ("low", "high")
    low: Array
    high: Array

    @classmethod
    def of(cls, rows: Array) -> Self:
        """Describe float64 rows of shape (n, features), n at least 1."""
        return cls(rows.min(axis=0), rows.max(axis=0))

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.low)

    def merge(self, other: Self) -> Self:
        """Describe the rows of both."""
        return type(self)(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def values(self) -> dict[str, Array]:
        """Return both."""
        return {"low": self.low, "high": self.high}


def feature_rows(array: Array, axis: int | None, mask: Array | None) -> Iterator[Array]:
    """Yield the values of an array as float64 rows of shape (n, features), without masked steps, in chunks.

    Parameters
    ----------
    axis : int or None
        Where the features lie; None for an array of one number a row.
    mask : ndarray of bool, optional
        Shape of the array without `axis`: which steps count.
    """
    flat = array[:, None] if axis is None else np.moveaxis(array, axis, -1)
    step = max(1, _CHUNK // max(1, flat[:1].size))
    for start in range(0, len(flat), step):
        chunk = flat[start : start + step]
        rows = chunk.reshape(-1, chunk.shape[-1]) if mask is None else chunk[mask[start : start + step]]
        if len(rows):
            yield rows.astype(np.float64)
