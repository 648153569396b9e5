"""Mergeable metrics: any partition of the data, in any order, gives what one pass gives."""

from strombus.evaluation.base import BaseEvaluation, Metric
from strombus.evaluation.charts import Histogram
from strombus.evaluation.curves import CurvePoint, PrecisionRecallCurve, RocCurve
from strombus.evaluation.evaluation import Evaluation
from strombus.evaluation.evaluation_binary import EvaluationBinary
from strombus.evaluation.evaluation_calibration import EvaluationCalibration, ReliabilityDiagram
from strombus.evaluation.page import export_evaluation_html
from strombus.evaluation.regression_evaluation import RegressionEvaluation
from strombus.evaluation.roc import ROC
from strombus.evaluation.roc_binary import ROCBinary
from strombus.evaluation.roc_multi_class import ROCMultiClass
from strombus.registry import Registry

__all__ = [
    "BaseEvaluation",
    "CurvePoint",
    "Evaluation",
    "EvaluationBinary",
    "EvaluationCalibration",
    "Histogram",
    "Metric",
    "PrecisionRecallCurve",
    "ROC",
    "ROCBinary",
    "ROCMultiClass",
    "RegressionEvaluation",
    "ReliabilityDiagram",
    "RocCurve",
    "evaluations",
    "export_evaluation_html",
]

evaluations = Registry(
    "evaluation",
    {
        "evaluation": "strombus.evaluation.evaluation:Evaluation",
        "evaluation_binary": "strombus.evaluation.evaluation_binary:EvaluationBinary",
        "evaluation_calibration": "strombus.evaluation.evaluation_calibration:EvaluationCalibration",
        "regression_evaluation": "strombus.evaluation.regression_evaluation:RegressionEvaluation",
        "roc": "strombus.evaluation.roc:ROC",
        "roc_binary": "strombus.evaluation.roc_binary:ROCBinary",
        "roc_multi_class": "strombus.evaluation.roc_multi_class:ROCMultiClass",
    },
    "strombus.evaluations",
)
