"""Independent yes-or-no outputs: counts and ratios of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np

from strombus.documents import shorten
from strombus.errors import ConfigurationError, DataError
from strombus.evaluation.base import Array, BaseEvaluation
from strombus.evaluation.charts import Chart
from strombus.evaluation.options import at_least, axis_of, names_of, number_of, numbers_of, one_of
from strombus.evaluation.outcomes import Outcomes
from strombus.evaluation.reading import read_weights
from strombus.evaluation.roc_binary import ROCBinary
from strombus.evaluation.rows import check_zero_or_one, value_rows
from strombus.evaluation.tally import plain
from strombus.evaluation.text import table

__all__ = ["EvaluationBinary"]


class EvaluationBinary(BaseEvaluation):
    """Accuracy, precision, recall, F1 and more of each of several yes-or-no outputs (DL4J: ``EvaluationBinary``).

    A figure without `label` is the mean over the outputs. Masks may have an entry for each output.

    Parameters
    ----------
    size : int, optional
        Number of outputs; found from the first batch when None.
    labels : sequence of str, optional
        Names of the outputs.
    decision_threshold : float or sequence of float, optional
        Above which an output is a yes: one for all (0.5 by default), or one for each output.
    roc_binary_steps : int, optional
        Attach a `ROCBinary` with so many thresholds, 0 for the exact one; see `roc_binary`.
    undefined : {"zero", "exclude"}
        What a ratio without a denominator is: 0, as in scikit-learn, or NaN and left out of the means. DL4J's means
        are NaN then.
    axis : int
        Where the output has its columns: 1, or -1 for (examples, steps, columns).
    """

    name = "evaluation_binary"
    figures = {  # noqa: RUF012 - a constant, declared by the base
        "ACCURACY": "accuracy",
        "F1": "f1",
        "PRECISION": "precision",
        "RECALL": "recall",
        "GMEASURE": "g_measure",
        "MCC": "matthews_correlation",
        "FAR": "false_alarm_rate",
    }
    alike = ("decision_threshold", "roc_binary_steps")

    def __init__(
        self,
        size: int | None = None,
        *,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        decision_threshold: float | Sequence[float] | None = None,
        roc_binary_steps: int | None = None,
        undefined: Literal["zero", "exclude"] = "zero",
        axis: int = 1,
    ) -> None:
        self.size = None if size is None else at_least("size", size, 1)
        self.labels = names_of(labels, size)
        self.decision_threshold = _thresholds(decision_threshold, size)
        self.roc_binary_steps = None if roc_binary_steps is None else at_least("roc_binary_steps", roc_binary_steps, 0)
        self.undefined = one_of("undefined", undefined, ("zero", "exclude"))
        self.axis = axis_of(axis)
        self.roc_binary = None if roc_binary_steps is None else ROCBinary(roc_binary_steps, labels=labels, axis=axis)
        self._counts: Array | None = None

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an evaluation like this one."""
        names = ("size", "labels", "decision_threshold", "roc_binary_steps", "undefined", "axis")
        return {name: getattr(self, name) for name in names}

    # -- counting --------------------------------------------------------------------------------

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Count a batch of labels 0 and 1; see `Metric.add` and `strombus.evaluation.rows.value_rows`."""
        wanted, rows, weights = value_rows(labels, output, mask, self.axis)
        check_zero_or_one(wanted, "EvaluationBinary")
        self._fit(rows.shape[1])
        assert self._counts is not None
        threshold = 0.5 if self.decision_threshold is None else np.asarray(self.decision_threshold)
        yes, positive = rows > threshold, wanted == 1
        cases = (yes & positive, yes & ~positive, ~yes & ~positive, ~yes & positive)
        self._counts = self._counts + np.stack([(case * weights).sum(axis=0) for case in cases])
        if self.roc_binary is not None:
            self.roc_binary.add(labels, output, mask)

    def _fit(self, size: int) -> None:
        named = self.size or (self.labels and len(self.labels)) or size
        listed = self.decision_threshold if isinstance(self.decision_threshold, list) else None
        have = named if self._counts is None else self._counts.shape[1]
        if size != have or (listed and len(listed) != size):
            raise DataError(f"an EvaluationBinary of {len(listed) if listed else have} outputs was given {size}")
        if self._counts is None:
            self._counts = np.zeros((4, size), np.int64)

    @property
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""
        return self._counts is None

    def _merge(self, other: Self) -> None:
        assert other._counts is not None
        self._fit(other._counts.shape[1])
        self._counts = self._counts + other._counts
        self.labels = self.labels or other.labels
        if self.roc_binary is not None and other.roc_binary is not None:
            self.roc_binary.merge(other.roc_binary)

    def statistics(self) -> dict[str, Any]:
        """Return true and false positives and negatives of each output, and the attached ROC's statistics."""
        if self._counts is None:
            return {}
        counts = dict(zip(_COUNTS, self._counts.tolist(), strict=True))
        return counts if self.roc_binary is None else {**counts, "roc_binary": self.roc_binary.statistics()}

    def _load(self, statistics: Mapping[str, Any]) -> None:
        columns = [read_weights(statistics, name, (None,)) for name in _COUNTS]
        if len({len(column) for column in columns}) > 1:
            raise DataError("statistics: the four counts must have the same number of outputs")
        self._fit(len(columns[0]))
        self._counts = np.stack(columns)
        if self.roc_binary is not None:
            self.roc_binary._load(_rocs(statistics))

    # -- counts ----------------------------------------------------------------------------------

    @property
    def outcomes(self) -> Outcomes:
        """True and false positives and negatives of each output, arrays of shape (outputs,)."""
        if self._counts is None:
            raise self._no_data()
        return Outcomes(*self._counts)

    def num_labels(self) -> int:
        """Return the number of outputs."""
        return len(self.outcomes.true_positives)

    def true_positives(self, label: int) -> float:
        """Return how often the output was rightly a yes, an int; where there are weights their sum."""
        return self._count("true_positives", label)

    def false_positives(self, label: int) -> float:
        """Return how often the output was wrongly a yes."""
        return self._count("false_positives", label)

    def true_negatives(self, label: int) -> float:
        """Return how often the output was rightly a no."""
        return self._count("true_negatives", label)

    def false_negatives(self, label: int) -> float:
        """Return how often the output was wrongly a no."""
        return self._count("false_negatives", label)

    def total_count(self, label: int) -> float:
        """Return how many unmasked labels the output had."""
        return self._count("total", label)

    def _count(self, name: str, label: int) -> float:
        return plain(getattr(self.outcomes, name)[self._number(label)])

    # -- figures ---------------------------------------------------------------------------------

    def accuracy(self, label: int | None = None) -> float:
        """Return the share of right decisions."""
        return self._figure(self.outcomes.accuracy(), label)

    def precision(self, label: int | None = None) -> float:
        """Return true positives over predicted positives."""
        return self._figure(self.outcomes.precision(), label)

    def recall(self, label: int | None = None) -> float:
        """Return true positives over actual positives."""
        return self._figure(self.outcomes.recall(), label)

    def f_beta(self, beta: float, label: int | None = None) -> float:
        """Return the harmonic mean of precision and recall in which recall weighs `beta` times as much."""
        return self._figure(self.outcomes.f_beta(beta), label)

    def f1(self, label: int | None = None) -> float:
        """Return the harmonic mean of precision and recall."""
        return self.f_beta(1.0, label)

    def g_measure(self, label: int | None = None) -> float:
        """Return the geometric mean of precision and recall."""
        return self._figure(self.outcomes.g_measure(), label)

    def matthews_correlation(self, label: int | None = None) -> float:
        """Return the correlation of labels and decisions, -1 to 1."""
        return self._figure(self.outcomes.matthews_correlation(), label)

    def false_positive_rate(self, label: int | None = None) -> float:
        """Return false positives over actual negatives."""
        return self._figure(self.outcomes.false_positive_rate(), label)

    def false_negative_rate(self, label: int | None = None) -> float:
        """Return false negatives over actual positives."""
        return self._figure(self.outcomes.false_negative_rate(), label)

    def false_alarm_rate(self, label: int | None = None) -> float:
        """Return the mean of false positive and false negative rate."""
        return self._figure(self.outcomes.false_alarm_rate(), label)

    def average_accuracy(self) -> float:
        """Return the mean over the outputs."""
        return self.accuracy()

    def average_precision(self) -> float:
        """Return the mean over the outputs."""
        return self.precision()

    def average_recall(self) -> float:
        """Return the mean over the outputs."""
        return self.recall()

    def average_f1(self) -> float:
        """Return the mean over the outputs."""
        return self.f1()

    def average_g_measure(self) -> float:
        """Return the mean over the outputs."""
        return self.g_measure()

    def average_matthews_correlation(self) -> float:
        """Return the mean over the outputs."""
        return self.matthews_correlation()

    def average_false_alarm_rate(self) -> float:
        """Return the mean over the outputs."""
        return self.false_alarm_rate()

    def _figure(self, values: Array, label: int | None) -> float:
        values = np.nan_to_num(values) if self.undefined == "zero" else values
        if label is not None:
            return float(values[self._number(label)])
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    def _number(self, label: int) -> int:
        return number_of(label, self.num_labels(), "label")

    # -- text and pictures -----------------------------------------------------------------------

    def stats(self, precision: int = 4) -> str:
        """Return a table, one line for each output, floats with `precision` decimals."""
        outcomes, roc = self.outcomes, self.roc_binary
        header = ["output", "accuracy", "f1", "precision", "recall", "total", "TP", "TN", "FP", "FN"]
        rows: list[list[Any]] = []
        for i, (tp, fp, tn, fn) in enumerate(self._counts.T.tolist() if self._counts is not None else ()):
            ratios = [self.accuracy(i), self.f1(i), self.precision(i), self.recall(i)]
            auc = [] if roc is None else [roc.calculate_auc(i)]
            rows.append([self.labels[i] if self.labels else i, *ratios, plain(outcomes.total[i]), tp, tn, fp, fn, *auc])
        return table(header + ([] if roc is None else ["AUC"]), rows, precision)

    def charts(self) -> list[Chart]:
        """Return the attached ROC's curves, if there are any."""
        return [] if self.roc_binary is None else self.roc_binary.charts()


_COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def _rocs(statistics: Mapping[str, Any]) -> Mapping[str, Any]:
    found = statistics.get("roc_binary", {})
    if not isinstance(found, Mapping):
        raise DataError("statistics: roc_binary must be the statistics of a ROCBinary")
    return found


def _thresholds(given: float | Sequence[float] | None, size: int | None) -> float | list[float] | None:
    if given is None:
        return None
    values = numbers_of("decision_threshold", given)
    if values.ndim and size not in (None, len(values)):
        raise ConfigurationError(f"decision_threshold must be a number, or one for each output, got {shorten(given)}")
    return float(values) if values.ndim == 0 else [float(value) for value in values]
