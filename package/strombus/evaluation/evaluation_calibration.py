"""Calibration: do events of probability p happen in a share p of the cases?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.evaluation.base import Array, BaseEvaluation
from strombus.evaluation.charts import MOST_LINES, Chart, Histogram, Line, LineChart
from strombus.evaluation.options import at_least, axis_of, names_of, number_of
from strombus.evaluation.reading import read_values, read_weights
from strombus.evaluation.rows import check_probabilities, check_zero_or_one, class_rows, value_rows
from strombus.evaluation.text import table

__all__ = ["EvaluationCalibration", "ReliabilityDiagram"]


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityDiagram:
    """Mean prediction and share of positives of each bin, shape (bins,) (DL4J: ``ReliabilityDiagram``).

    `counts` says how many predictions a bin holds.
    """

    title: str
    mean_predicted_value: Array
    fraction_positives: Array
    counts: Array


class EvaluationCalibration(BaseEvaluation):
    """Reliability, residuals and histograms of predicted probabilities (DL4J: ``EvaluationCalibration``).

    Parameters
    ----------
    reliability_diag_num_bins : int
        Bins of 0..1 in a reliability diagram.
    histogram_num_bins : int
        Bins of 0..1 in a histogram.
    exclude_empty_bins : bool
        Leave bins without predictions out of reliability diagrams, rather than show them as NaN.
    labels : sequence of str, optional
        Names of the classes.
    axis : int
        Where the output has its classes: 1, or -1 for (examples, steps, classes).

    Notes
    -----
    A mask with an entry for each output is for labels that are independent of each other, one value for
    each output. A single output column is the probability of class 1 of two.
    """

    name = "evaluation_calibration"
    figures = {"ECE": "expected_calibration_error"}  # noqa: RUF012 - a constant
    alike = ("reliability_diag_num_bins", "histogram_num_bins")

    def __init__(
        self,
        reliability_diag_num_bins: int = 10,
        histogram_num_bins: int = 50,
        exclude_empty_bins: bool = True,
        *,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        axis: int = 1,
    ) -> None:
        self.reliability_diag_num_bins = at_least("reliability_diag_num_bins", reliability_diag_num_bins, 1)
        self.histogram_num_bins = at_least("histogram_num_bins", histogram_num_bins, 1)
        self.exclude_empty_bins = bool(exclude_empty_bins)
        self.labels = names_of(labels, None)
        self.axis = axis_of(axis)
        self._counts: dict[str, Array] = {}

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an evaluation like this one."""
        names = ("reliability_diag_num_bins", "histogram_num_bins", "exclude_empty_bins", "labels", "axis")
        return {name: getattr(self, name) for name in names}

    # -- counting --------------------------------------------------------------------------------

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Count a batch of probabilities; see `Metric.add`, `rows.class_rows` and `rows.value_rows`."""
        wanted, rows, weights = self._rows(np.asarray(labels), np.asarray(output), mask)
        check_probabilities(rows, "EvaluationCalibration")
        self._take(self._count(wanted, rows, weights))

    def _rows(self, labels: Array, output: Array, mask: Any) -> tuple[Array, Array, Array]:
        """Return a 0 or 1 for each class, the probabilities, and their weights, all of shape (rows, classes)."""
        columns = output.shape[self.axis] if output.ndim > 1 else 1
        if labels.shape == output.shape and columns > 1:
            wanted, rows, weights = value_rows(labels, output, mask, self.axis)
            check_zero_or_one(wanted, "EvaluationCalibration")
            return wanted, rows, weights
        actual, rows, weights = class_rows(labels, output, mask, self.axis)
        rows = np.column_stack([1 - rows[:, 0], rows[:, 0]]) if columns == 1 else rows
        wanted = (actual[:, None] == np.arange(rows.shape[1])).astype(np.float64)
        return wanted, rows, np.broadcast_to(weights[:, None], rows.shape)

    def _count(self, wanted: Array, rows: Array, weights: Array) -> dict[str, Array]:
        bins, fine, classes = self.reliability_diag_num_bins, self.histogram_num_bins, rows.shape[1]
        place, positive, keep = _bin(rows, bins), (wanted == 1) * weights, weights != 0
        residual, probability = _bin(np.abs(wanted - rows), fine), _bin(rows, fine)
        largest = np.where(keep, rows, -1.0).argmax(axis=1)
        decided = (largest[:, None] == np.arange(classes)) * weights
        sums = np.zeros((bins, classes))
        np.add.at(sums, (place, np.arange(classes)[None, :]), np.where(keep, rows, 0.0) * weights)
        return {
            "bin_total": _histograms(place, weights, bins),
            "bin_positive": _histograms(place, positive, bins),
            "bin_sum": sums,
            "label_counts": positive.sum(axis=0),
            "prediction_counts": decided.sum(axis=0),
            "residuals": _histograms(residual, weights, fine).sum(axis=1),
            "residuals_by_class": _histograms(residual, positive, fine),
            "probabilities": _histograms(probability, weights, fine).sum(axis=1),
            "probabilities_by_class": _histograms(probability, positive, fine),
        }

    def _take(self, counts: dict[str, Array]) -> None:
        classes = len(counts["label_counts"])
        have = len(self.labels) if self.labels else classes
        have = len(self._counts["label_counts"]) if self._counts else have
        if have != classes:
            raise DataError(f"an EvaluationCalibration of {have} classes was given {classes}")
        self._counts = {name: self._counts[name] + counts[name] for name in counts} if self._counts else counts

    @property
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""
        return not self._counts

    def _merge(self, other: Self) -> None:
        self._take(other._counts)
        self.labels = self.labels or other.labels

    def statistics(self) -> dict[str, Any]:
        """Return the counts of all bins, (bins, classes) or (bins,), and the sums of predictions."""
        return {name: values.tolist() for name, values in self._counts.items()}

    def _load(self, statistics: Mapping[str, Any]) -> None:
        labelled = read_weights(statistics, "label_counts", (None,))
        classes, bins, fine = len(labelled), self.reliability_diag_num_bins, self.histogram_num_bins
        shapes = {
            "bin_total": (bins, classes),
            "bin_positive": (bins, classes),
            "prediction_counts": (classes,),
            "residuals": (fine,),
            "residuals_by_class": (fine, classes),
            "probabilities": (fine,),
            "probabilities_by_class": (fine, classes),
        }
        counts = {name: read_weights(statistics, name, shape) for name, shape in shapes.items()}
        self._take(counts | {"label_counts": labelled, "bin_sum": read_values(statistics, "bin_sum", (bins, classes))})

    # -- what was found --------------------------------------------------------------------------

    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self._of("label_counts"))

    @property
    def label_counts_each_class(self) -> Array:
        """Labels of each class, shape (classes,)."""
        return self._of("label_counts")

    @property
    def prediction_counts_each_class(self) -> Array:
        """How often each class had the largest output, shape (classes,)."""
        return self._of("prediction_counts")

    def get_reliability_diagram(self, label: int) -> ReliabilityDiagram:
        """Return how often predictions of a class came true, bin by bin."""
        number = self._number(label)
        total = self._of("bin_total")[:, number]
        kept = total > 0 if self.exclude_empty_bins else np.ones(len(total), bool)
        counts = np.where(total > 0, total, np.nan)
        mean, share = (self._of(name)[:, number] / counts for name in ("bin_sum", "bin_positive"))
        return ReliabilityDiagram(f"Reliability: {self._label(label)}", mean[kept], share[kept], total[kept])

    def expected_calibration_error(self, label: int | None = None) -> float:
        """Return the mean distance of prediction and share of positives, bin by bin; without label over classes."""
        total = self._of("bin_total")
        distances = np.abs(self._of("bin_sum") - self._of("bin_positive")).sum(axis=0)
        rows = total.sum(axis=0)
        errors = np.divide(distances, rows, out=np.full(len(rows), np.nan), where=rows > 0)
        if label is not None:
            return float(errors[self._number(label)])
        errors = errors[~np.isnan(errors)]
        return float(errors.mean()) if errors.size else float("nan")

    def get_residual_plot(self, label: int) -> Histogram:
        """Return the histogram of ``|label - probability|`` of a class over the rows labelled so."""
        return self._histogram("residuals_by_class", f"Residuals: {self._label(label)}", label)

    def get_residual_plot_all_classes(self) -> Histogram:
        """Return the histogram of ``|label - probability|`` over all classes and rows."""
        return self._histogram("residuals", "Residuals: all classes")

    def get_probability_histogram(self, label: int) -> Histogram:
        """Return the histogram of a class's probability over the rows labelled so."""
        return self._histogram("probabilities_by_class", f"Probabilities: {self._label(label)}", label)

    def get_probability_histogram_all_classes(self) -> Histogram:
        """Return the histogram of all probabilities, over all classes and rows."""
        return self._histogram("probabilities", "Probabilities: all classes")

    def _histogram(self, name: str, title: str, label: int | None = None) -> Histogram:
        counts = self._of(name)
        x_title = "|label - probability|" if name.startswith("residuals") else "probability"
        return Histogram(title, x_title, 0.0, 1.0, counts if label is None else counts[:, self._number(label)])

    def _of(self, name: str) -> Array:
        if self.empty:
            raise self._no_data()
        return self._counts[name]

    def _number(self, label: int) -> int:
        return number_of(label, self.num_classes(), "label")

    def _label(self, number: int) -> str:
        return self.labels[number] if self.labels else f"class {self._number(number)}"

    # -- text and pictures -----------------------------------------------------------------------

    def stats(self) -> str:
        """Return labels, predictions and calibration error of each class as a table."""
        counts = zip(self.label_counts_each_class.tolist(), self.prediction_counts_each_class.tolist(), strict=True)
        rows = [[self._label(i), *pair, self.expected_calibration_error(i)] for i, pair in enumerate(counts)]
        return table(["class", "labels", "predictions", "ECE"], rows)

    def charts(self) -> list[Chart]:
        """Return reliability diagrams of up to eight classes, and the histograms over all."""
        if self.empty:
            return []
        shown = range(min(self.num_classes(), MOST_LINES))
        diagrams = [self.get_reliability_diagram(label) for label in shown]
        lines = [Line(self._label(i), d.mean_predicted_value, d.fraction_positives) for i, d in enumerate(diagrams)]
        title = "Reliability" + (f": classes 0 to {MOST_LINES - 1}" if self.num_classes() > MOST_LINES else "")
        reliability = LineChart(title, "mean prediction", "share of positives", lines, diagonal=True, dots=True)
        return [reliability, self.get_residual_plot_all_classes(), self.get_probability_histogram_all_classes()]


def _bin(values: Array, bins: int) -> NDArray[np.int64]:
    """Return the bin of each value of 0..1; 1 is in the last one. Compared with bounds, for these are exact."""
    return np.minimum(np.searchsorted(np.arange(bins + 1) / bins, values, "right") - 1, bins - 1)


def _histograms(place: NDArray[np.int64], weights: Array, bins: int) -> Array:
    """Add up each column's weights by bin, shape (bins, columns)."""
    columns = place.shape[1]
    flat = (place * columns + np.arange(columns)).reshape(-1)
    sums = np.bincount(flat, weights.reshape(-1), bins * columns)
    return sums.reshape(bins, columns).astype(weights.dtype)
