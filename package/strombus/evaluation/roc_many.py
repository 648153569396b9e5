"""What `ROCBinary` and `ROCMultiClass` share: a ROC for each output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from strombus.errors import DataError
from strombus.evaluation.base import BaseEvaluation
from strombus.evaluation.charts import Chart, Line, worst_lines
from strombus.evaluation.curves import PrecisionRecallCurve, RocCurve
from strombus.evaluation.options import at_least, axis_of, names_of, number_of
from strombus.evaluation.roc import ROC, curve_charts
from strombus.evaluation.text import table

__all__ = ["ManyROC"]


class ManyROC(BaseEvaluation):
    """One ROC for each output; see the two classes for what an output is.

    Parameters
    ----------
    threshold_steps, remove_redundant, axis
        See `ROC`.
    labels : sequence of str, optional
        Names of the outputs.
    """

    figures = {"AUROC": "calculate_auc", "AUPRC": "calculate_auprc"}  # noqa: RUF012 - a constant
    alike = ("threshold_steps",)

    def __init__(
        self,
        threshold_steps: int = 0,
        *,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        remove_redundant: bool = True,
        axis: int = 1,
    ) -> None:
        self.threshold_steps = at_least("threshold_steps", threshold_steps, 0)
        self.labels = names_of(labels, None)
        self.remove_redundant = bool(remove_redundant)
        self.axis = axis_of(axis)
        self._rocs: list[ROC] = []

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a metric like this one."""
        return {name: getattr(self, name) for name in ("threshold_steps", "labels", "remove_redundant", "axis")}

    def _fit(self, count: int) -> list[ROC]:
        have = len(self._rocs) or (len(self.labels) if self.labels else count)
        if have != count:
            raise DataError(f"a {type(self).__name__} of {have} outputs was given {count}")
        if not self._rocs:
            self._rocs = [ROC(self.threshold_steps, remove_redundant=self.remove_redundant) for _ in range(count)]
        return self._rocs

    @property
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""
        return not self._rocs

    def _merge(self, other: Self) -> None:
        for mine, theirs in zip(self._fit(len(other._rocs)), other._rocs, strict=True):
            mine.merge(theirs)
        self.labels = self.labels or other.labels

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of each output's ROC."""
        return {"rocs": [roc.statistics() for roc in self._rocs]} if self._rocs else {}

    def _load(self, statistics: Mapping[str, Any]) -> None:
        listed = statistics.get("rocs")
        if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
            raise DataError("statistics: rocs must be a list of the statistics of each output")
        for roc, one in zip(self._fit(len(listed)), listed, strict=True):
            if one:
                roc._load(one)

    # -- figures ---------------------------------------------------------------------------------

    def num_labels(self) -> int:
        """Return the number of outputs."""
        return len(self._rocs)

    def get_roc(self, label: int) -> ROC:
        """Return the ROC of one output."""
        if self.empty:
            raise self._no_data()
        return self._rocs[number_of(label, len(self._rocs), "label")]

    def get_roc_curve(self, label: int) -> RocCurve:
        """Return the ROC curve of one output."""
        return self.get_roc(label).get_roc_curve()

    def get_precision_recall_curve(self, label: int) -> PrecisionRecallCurve:
        """Return the precision-recall curve of one output."""
        return self.get_roc(label).get_precision_recall_curve()

    def calculate_auc(self, label: int | None = None) -> float:
        """Return the area under one output's ROC curve, NaN without positives or without negatives; or the average."""
        if label is None:
            return self.calculate_average_auc()
        roc = self.get_roc(label)
        return float("nan") if roc.empty else roc.calculate_auc()

    def calculate_auprc(self, label: int | None = None) -> float:
        """Return the area under one output's precision-recall curve, NaN without positives; or the average."""
        if label is None:
            return self.calculate_average_auprc()
        roc = self.get_roc(label)
        return float("nan") if roc.empty else roc.calculate_auprc()

    def calculate_average_auc(self) -> float:
        """Return the mean area under the ROC curves, over the outputs that have both labels."""
        return self._average(self.calculate_auc)

    def calculate_average_auprc(self) -> float:
        """Return the mean area under the precision-recall curves, over the outputs that have positives."""
        return self._average(self.calculate_auprc)

    def _average(self, area: Any) -> float:
        if self.empty:
            raise self._no_data()
        areas = [area(label) for label in range(len(self._rocs))]
        defined = [value for value in areas if not np.isnan(value)]
        return float(np.mean(defined)) if defined else float("nan")

    def count_actual_positive(self, label: int) -> float:
        """Return the number of positive labels of one output."""
        return self.get_roc(label).count_actual_positive()

    def count_actual_negative(self, label: int) -> float:
        """Return the number of negative labels of one output."""
        return self.get_roc(label).count_actual_negative()

    # -- text and pictures -----------------------------------------------------------------------

    def stats(self, precision: int = 4) -> str:
        """Return a table, one line for each output, and the averages."""
        averages = [self.calculate_average_auc(), self.calculate_average_auprc()]
        rows = [
            [
                self._label(i),
                self.calculate_auc(i),
                self.calculate_auprc(i),
                roc.count_actual_positive(),
                roc.count_actual_negative(),
            ]
            for i, roc in enumerate(self._rocs)
        ]
        text = table(
            ["output", "AUC", "AUPRC", "positives", "negatives"], [*rows, ["average", *averages, "", ""]], precision
        )
        return text + (f"\n{self.threshold_steps} thresholds" if self.threshold_steps else "")

    def _label(self, number: int) -> str:
        return self.labels[number] if self.labels else str(number)

    def charts(self) -> list[Chart]:
        """Return ROC and precision-recall curves; of more than eight outputs those of the smallest areas."""
        areas = [self.calculate_auc(label) for label in range(len(self._rocs))]
        title, shown = worst_lines("ROC", areas)
        roc, pr = [], []
        for label in shown:
            if not self._rocs[label].empty:
                one, two, name = self.get_roc_curve(label), self.get_precision_recall_curve(label), self._label(label)
                roc.append(Line(f"{name}: {areas[label]:.4f}", one.fpr, one.tpr))
                pr.append(Line(f"{name}: {two.calculate_auprc():.4f}", two.recall, two.precision))
        return curve_charts(roc, pr, (title, title.replace("ROC", "Precision and recall"))) if roc else []
