"""True and false positives and negatives, and every ratio of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strombus.evaluation.base import Array

__all__ = ["Outcomes"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Counts of each class or output, four arrays of one shape; a ratio without a denominator is NaN."""

    true_positives: Array
    false_positives: Array
    true_negatives: Array
    false_negatives: Array

    def summed(self) -> Outcomes:
        """Return the counts of all classes together, from which micro averages are made."""
        tp, fp = self.true_positives.sum(keepdims=True), self.false_positives.sum(keepdims=True)
        return Outcomes(tp, fp, self.true_negatives.sum(keepdims=True), self.false_negatives.sum(keepdims=True))

    @property
    def positives(self) -> Array:
        """Labels of the class."""
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> Array:
        """Labels of other classes."""
        return self.true_negatives + self.false_positives

    @property
    def total(self) -> Array:
        """All that was counted."""
        return self.positives + self.negatives

    def accuracy(self) -> Floats:
        """Right decisions over all."""
        return _divide(self.true_positives + self.true_negatives, self.total)

    def precision(self) -> Floats:
        """True positives over predicted positives."""
        return _divide(self.true_positives, self.true_positives + self.false_positives)

    def recall(self) -> Floats:
        """True positives over actual positives."""
        return _divide(self.true_positives, self.positives)

    def false_positive_rate(self) -> Floats:
        """False positives over actual negatives."""
        return _divide(self.false_positives, self.negatives)

    def false_negative_rate(self) -> Floats:
        """False negatives over actual positives."""
        return _divide(self.false_negatives, self.positives)

    def false_alarm_rate(self) -> Floats:
        """Mean of false positive and false negative rate; an undefined one counts 0."""
        rates = self.false_positive_rate(), self.false_negative_rate()
        return np.asarray(sum(np.nan_to_num(rate) for rate in rates) / 2, np.float64)

    def f_beta(self, beta: float) -> Floats:
        """Weighted harmonic mean of precision and recall; undefined where one of them is."""
        weight = beta * beta
        hits = (1 + weight) * self.true_positives
        figures = _divide(hits, hits + weight * self.false_negatives + self.false_positives)
        return np.where(np.isnan(self.precision()) | np.isnan(self.recall()), np.nan, figures)

    def g_measure(self) -> Floats:
        """Geometric mean of precision and recall."""
        return np.asarray(np.sqrt(self.precision() * self.recall()), np.float64)

    def matthews_correlation(self) -> Floats:
        """Correlation of two-way labels and decisions, -1 to 1."""
        tp, fp, tn, fn = (
            counts.astype(np.float64)
            for counts in (self.true_positives, self.false_positives, self.true_negatives, self.false_negatives)
        )
        # Two roots rather than one: the product of four counts may pass the range of exact integers.
        return _divide(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn)))


def _divide(part: Array, whole: Array) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
