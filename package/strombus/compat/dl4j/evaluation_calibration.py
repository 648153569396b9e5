"""`EvaluationCalibration` under DL4J's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strombus import evaluation as core
from strombus.compat.dl4j.metrics import EvaluationMethods, setting
from strombus.evaluation.base import Array

__all__ = ["EvaluationCalibration"]


def _counted(name: str, what: str) -> Callable[[Any], Array]:
    def get(self: Any) -> Array:
        return self._of(name).copy()  # type: ignore[no-any-return]

    get.__doc__ = f"Return {what}."
    return get


class EvaluationCalibration(EvaluationMethods, core.EvaluationCalibration):
    """Reliability, residuals and histograms of predicted probabilities; see `strombus.EvaluationCalibration`.

    `getValue`, which in DL4J throws, gives the expected calibration error.

    Parameters
    ----------
    reliabilityDiagNumBins, histogramNumBins : int
    excludeEmptyBins : bool
        Leave bins without predictions out of reliability diagrams.
    **settings
        `strombus.EvaluationCalibration`'s, by name.
    """

    _core = core.EvaluationCalibration

    def __init__(
        self,
        reliabilityDiagNumBins: int = 10,
        histogramNumBins: int = 50,
        excludeEmptyBins: bool = True,
        **settings: Any,
    ) -> None:
        given: dict[str, Any] = {
            "reliability_diag_num_bins": reliabilityDiagNumBins,
            "histogram_num_bins": histogramNumBins,
            "exclude_empty_bins": excludeEmptyBins,
        }
        super().__init__(**{**given, **settings})

    numClasses = core.EvaluationCalibration.num_classes
    getReliabilityDiagram = core.EvaluationCalibration.get_reliability_diagram
    getResidualPlot = core.EvaluationCalibration.get_residual_plot
    getResidualPlotAllClasses = core.EvaluationCalibration.get_residual_plot_all_classes
    getProbabilityHistogram = core.EvaluationCalibration.get_probability_histogram
    getProbabilityHistogramAllClasses = core.EvaluationCalibration.get_probability_histogram_all_classes
    getLabelCountsEachClass = _counted("label_counts", "the labels of each class, shape (classes,)")
    getPredictionCountsEachClass = _counted(
        "prediction_counts", "how often each class had the largest output, shape (classes,)"
    )
    getRDiagBinPosCount = _counted("bin_positive", "the labels of each bin and class, shape (bins, classes)")
    getRDiagBinTotalCount = _counted("bin_total", "the predictions in each bin, shape (bins, classes)")
    getRDiagBinSumPredictions = _counted("bin_sum", "the sum of the predictions in each bin, shape (bins, classes)")
    getResidualPlotOverall = _counted("residuals", "the histogram of residuals, shape (bins,)")
    getResidualPlotByLabelClass = _counted("residuals_by_class", "residuals by label, shape (bins, classes)")
    getProbHistogramOverall = _counted("probabilities", "the histogram of probabilities, shape (bins,)")
    getProbHistogramByLabelClass = _counted("probabilities_by_class", "probabilities by label, shape (bins, classes)")
    getReliabilityDiagNumBins = setting("reliability_diag_num_bins")
    getHistogramNumBins = setting("histogram_num_bins")
    isExcludeEmptyBins = setting("exclude_empty_bins")
