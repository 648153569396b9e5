"""ROC and precision-recall of a single yes-or-no output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.evaluation.base import Array, BaseEvaluation
from strombus.evaluation.charts import Chart, Line, LineChart
from strombus.evaluation.curves import PrecisionRecallCurve, RocCurve
from strombus.evaluation.options import at_least, axis_of
from strombus.evaluation.reading import read_counts, read_values, read_weights
from strombus.evaluation.rows import check_probabilities, class_rows
from strombus.evaluation.tally import Tally, plain

__all__ = ["ROC"]


class ROC(BaseEvaluation):
    """Curves and areas of one yes-or-no output (DL4J: ``ROC``).

    The exact form counts positives and negatives at each score that occurs, so that equal scores are one point:
    the area is that of all pairs, ties a half. DL4J's depends on the order of rows among equal scores.

    Parameters
    ----------
    threshold_steps : int
        0 for the exact form; otherwise scores, from 0 to 1, are counted at the thresholds i / steps, in
        memory that does not grow.
    remove_redundant : bool
        Leave points out of the curves that change neither the line nor its area.
    axis : int
        Where an output of two columns has them; the second is the positive class's.
    """

    name = "roc"
    figures = {"AUROC": "calculate_auc", "AUPRC": "calculate_auprc"}  # noqa: RUF012 - a constant
    alike = ("threshold_steps",)

    def __init__(self, threshold_steps: int = 0, *, remove_redundant: bool = True, axis: int = 1) -> None:
        self.threshold_steps = at_least("threshold_steps", threshold_steps, 0)
        self.remove_redundant = bool(remove_redundant)
        self.axis = axis_of(axis)
        # Negatives and positives: by score, or by the last threshold that the score reaches.
        self._tally = Tally(np.int64 if threshold_steps else np.float64, 2)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a ROC like this one."""
        return {name: getattr(self, name) for name in ("threshold_steps", "remove_redundant", "axis")}

    @property
    def is_exact(self) -> bool:
        """Whether all scores are kept."""
        return self.threshold_steps == 0

    # -- counting --------------------------------------------------------------------------------

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Count a batch of one or two output columns; see `Metric.add` and `rows.class_rows`."""
        actual, rows, weights = class_rows(labels, output, mask, self.axis)
        if rows.shape[1] > 2:
            raise DataError(
                f"ROC is for one output, or two classes, got {rows.shape[1]} columns: ROCMultiClass takes classes, "
                "ROCBinary independent outputs"
            )
        self.add_scores(rows[:, -1], actual == 1, weights)

    def add_scores(self, scores: Array, positive: NDArray[np.bool_], weights: Array) -> None:
        """Count scores, whether each one's label is positive, and how much it counts; all of shape (n,)."""
        scores = scores.astype(np.float64)
        if not np.isfinite(scores).all():
            raise DataError("a ROC needs finite scores, got infinite ones")
        if self.threshold_steps:
            check_probabilities(scores, f"a ROC of {self.threshold_steps} thresholds")
            scores = np.minimum(np.searchsorted(self._thresholds(), scores, "right") - 1, self.threshold_steps - 1)
        self._tally.add(scores, np.column_stack([~positive, positive]) * weights[:, None])

    def _thresholds(self) -> NDArray[np.float64]:
        return np.arange(self.threshold_steps + 1) / self.threshold_steps

    @property
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""
        return not len(self._tally.read()[0])

    def _merge(self, other: Self) -> None:
        self._tally.merge(other._tally)

    def statistics(self) -> dict[str, Any]:
        """Return the scores (or numbers of thresholds) that occur, with their negatives and positives."""
        keys, counts = self._tally.read()
        if not len(keys):
            return {}
        return {"scores" if self.is_exact else "steps": keys.tolist(), "counts": counts.tolist()}

    def _load(self, statistics: Mapping[str, Any]) -> None:
        if self.is_exact:
            keys = read_values(statistics, "scores", (None,))
        else:
            keys = read_counts(statistics, "steps", (None,))
            if keys.max(initial=0) >= self.threshold_steps:
                raise DataError(f"statistics: steps must be below {self.threshold_steps}")
        self._tally.add(keys, read_weights(statistics, "counts", (len(keys), 2)))

    # -- figures ---------------------------------------------------------------------------------

    def count_actual_positive(self) -> float:
        """Return the number of positive labels, an int; where there are weights their sum."""
        return plain(self._tally.read()[1][:, 1].sum())

    def count_actual_negative(self) -> float:
        """Return the number of negative labels."""
        return plain(self._tally.read()[1][:, 0].sum())

    def example_count(self) -> float:
        """Return the number of labels."""
        return plain(self._tally.read()[1].sum())

    def calculate_auc(self) -> float:
        """Return the area under the ROC curve; NaN without positives or without negatives."""
        return RocCurve.of(*self._found(), thin=False).calculate_auc()

    def calculate_auprc(self) -> float:
        """Return the area under the precision-recall curve by trapezoids; NaN without positives."""
        return PrecisionRecallCurve.of(*self._found(), thin=False).calculate_auprc()

    def get_roc_curve(self) -> RocCurve:
        """Return the ROC curve."""
        return RocCurve.of(*self._found(), thin=self.remove_redundant and self.is_exact)

    def get_precision_recall_curve(self) -> PrecisionRecallCurve:
        """Return the precision-recall curve."""
        return PrecisionRecallCurve.of(*self._found(), thin=self.remove_redundant and self.is_exact)

    def _found(self) -> tuple[NDArray[np.float64], Array, Array]:
        """Return falling thresholds from infinity on, and the true and false positives at each."""
        keys, counts = self._tally.read()
        if not len(keys):
            raise self._no_data()
        if not self.is_exact:
            full = np.zeros((self.threshold_steps, 2), counts.dtype)
            full[keys] = counts
            keys, counts = self._thresholds()[:-1], full
        found = np.vstack([np.zeros((1, 2), counts.dtype), np.cumsum(counts[::-1], axis=0)])
        first = np.inf if self.is_exact else 1.0
        return np.r_[first, keys[::-1]], found[:, 1], found[:, 0]

    # -- text and pictures -----------------------------------------------------------------------

    def stats(self) -> str:
        """Return areas and counts as text."""
        lines = [
            f"AUC        {self.calculate_auc():.4f}",
            f"AUPRC      {self.calculate_auprc():.4f}",
            f"positives  {self.count_actual_positive()}",
            f"negatives  {self.count_actual_negative()}",
        ]
        return "\n".join(lines if self.is_exact else [*lines, f"thresholds {self.threshold_steps}"])

    def charts(self) -> list[Chart]:
        """Return the ROC curve and the precision-recall curve."""
        if self.empty:
            return []
        roc, pr = self.get_roc_curve(), self.get_precision_recall_curve()
        return curve_charts(
            [Line(f"AUC {self.calculate_auc():.4f}", roc.fpr, roc.tpr)],
            [Line(f"AUPRC {self.calculate_auprc():.4f}", pr.recall, pr.precision)],
        )


def curve_charts(
    roc: list[Line], pr: list[Line], titles: tuple[str, str] = ("ROC", "Precision and recall")
) -> list[Chart]:
    """Return the two charts of one or more yes-or-no outputs."""
    return [
        LineChart(titles[0], "false positive rate", "true positive rate", roc, diagonal=True),
        LineChart(titles[1], "recall", "precision", pr),
    ]
