"""Classification: the confusion matrix and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation.base import Array, Metric, class_rows

__all__ = ["Evaluation"]

Average = Literal["macro", "micro"]


class Evaluation(Metric):
    """Accuracy, precision, recall and F1 of a classifier (DL4J: ``Evaluation``).

    Macro averages run over the classes that occur among labels or predictions, and an undefined
    ratio counts as 0, as scikit-learn does it.

    Parameters
    ----------
    num_classes : int, optional
        Found from the first batch when None.
    labels : sequence of str, optional
        Names of the classes.
    threshold : float
        Decision threshold on the output of a network with a single output column.
    binary_positive_class : {0, 1, None}
        With two classes, the class whose precision, recall and F1 are reported; None for the macro average.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.5,
        binary_positive_class: Literal[0, 1] | None = 1,
    ) -> None:
        if num_classes is not None and num_classes < 2:
            raise ConfigurationError(f"num_classes must be at least 2, got {num_classes}")
        if labels is not None and num_classes not in (None, len(labels)):
            raise ConfigurationError(f"{len(labels)} labels do not fit num_classes = {num_classes}")
        self.labels = list(labels) if labels is not None else None
        self.threshold = threshold
        self.binary_positive_class = binary_positive_class
        self._classes = len(labels) if num_classes is None and labels is not None else num_classes
        self._confusion: NDArray[np.int64] | None = None

    def add(self, labels: Array, output: Array, mask: Array | None = None) -> None:
        """Count a batch; see `Metric.add`. Shapes as in `strombus.evaluation.base.class_rows`."""
        actual, rows = class_rows(np.asarray(labels), np.asarray(output), None if mask is None else np.asarray(mask))
        columns = rows.shape[1]
        predicted = (rows[:, 0] > self.threshold).astype(np.int64) if columns == 1 else rows.argmax(axis=1)
        counts = self._counts(max(2, columns))
        if actual.size and not (actual.min() >= 0 and actual.max() < len(counts)):
            raise DataError(
                f"class numbers must lie in 0..{len(counts) - 1} for an output of {columns} columns, "
                f"got {actual.min()}..{actual.max()}"
            )
        np.add.at(counts, (actual, predicted), 1)

    def _counts(self, classes: int) -> NDArray[np.int64]:
        if self._classes is not None and self._classes != classes:
            raise DataError(f"an evaluation of {self._classes} classes was given an output of {classes}")
        if self._confusion is None:
            self._classes = classes
            self._confusion = np.zeros((classes, classes), np.int64)
        return self._confusion

    def merge(self, other: Self) -> Self:
        """Add another evaluation's counts; an empty one changes nothing."""
        if other._confusion is not None:
            self._counts(len(other._confusion))[:] += other._confusion
        return self

    def fresh(self) -> Self:
        """Return an evaluation with the same settings and no data."""
        return type(self)(
            self._classes,
            labels=self.labels,
            threshold=self.threshold,
            binary_positive_class=self.binary_positive_class,
        )

    # -- figures ---------------------------------------------------------------------------------

    @property
    def confusion_matrix(self) -> NDArray[np.int64]:
        """Counts, shape (classes, classes): row = actual class, column = predicted class."""
        if self._confusion is None:
            raise DataError("nothing has been evaluated yet: the evaluation has no data")
        return self._confusion

    @property
    def examples(self) -> int:
        """Rows counted."""
        return int(self.confusion_matrix.sum())

    def accuracy(self) -> float:
        """Return the share of rows whose class was predicted."""
        matrix = self.confusion_matrix
        return _ratio(np.trace(matrix), matrix.sum())

    def precision(self, label: int | None = None, average: Average | None = None) -> float:
        """Return true positives over predicted positives; of one class, or averaged."""
        return self._figure(0, label, average)

    def recall(self, label: int | None = None, average: Average | None = None) -> float:
        """Return true positives over actual positives; of one class, or averaged."""
        return self._figure(1, label, average)

    def f1(self, label: int | None = None, average: Average | None = None) -> float:
        """Return the harmonic mean of precision and recall; of one class, or the mean over classes."""
        return self._figure(2, label, average)

    def _figure(self, which: int, label: int | None, average: Average | None) -> float:
        matrix = self.confusion_matrix
        if average == "micro":
            return self.accuracy()
        if label is None and average is None and len(matrix) == 2:
            label = self.binary_positive_class
        figures = _per_class(matrix)[which]
        if label is not None:
            return float(figures[label])
        present = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
        return float(figures[present].mean()) if present.any() else 0.0

    def stats(self) -> str:
        """Return the figures and the confusion matrix (up to 20 classes) as text."""
        matrix = self.confusion_matrix
        kind = "macro average"
        if len(matrix) == 2 and self.binary_positive_class is not None:
            kind = f"class {self._label(self.binary_positive_class)}"
        lines = [
            f"examples   {self.examples}",
            f"classes    {len(matrix)}",
            f"accuracy   {self.accuracy():.4f}",
            f"precision  {self.precision():.4f}  ({kind})",
            f"recall     {self.recall():.4f}  ({kind})",
            f"f1         {self.f1():.4f}  ({kind})",
        ]
        if len(matrix) <= 20:
            lines += ["", "confusion matrix (row = actual, column = predicted)", *self._table(matrix)]
        return "\n".join(lines)

    def _label(self, number: int) -> str:
        return self.labels[number] if self.labels else str(number)

    def _table(self, matrix: NDArray[np.int64]) -> list[str]:
        names = [self._label(i) for i in range(len(matrix))]
        width = max(len(str(matrix.max())), *(len(name) for name in names)) + 1
        rows = ["".join(f"{value:>{width}}" for value in row) for row in matrix.tolist()]
        header = "".join(f"{name:>{width}}" for name in names)
        return [" " * width + header, *(f"{name:>{width}}{row}" for name, row in zip(names, rows, strict=True))]

    def __repr__(self) -> str:
        if self._confusion is None:
            return "Evaluation(no data)"
        return f"Evaluation(examples={self.examples}, accuracy={self.accuracy():.4f}, f1={self.f1():.4f})"


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0


def _per_class(matrix: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Return precision, recall and F1 of each class; 0 where undefined."""
    hits = np.diagonal(matrix).astype(np.float64)
    predicted, actual = matrix.sum(axis=0), matrix.sum(axis=1)

    def divide(part: Array, whole: Array) -> Array:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    return divide(hits, predicted), divide(hits, actual), divide(2 * hits, (predicted + actual).astype(np.float64))
