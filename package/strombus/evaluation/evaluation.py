"""Classification: the confusion matrix and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from strombus.documents import shorten
from strombus.errors import ConfigurationError, DataError
from strombus.evaluation.base import Array, BaseEvaluation
from strombus.evaluation.charts import Chart, Heatmap
from strombus.evaluation.options import MOST, at_least, axis_of, names_of, number_of, numbers_of, one_of
from strombus.evaluation.outcomes import Outcomes
from strombus.evaluation.reading import read_number, read_weights
from strombus.evaluation.rows import class_rows
from strombus.evaluation.tally import Tally, plain
from strombus.evaluation.text import confusion_table, evaluation_text

__all__ = ["Average", "Evaluation"]

Average = Literal["macro", "micro"]


class Evaluation(BaseEvaluation):
    """Accuracy, precision, recall, F1 and more of a classifier (DL4J: ``Evaluation``).

    A figure without arguments is that of `binary_positive_class` where there are two classes, else the macro
    average. ``label`` asks for one class, ``average`` for ``"macro"`` (mean over the classes) or ``"micro"``
    (from the classes' counts together). A ratio without a denominator is 0, as in scikit-learn.

    Parameters
    ----------
    num_classes : int, optional
        Found from the first batch when None.
    labels : sequence of str or mapping of int to str, optional
        Names of the classes.
    top_n : int
        Ranks within which `top_n_accuracy` wants the true class.
    binary_decision_threshold : float, optional
        From which output of class 1 on it is predicted; one or two output columns. 0.5 with one column.
    binary_positive_class : {1, 0, None}
        With two classes, the one whose figures are reported; None for the macro average.
    cost_array : sequence of float, optional
        A weight for each class; predicted is the class with the largest weighted output.
    undefined : {"zero", "exclude"}
        What macro averages do with a class whose precision or recall has no denominator: count 0, over the
        classes that occur among labels or predictions (scikit-learn), or leave it out of the averages of
        precision, recall and F (DL4J).
    axis : int
        Where the output has its classes: 1, or -1 for (examples, steps, classes).
    """

    name = "evaluation"
    figures = {  # noqa: RUF012 - a constant, declared by the base
        "ACCURACY": "accuracy",
        "F1": "f1",
        "PRECISION": "precision",
        "RECALL": "recall",
        "GMEASURE": "g_measure",
        "MCC": "matthews_correlation",
    }
    alike = ("top_n", "binary_decision_threshold", "cost_array")

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        top_n: int = 1,
        binary_decision_threshold: float | None = None,
        binary_positive_class: Literal[0, 1] | None = 1,
        cost_array: Sequence[float] | None = None,
        undefined: Literal["zero", "exclude"] = "zero",
        axis: int = 1,
    ) -> None:
        self.num_classes = None if num_classes is None else at_least("num_classes", num_classes, 2)
        self.labels = names_of(labels, num_classes)
        self.top_n = at_least("top_n", top_n, 1)
        self.binary_decision_threshold = _threshold(binary_decision_threshold)
        self.binary_positive_class = one_of("binary_positive_class", binary_positive_class, (0, 1, None))
        self.cost_array = _costs(cost_array)
        self.undefined = one_of("undefined", undefined, ("zero", "exclude"))
        self.axis = axis_of(axis)
        if self.cost_array and binary_decision_threshold is not None:
            raise ConfigurationError("binary_decision_threshold and cost_array both decide; give one of them")
        sized = [given for given in (self.num_classes, self.labels and len(self.labels)) if given]
        self._classes: int | None = sized[0] if sized else None
        self._pairs = Tally(np.int64, 1)
        self._top_hits: float = 0
        self._seen = False

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an evaluation like this one."""
        names = ("num_classes", "labels", "top_n", "binary_decision_threshold", "binary_positive_class")
        return {name: getattr(self, name) for name in (*names, "cost_array", "undefined", "axis")}

    # -- counting --------------------------------------------------------------------------------

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Count a batch; see `Metric.add`. Shapes as in `strombus.evaluation.rows.class_rows`."""
        actual, rows, weights = class_rows(labels, output, mask, self.axis)
        classes = max(2, rows.shape[1])
        self._fit(classes)
        predicted = self._decide(rows)
        if self.top_n > 1:
            both = np.column_stack([1 - rows[:, 0], rows[:, 0]]) if rows.shape[1] == 1 else rows
            larger = (both > both[np.arange(len(both)), actual][:, None]).sum(axis=1)
            self._top_hits += plain(weights[larger < self.top_n].sum())
        self._pairs.add(actual * classes + predicted, weights[:, None])

    def _decide(self, rows: Array) -> NDArray[np.int64]:
        columns, threshold = rows.shape[1], self.binary_decision_threshold
        if self.cost_array is not None:
            both = np.column_stack([1 - rows[:, 0], rows[:, 0]]) if columns == 1 else rows
            if len(self.cost_array) != both.shape[1]:
                raise DataError(f"cost_array has {len(self.cost_array)} weights, the output {both.shape[1]} classes")
            rows = both * np.asarray(self.cost_array)
        elif columns == 1 or threshold is not None:
            if columns > 2:
                raise DataError(f"binary_decision_threshold is for two classes, the output has {columns}")
            return np.asarray(rows[:, -1] > (0.5 if threshold is None else threshold), np.int64)
        return np.asarray(rows.argmax(axis=1), np.int64)

    @property
    def ranks_only(self) -> bool:
        """Whether the order of the outputs decides, so that logits will do."""
        return self.cost_array is None and self.binary_decision_threshold is None

    def _fit(self, classes: int) -> None:
        if self._classes not in (None, classes):
            raise DataError(f"an evaluation of {self._classes} classes was given an output of {classes}")
        self._classes, self._seen = classes, True

    @property
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""
        return not self._seen

    def _merge(self, other: Self) -> None:
        assert other._classes is not None
        self._fit(other._classes)
        self.labels = self.labels or other.labels
        self._top_hits += other._top_hits
        self._pairs.merge(other._pairs)

    def statistics(self) -> dict[str, Any]:
        """Return the number of classes and ``[actual, predicted, count]`` of each pair that occurred."""
        if self.empty:
            return {}
        actual, predicted, counts = (values.tolist() for values in self._triples())
        triples = [list(triple) for triple in zip(actual, predicted, counts, strict=True)]
        return {"classes": self._classes, "pairs": triples, "top_n_correct": self._top_hits}

    def _load(self, statistics: Mapping[str, Any]) -> None:
        classes = read_number(statistics, "classes", 2, MOST)
        pairs = read_weights(statistics, "pairs", (None, 3))
        hits = plain(read_weights(statistics, "top_n_correct", ()))
        numbers, counts = pairs[:, :2], pairs[:, 2]
        outside = numbers.max(initial=0) >= classes or (numbers != np.floor(numbers)).any()
        if outside or hits > counts.sum() * (1 + 1e-9):
            raise DataError(f"statistics: pairs and top_n_correct do not fit {classes} classes")
        self._fit(classes)
        actual, predicted = numbers.astype(np.int64).T
        self._pairs.add(actual * classes + predicted, counts[:, None])
        self._top_hits = hits

    # -- counts ----------------------------------------------------------------------------------

    def _triples(self) -> tuple[Array, Array, Array]:
        if self.empty:
            raise self._no_data()
        keys, counts = self._pairs.read()
        actual, predicted = np.divmod(keys, self._classes or 1)
        return actual, predicted, counts[:, 0]

    @property
    def confusion_matrix(self) -> Array:
        """Counts, or sums of weights, shape (classes, classes): row = actual class, column = predicted class."""
        actual, predicted, counts = self._triples()
        matrix = np.zeros((self._classes or 0,) * 2, counts.dtype)
        matrix[actual, predicted] = counts
        return matrix

    @property
    def examples(self) -> float:
        """Rows counted, an int; where there are weights their sum."""
        return plain(self._triples()[2].sum())

    @property
    def outcomes(self) -> Outcomes:
        """True and false positives and negatives of each class, arrays of shape (classes,)."""
        actual, predicted, counts = self._triples()
        right = actual == predicted

        def sums(classes: Array, which: NDArray[np.bool_]) -> Array:
            return np.bincount(classes[which], counts[which], self._classes or 0).astype(counts.dtype)

        hits, false, missed = sums(actual, right), sums(predicted, ~right), sums(actual, ~right)
        return Outcomes(hits, false, np.maximum(counts.sum() - hits - false - missed, 0), missed)

    def true_positives(self) -> Array:
        """Return the hits of each class, shape (classes,)."""
        return self.outcomes.true_positives

    def false_positives(self) -> Array:
        """Return how often each class was predicted for another, shape (classes,)."""
        return self.outcomes.false_positives

    def true_negatives(self) -> Array:
        """Return how often each class was rightly not predicted, shape (classes,)."""
        return self.outcomes.true_negatives

    def false_negatives(self) -> Array:
        """Return how often each class was missed, shape (classes,)."""
        return self.outcomes.false_negatives

    def class_count(self, label: int) -> float:
        """Return how many rows are labelled so."""
        return plain(self.outcomes.positives[self._number(label)])

    # -- figures ---------------------------------------------------------------------------------

    def accuracy(self) -> float:
        """Return the share of rows whose class was predicted."""
        rows = self.examples
        return float(self.outcomes.true_positives.sum() / rows) if rows else 0.0

    def top_n_accuracy(self) -> float:
        """Return the share of rows where fewer than `top_n` classes have a larger output than the true one."""
        rows = self.examples
        return self.accuracy() if self.top_n == 1 else self._top_hits / rows if rows else 0.0

    def precision(self, label: int | None = None, average: Average | None = None) -> float:
        """Return true positives over predicted positives."""
        return self._figure(Outcomes.precision, label, average, leave_out=True)

    def recall(self, label: int | None = None, average: Average | None = None) -> float:
        """Return true positives over actual positives."""
        return self._figure(Outcomes.recall, label, average, leave_out=True)

    def f_beta(self, beta: float, label: int | None = None, average: Average | None = None) -> float:
        """Return the harmonic mean of precision and recall in which recall weighs `beta` times as much."""
        return self._figure(lambda outcomes: outcomes.f_beta(beta), label, average, leave_out=True)

    def f1(self, label: int | None = None, average: Average | None = None) -> float:
        """Return the harmonic mean of precision and recall; as an average, that of the classes' F1."""
        return self.f_beta(1.0, label, average)

    def g_measure(self, label: int | None = None, average: Average | None = None) -> float:
        """Return the geometric mean of precision and recall."""
        return self._figure(Outcomes.g_measure, label, average)

    def matthews_correlation(self, label: int | None = None, average: Average | None = None) -> float:
        """Return the correlation of one class against the rest; as an average, not scikit-learn's one figure."""
        return self._figure(Outcomes.matthews_correlation, label, average)

    def false_positive_rate(self, label: int | None = None, average: Average | None = None) -> float:
        """Return false positives over actual negatives."""
        return self._figure(Outcomes.false_positive_rate, label, average)

    def false_negative_rate(self, label: int | None = None, average: Average | None = None) -> float:
        """Return false negatives over actual positives; DL4J's micro average divides by something else."""
        return self._figure(Outcomes.false_negative_rate, label, average)

    def false_alarm_rate(self, label: int | None = None, average: Average | None = None) -> float:
        """Return the mean of false positive and false negative rate."""
        return self._figure(Outcomes.false_alarm_rate, label, average)

    def undefined_classes(self, figure: str) -> list[int]:
        """Return the classes whose `figure` (``"precision"``, ``"recall"`` or ``"f1"``) has no denominator."""
        one_of("figure", figure, ("precision", "recall", "f1"))
        outcomes = self.outcomes
        values = outcomes.f_beta(1.0) if figure == "f1" else getattr(outcomes, figure)()
        return [int(number) for number in np.flatnonzero(np.isnan(values))]

    def _figure(self, ratio: Any, label: int | None, average: Average | None, leave_out: bool = False) -> float:
        one_of("average", average, ("macro", "micro", None))
        outcomes = self.outcomes
        if label is None and average is None and self._classes == 2:
            label = self.binary_positive_class
        if average == "micro":
            return float(np.nan_to_num(ratio(outcomes.summed())[0]))
        values = ratio(outcomes)
        if label is not None:
            return float(np.nan_to_num(values[self._number(label)]))
        if self.undefined == "zero":
            values = values[outcomes.positives + outcomes.false_positives > 0]
        elif leave_out:
            values = values[~np.isnan(values)]
        return float(np.nan_to_num(values).mean()) if values.size else 0.0

    def _number(self, label: int) -> int:
        return number_of(label, self._classes or 0, "label")

    # -- text and pictures -----------------------------------------------------------------------

    def class_label(self, number: int) -> str:
        """Return the name of a class, its number where it has none."""
        return self.labels[number] if self.labels else str(number)

    def confusion_to_string(self) -> str:
        """Return the confusion matrix as text, row = actual class."""
        matrix = self.confusion_matrix
        return confusion_table(matrix, [self.class_label(number) for number in range(len(matrix))])

    def stats(self, suppress_warnings: bool = False, include_confusion: bool = True) -> str:
        """Return the figures, warnings of undefined ones, and the confusion matrix (up to 20 classes) as text."""
        return evaluation_text(self, suppress_warnings, include_confusion)

    def charts(self) -> list[Chart]:
        """Return the confusion matrix, of up to 100 classes."""
        if self.empty or (self._classes or 0) > 100:
            return []
        matrix = self.confusion_matrix
        return [Heatmap("Confusion matrix", [self.class_label(i) for i in range(len(matrix))], matrix)]


def _threshold(threshold: float | None) -> float | None:
    if threshold is None:
        return None
    return float(numbers_of("binary_decision_threshold", threshold, 0))


def _costs(costs: Sequence[float] | None) -> list[float] | None:
    if costs is None:
        return None
    weights = numbers_of("cost_array", costs).reshape(-1)
    if not weights.size or (weights < 0).any():
        raise ConfigurationError(f"cost_array needs a weight of at least 0 for each class, got {shorten(costs)}")
    return [float(weight) for weight in weights]
