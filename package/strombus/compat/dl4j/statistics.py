"""Moments of numbers, in one pass and mergeable."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["StatCounter"]


class StatCounter:
    """Number, mean, variance, smallest and largest of some numbers (PySpark: ``StatCounter``).

    Parameters
    ----------
    values : iterable of float
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._min, self._max = math.inf, -math.inf
        for value in values:
            self.merge(value)

    def merge(self, value: float) -> StatCounter:
        """Add a number, in place."""
        delta = value - self._mean
        self._count += 1
        self._mean += delta / self._count
        self._squares += delta * (value - self._mean)
        self._min, self._max = min(self._min, value), max(self._max, value)
        return self

    def mergeStats(self, other: StatCounter) -> StatCounter:
        """Add the numbers of another one, in place (Chan, Golub and LeVeque, 1979)."""
        total = self._count + other._count
        if other._count:
            delta = other._mean - self._mean
            self._mean += delta * other._count / total
            self._squares += other._squares + delta * delta * self._count * other._count / total
            self._count = total
            self._min, self._max = min(self._min, other._min), max(self._max, other._max)
        return self

    def count(self) -> int:
        """Return how many numbers there were."""
        return self._count

    def mean(self) -> float:
        """Return their mean; 0.0 for none."""
        return self._mean

    def sum(self) -> float:
        """Return their sum."""
        return self._mean * self._count

    def min(self) -> float:
        """Return the smallest; infinity for none."""
        return self._min

    def max(self) -> float:
        """Return the largest; minus infinity for none."""
        return self._max

    def variance(self) -> float:
        """Return the variance, n in the denominator; NaN for none."""
        return self._squares / self._count if self._count else math.nan

    def sampleVariance(self) -> float:
        """Return the variance, n - 1 in the denominator; NaN for fewer than two."""
        return self._squares / (self._count - 1) if self._count > 1 else math.nan

    def stdev(self) -> float:
        """Return the square root of `variance`."""
        return math.sqrt(self.variance())

    def sampleStdev(self) -> float:
        """Return the square root of `sampleVariance`."""
        return math.sqrt(self.sampleVariance())

    def __repr__(self) -> str:
        return (
            f"(count: {self.count()}, mean: {self.mean()}, stdev: {self.stdev()}, max: {self.max()}, min: {self.min()})"
        )
