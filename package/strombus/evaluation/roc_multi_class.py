"""ROC and precision-recall of each class against the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from strombus.evaluation.roc_many import ManyROC
from strombus.evaluation.rows import class_rows

__all__ = ["ROCMultiClass"]


class ROCMultiClass(ManyROC):
    """A ROC for each class against the rest (DL4J: ``ROCMultiClass``).

    Parameters
    ----------
    threshold_steps, remove_redundant, axis
        See `ROC`.
    labels : sequence of str, optional
        Names of the classes.
    """

    name = "roc_multi_class"

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Count a batch; see `Metric.add` and `strombus.evaluation.rows.class_rows`."""
        actual, rows, weights = class_rows(labels, output, mask, self.axis)
        if rows.shape[1] == 1:
            rows = np.column_stack([1 - rows[:, 0], rows[:, 0]])
        for number, roc in enumerate(self._fit(rows.shape[1])):
            roc.add_scores(rows[:, number], actual == number, weights)

    def num_classes(self) -> int:
        """Return the number of classes."""
        return self.num_labels()
