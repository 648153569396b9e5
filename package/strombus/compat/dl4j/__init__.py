"""Deeplearning4j's class, method and option names, each one call into Strombus, and Spark's context on Dask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use, as the names of `strombus` itself.
_WHERE = {
    "Accumulator": "strombus.compat.dl4j.variables",
    "AdaptiveThresholdAlgorithm": "strombus.compat.dl4j.algorithms",
    "Broadcast": "strombus.compat.dl4j.variables",
    "DaskSparkContext": "strombus.compat.dl4j.context",
    "DefaultRepartitioner": "strombus.compat.dl4j.algorithms",
    "EnvironmentVarPortSupplier": "strombus.compat.dl4j.void_configuration",
    "EqualRepartitioner": "strombus.compat.dl4j.algorithms",
    "Evaluation": "strombus.compat.dl4j.evaluation",
    "EvaluationAveraging": "strombus.compat.dl4j.evaluation",
    "EvaluationBinary": "strombus.compat.dl4j.evaluation_binary",
    "EvaluationCalibration": "strombus.compat.dl4j.evaluation_calibration",
    "ExecutionMode": "strombus.compat.dl4j.enumerations",
    "FaultToleranceStrategy": "strombus.compat.dl4j.enumerations",
    "FixedThresholdAlgorithm": "strombus.compat.dl4j.algorithms",
    "MeshBuildMode": "strombus.compat.dl4j.enumerations",
    "NoOpRepartitioner": "strombus.compat.dl4j.algorithms",
    "NoOpResidualPostProcessor": "strombus.compat.dl4j.algorithms",
    "NodeRole": "strombus.compat.dl4j.enumerations",
    "ParameterAveragingTrainingMaster": "strombus.compat.dl4j.parameter_averaging",
    "PortSupplier": "strombus.compat.dl4j.void_configuration",
    "RDD": "strombus.compat.dl4j.rdd",
    "RDDTrainingApproach": "strombus.compat.dl4j.enumerations",
    "ROC": "strombus.compat.dl4j.roc",
    "ROCBinary": "strombus.compat.dl4j.roc",
    "ROCMultiClass": "strombus.compat.dl4j.roc",
    "RegressionEvaluation": "strombus.compat.dl4j.regression_evaluation",
    "Repartition": "strombus.compat.dl4j.enumerations",
    "RepartitionStrategy": "strombus.compat.dl4j.enumerations",
    "ResidualClippingPostProcessor": "strombus.compat.dl4j.algorithms",
    "SharedTrainingMaster": "strombus.compat.dl4j.shared_training",
    "SparkComputationGraph": "strombus.compat.dl4j.graph",
    "SparkDl4jMultiLayer": "strombus.compat.dl4j.multi_layer",
    "StatCounter": "strombus.compat.dl4j.statistics",
    "StaticPortSupplier": "strombus.compat.dl4j.void_configuration",
    "StorageLevel": "strombus.compat.dl4j.enumerations",
    "TargetSparsityThresholdAlgorithm": "strombus.compat.dl4j.algorithms",
    "TrainingHook": "strombus.compat.dl4j.hooks",
    "TrainingListener": "strombus.compat.dl4j.listeners",
    "TransportType": "strombus.compat.dl4j.enumerations",
    "VoidConfiguration": "strombus.compat.dl4j.void_configuration",
}

__all__ = [
    "Accumulator",
    "AdaptiveThresholdAlgorithm",
    "Broadcast",
    "DaskSparkContext",
    "DefaultRepartitioner",
    "EnvironmentVarPortSupplier",
    "EqualRepartitioner",
    "Evaluation",
    "EvaluationAveraging",
    "EvaluationBinary",
    "EvaluationCalibration",
    "ExecutionMode",
    "FaultToleranceStrategy",
    "FixedThresholdAlgorithm",
    "MeshBuildMode",
    "NoOpRepartitioner",
    "NoOpResidualPostProcessor",
    "NodeRole",
    "ParameterAveragingTrainingMaster",
    "PortSupplier",
    "RDD",
    "RDDTrainingApproach",
    "ROC",
    "ROCBinary",
    "ROCMultiClass",
    "RegressionEvaluation",
    "Repartition",
    "RepartitionStrategy",
    "ResidualClippingPostProcessor",
    "SharedTrainingMaster",
    "SparkComputationGraph",
    "SparkDl4jMultiLayer",
    "StatCounter",
    "StaticPortSupplier",
    "StorageLevel",
    "TargetSparsityThresholdAlgorithm",
    "TrainingHook",
    "TrainingListener",
    "TransportType",
    "VoidConfiguration",
]

if TYPE_CHECKING:
    from strombus.compat.dl4j.algorithms import (
        AdaptiveThresholdAlgorithm,
        DefaultRepartitioner,
        EqualRepartitioner,
        FixedThresholdAlgorithm,
        NoOpRepartitioner,
        NoOpResidualPostProcessor,
        ResidualClippingPostProcessor,
        TargetSparsityThresholdAlgorithm,
    )
    from strombus.compat.dl4j.context import DaskSparkContext
    from strombus.compat.dl4j.enumerations import (
        ExecutionMode,
        FaultToleranceStrategy,
        MeshBuildMode,
        NodeRole,
        RDDTrainingApproach,
        Repartition,
        RepartitionStrategy,
        StorageLevel,
        TransportType,
    )
    from strombus.compat.dl4j.evaluation import (
        Evaluation,
        EvaluationAveraging,
    )
    from strombus.compat.dl4j.evaluation_binary import EvaluationBinary
    from strombus.compat.dl4j.evaluation_calibration import EvaluationCalibration
    from strombus.compat.dl4j.graph import SparkComputationGraph
    from strombus.compat.dl4j.hooks import TrainingHook
    from strombus.compat.dl4j.listeners import TrainingListener
    from strombus.compat.dl4j.multi_layer import SparkDl4jMultiLayer
    from strombus.compat.dl4j.parameter_averaging import ParameterAveragingTrainingMaster
    from strombus.compat.dl4j.rdd import RDD
    from strombus.compat.dl4j.regression_evaluation import RegressionEvaluation
    from strombus.compat.dl4j.roc import (
        ROC,
        ROCBinary,
        ROCMultiClass,
    )
    from strombus.compat.dl4j.shared_training import SharedTrainingMaster
    from strombus.compat.dl4j.statistics import StatCounter
    from strombus.compat.dl4j.variables import (
        Accumulator,
        Broadcast,
    )
    from strombus.compat.dl4j.void_configuration import (
        EnvironmentVarPortSupplier,
        PortSupplier,
        StaticPortSupplier,
        VoidConfiguration,
    )


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'strombus.compat.dl4j' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
