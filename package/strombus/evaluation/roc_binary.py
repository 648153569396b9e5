"""ROC and precision-recall of several independent yes-or-no outputs."""

from __future__ import annotations

from typing import Any

from strombus.evaluation.roc_many import ManyROC
from strombus.evaluation.rows import check_zero_or_one, value_rows

__all__ = ["ROCBinary"]


class ROCBinary(ManyROC):
    """A ROC for each of several yes-or-no outputs (DL4J: ``ROCBinary``); masks may have an entry for each.

    Parameters
    ----------
    threshold_steps, remove_redundant, axis
        See `ROC`.
    labels : sequence of str, optional
        Names of the outputs.
    """

    name = "roc_binary"

    def add(self, labels: Any, output: Any, mask: Any = None) -> None:
        """Count a batch of labels 0 and 1; see `Metric.add` and `strombus.evaluation.rows.value_rows`."""
        wanted, rows, weights = value_rows(labels, output, mask, self.axis)
        check_zero_or_one(wanted, "ROCBinary")
        for column, roc in enumerate(self._fit(rows.shape[1])):
            kept = weights[:, column] != 0
            roc.add_scores(rows[kept, column], wanted[kept, column] == 1, weights[kept, column])
