"""`ROC`, `ROCBinary` and `ROCMultiClass` under DL4J's names."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from strombus import evaluation as core
from strombus.compat.dl4j.metrics import EvaluationMethods, setting, setting_setter
from strombus.compat.dl4j.void_configuration import warn_inert
from strombus.errors import ConfigurationError
from strombus.evaluation.roc_many import ManyROC

__all__ = ["ROC", "CountsForThreshold", "ROCBinary", "ROCMultiClass"]


class CountsForThreshold(NamedTuple):
    """Positives found at a threshold."""

    threshold: float
    countTruePositive: int
    countFalsePositive: int


class ROC(EvaluationMethods, core.ROC):
    """Curves and areas of one yes-or-no output; see `strombus.ROC`.

    Parameters
    ----------
    thresholdSteps : int
        0 for the exact form.
    rocRemoveRedundantPts : bool
        Leave points out of the curves that change neither the line nor its area.
    exactAllocBlockSize : int, optional
        Inert: memory grows by itself.
    axis : int
        Where an output of two columns has them.
    **settings
        `strombus.ROC`'s, by name.
    """

    _core = core.ROC

    def __init__(
        self,
        thresholdSteps: int = 0,
        rocRemoveRedundantPts: bool = True,
        exactAllocBlockSize: int | None = None,
        axis: int = 1,
        **settings: Any,
    ) -> None:
        if exactAllocBlockSize is not None:
            warn_inert("exactAllocBlockSize")
        given = {"threshold_steps": thresholdSteps, "remove_redundant": rocRemoveRedundantPts, "axis": axis}
        super().__init__(**{**given, **settings})

    calculateAUC = core.ROC.calculate_auc
    calculateAUCPR = core.ROC.calculate_auprc
    getRocCurve = core.ROC.get_roc_curve
    getPrecisionRecallCurve = core.ROC.get_precision_recall_curve
    getPrCurve = core.ROC.get_precision_recall_curve
    getCountActualPositive = core.ROC.count_actual_positive
    getCountActualNegative = core.ROC.count_actual_negative
    getExampleCount = core.ROC.example_count

    def getCounts(self) -> dict[float, CountsForThreshold]:
        """Return the positives found at each threshold, from the highest on."""
        found = zip(*(values.tolist() for values in self._found()), strict=True)
        return {row[0]: CountsForThreshold(*row) for row in found}

    def getProbAndLabel(self) -> NDArray[np.float64]:
        """Return score and label of each row by rising score, shape (rows, 2); ConfigurationError with thresholds."""
        if not self.is_exact:
            raise ConfigurationError("a ROC of thresholds does not keep the scores; use ROC(0)")
        scores, counts = self._tally.read()
        if counts.dtype.kind == "f":
            raise ConfigurationError("a ROC of weighted rows keeps the sums of their weights, not the rows")
        labels = np.tile([0.0, 1.0], len(scores))
        return np.repeat(np.column_stack([np.repeat(scores, 2), labels]), counts.reshape(-1), axis=0)

    def isExact(self) -> bool:
        """Say whether all scores are kept."""
        return self.is_exact

    getThresholdSteps = setting("threshold_steps")
    setThresholdSteps = setting_setter("threshold_steps")
    isRocRemoveRedundantPts = setting("remove_redundant")
    setRocRemoveRedundantPts = setting_setter("remove_redundant")


class _Many(EvaluationMethods, ManyROC):
    """What `ROCBinary` and `ROCMultiClass` share."""

    def __init__(self, thresholdSteps: int = 0, rocRemoveRedundantPts: bool = True, **settings: Any) -> None:
        super().__init__(**{"threshold_steps": thresholdSteps, "remove_redundant": rocRemoveRedundantPts, **settings})

    calculateAUC = ManyROC.calculate_auc
    calculateAUCPR = ManyROC.calculate_auprc
    calculateAverageAUCPR = ManyROC.calculate_average_auprc
    getRocCurve = ManyROC.get_roc_curve
    getPrecisionRecallCurve = ManyROC.get_precision_recall_curve
    getCountActualPositive = ManyROC.count_actual_positive
    getCountActualNegative = ManyROC.count_actual_negative

    def getUnderlying(self) -> list[ROC]:
        """Return the ROC of each output, as copies."""
        return [ROC.of(roc) for roc in self._rocs]

    getLabels = setting("labels")
    setLabels = setting_setter("labels")
    getThresholdSteps = setting("threshold_steps")
    setThresholdSteps = setting_setter("threshold_steps")
    isRocRemoveRedundantPts = setting("remove_redundant")
    setRocRemoveRedundantPts = setting_setter("remove_redundant")


class ROCBinary(_Many, core.ROCBinary):
    """A ROC for each of several yes-or-no outputs; see `strombus.ROCBinary`.

    Parameters
    ----------
    thresholdSteps, rocRemoveRedundantPts
        See `ROC`.
    **settings
        `strombus.ROCBinary`'s, by name.
    """

    _core = core.ROCBinary

    calculateAverageAuc = ManyROC.calculate_average_auc
    numLabels = ManyROC.num_labels
    setLabelNames = setting_setter("labels")

    def getROC(self, label: int) -> ROC:
        """Return the ROC of one output, as a copy."""
        return ROC.of(self.get_roc(label))


class ROCMultiClass(_Many, core.ROCMultiClass):
    """A ROC for each class against the rest; see `strombus.ROCMultiClass`.

    Parameters
    ----------
    thresholdSteps, rocRemoveRedundantPts
        See `ROC`.
    **settings
        `strombus.ROCMultiClass`'s, by name.
    """

    _core = core.ROCMultiClass

    calculateAverageAUC = ManyROC.calculate_average_auc
    getNumClasses = core.ROCMultiClass.num_classes
