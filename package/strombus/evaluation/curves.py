"""Receiver operating characteristic and precision-recall curves, from counts at each score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import ConfigurationError
from strombus.evaluation.base import Array
from strombus.evaluation.tally import plain

__all__ = ["CurvePoint", "PrecisionRecallCurve", "RocCurve"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a precision-recall curve and the counts behind it (DL4J: ``PrecisionRecallCurve.Confusion``).

    Counts are integers, or sums of weights where there are some.
    """

    threshold: float
    precision: float
    recall: float
    true_positives: float
    false_positives: float
    true_negatives: float
    false_negatives: float


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """False and true positive rate at falling thresholds (DL4J: ``RocCurve``).

    All arrays have shape (points,). A score of at least the threshold is a positive; the first threshold is
    infinite. Rates are NaN where there is no such label.
    """

    thresholds: Floats
    fpr: Floats
    tpr: Floats

    @classmethod
    def of(cls, thresholds: Floats, true: Array, false: Array, *, thin: bool) -> Self:
        """Make the curve from the positives found at each threshold; `thin` leaves out points on a straight line."""
        if thin and len(true) > 2:
            dx, dy = np.diff(false), np.diff(true)
            bends = dx[:-1] * dy[1:] != dx[1:] * dy[:-1]
            kept = np.r_[True, bends, True]
            thresholds, true, false = thresholds[kept], true[kept], false[kept]
        return cls(thresholds, _share(false, false[-1]), _share(true, true[-1]))

    def calculate_auc(self) -> float:
        """Return the area under the curve; NaN without positives or without negatives."""
        return float(np.trapezoid(self.tpr, self.fpr))


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecallCurve:
    """Precision and recall at rising thresholds (DL4J: ``PrecisionRecallCurve``).

    All arrays have shape (points,). The last threshold, at which nothing is a positive, is infinite; precision is 1
    and recall 0 there. Without positive labels recall is 1 elsewhere.
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    true_positives: Array
    false_positives: Array
    positives: float
    negatives: float

    @classmethod
    def of(cls, thresholds: Floats, true: Array, false: Array, *, thin: bool) -> Self:
        """Make the curve from the positives found at falling thresholds.

        `thin` leaves out points between others of the same recall; the area stays what it is.
        """
        positives, negatives = plain(true[-1]), plain(false[-1])
        if thin and len(true) > 2:
            steps = np.diff(true) != 0
            kept = np.r_[True, steps[:-1] | steps[1:], True]
            thresholds, true, false = thresholds[kept], true[kept], false[kept]
        found = true + false
        precision = np.where(found > 0, true / np.where(found > 0, found, 1), 1.0)
        recall = true / positives if positives else np.where(found > 0, 1.0, 0.0)
        up = slice(None, None, -1)
        return cls(thresholds[up], precision[up], recall[up], true[up], false[up], positives, negatives)

    def calculate_auprc(self) -> float:
        """Return the area under the curve by trapezoids (not average precision); NaN without positives."""
        return float(-np.trapezoid(self.precision, self.recall)) if self.positives else float("nan")

    def point_at_threshold(self, threshold: float) -> CurvePoint:
        """Return the first point whose threshold is at least `threshold`."""
        return self._point(int(np.searchsorted(self.thresholds, threshold)))

    def point_at_precision(self, precision: float) -> CurvePoint:
        """Return the point of the largest recall whose precision is at least `precision`."""
        _check_share("precision", precision)
        return self._point(int(np.flatnonzero(self.precision >= precision)[0]))

    def point_at_recall(self, recall: float) -> CurvePoint:
        """Return the point of the largest threshold whose recall is at least `recall`."""
        _check_share("recall", recall)
        return self._point(int(np.flatnonzero(self.recall >= recall)[-1]))

    def _point(self, index: int) -> CurvePoint:
        index = min(index, len(self.thresholds) - 1)
        true, false = plain(self.true_positives[index]), plain(self.false_positives[index])
        return CurvePoint(
            float(self.thresholds[index]),
            float(self.precision[index]),
            float(self.recall[index]),
            true,
            false,
            self.negatives - false,
            self.positives - true,
        )


def _share(part: Array, whole: float) -> Floats:
    return part / whole if whole else np.full(len(part), np.nan)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must lie from 0 to 1, got {value!r}")
