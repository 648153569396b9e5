"""`EvaluationBinary` under DL4J's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from strombus import evaluation as core
from strombus.compat.dl4j.metrics import EvaluationMethods, setting, setting_setter
from strombus.compat.dl4j.roc import ROCBinary
from strombus.errors import ConfigurationError

__all__ = ["EvaluationBinary"]


def _counts(name: str) -> Callable[[Any], list[float]]:
    def get(self: Any) -> list[float]:
        return list(getattr(self.outcomes, name).tolist())

    get.__doc__ = f"Return the {name.replace('_', ' ')} of each output."
    return get


class EvaluationBinary(EvaluationMethods, core.EvaluationBinary):
    """Accuracy, precision, recall, F1 and more of each of several yes-or-no outputs; see `strombus.EvaluationBinary`.

    Parameters
    ----------
    first : int or array, optional
        As DL4J's constructors: the number of outputs, or a decision threshold for each.
    rocBinarySteps : int, optional
        Attach a ROC for each output, of so many thresholds, 0 for the exact one; see `getROCBinary`.
    **settings
        `strombus.EvaluationBinary`'s, by name. Averages leave undefined figures out unless ``undefined="zero"``.
    """

    _core = core.EvaluationBinary

    def __init__(self, first: Any = None, rocBinarySteps: int | None = None, **settings: Any) -> None:
        name = "size" if isinstance(first, int | np.integer) else "decision_threshold"
        given = {} if first is None else {name: first}
        super().__init__(**{"undefined": "exclude", "roc_binary_steps": rocBinarySteps, **given, **settings})

    fBeta = core.EvaluationBinary.f_beta
    gMeasure = core.EvaluationBinary.g_measure
    matthewsCorrelation = core.EvaluationBinary.matthews_correlation
    falseAlarmRate = core.EvaluationBinary.false_alarm_rate
    averageAccuracy = core.EvaluationBinary.average_accuracy
    averageF1 = core.EvaluationBinary.average_f1
    averageFalseAlarmRate = core.EvaluationBinary.average_false_alarm_rate
    averageGMeasure = core.EvaluationBinary.average_g_measure
    averageMatthewsCorrelation = core.EvaluationBinary.average_matthews_correlation
    averagePrecision = core.EvaluationBinary.average_precision
    averageRecall = core.EvaluationBinary.average_recall
    truePositives = core.EvaluationBinary.true_positives
    falsePositives = core.EvaluationBinary.false_positives
    trueNegatives = core.EvaluationBinary.true_negatives
    falseNegatives = core.EvaluationBinary.false_negatives
    totalCount = core.EvaluationBinary.total_count
    numLabels = core.EvaluationBinary.num_labels
    getCountTruePositive = _counts("true_positives")
    getCountFalsePositive = _counts("false_positives")
    getCountTrueNegative = _counts("true_negatives")
    getCountFalseNegative = _counts("false_negatives")

    def falsePositiveRate(self, label: int | None = None, edgeCase: float | None = None) -> float:
        """Return false positives over actual negatives; `edgeCase` where there are no negatives."""
        rate = self.false_positive_rate(label)
        none = label is not None and not self.outcomes.negatives[self._number(label)]
        return rate if edgeCase is None or not none else edgeCase

    def falseNegativeRate(self, label: int | None = None, edgeCase: float | None = None) -> float:
        """Return false negatives over actual positives; `edgeCase` where there are no positives."""
        rate = self.false_negative_rate(label)
        none = label is not None and not self.outcomes.positives[self._number(label)]
        return rate if edgeCase is None or not none else edgeCase

    def getROCBinary(self) -> ROCBinary | None:
        """Return the attached ROC, as a copy; None without one."""
        return None if self.roc_binary is None else ROCBinary.of(self.roc_binary)

    def setRocBinary(self, rocBinary: core.ROCBinary | None) -> None:
        """Attach a ROC, or none; ConfigurationError once something was counted."""
        if not self.empty:
            raise ConfigurationError("a ROC that is attached late lacks the rows before: attach it first")
        self._change("roc_binary_steps", None if rocBinary is None else rocBinary.threshold_steps)

    getLabels = setting("labels")
    setLabels = setting_setter("labels")
    setLabelNames = setting_setter("labels")
    getDecisionThreshold = setting("decision_threshold")
    setDecisionThreshold = setting_setter("decision_threshold")
