"""Deeplearning4j's class, method and option names, each one call into Strombus, and Spark's context on Dask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use, as the names of `strombus` itself.
_WHERE = {
    "Accumulator": "strombus.compat.dl4j.variables",
    "AdaptiveThresholdAlgorithm": "strombus.compat.dl4j.algorithms",
    "BatchAndExportDataSetsFunction": "strombus.compat.dl4j.exports",
    "BatchAndExportMultiDataSetsFunction": "strombus.compat.dl4j.exports",
    "BatchDataSetsFunction": "strombus.compat.dl4j.exports",
    "BestScoreEpochTerminationCondition": "strombus.compat.dl4j.termination",
    "Broadcast": "strombus.compat.dl4j.variables",
    "DaskSparkContext": "strombus.compat.dl4j.context",
    "DataSet": "strombus.compat.dl4j.data_sets",
    "DataSetExportFunction": "strombus.compat.dl4j.exports",
    "DefaultRepartitioner": "strombus.compat.dl4j.algorithms",
    "EarlyStoppingConfiguration": "strombus.compat.dl4j.early_stopping",
    "EarlyStoppingListener": "strombus.compat.dl4j.early_stopping",
    "EarlyStoppingResult": "strombus.compat.dl4j.early_stopping",
    "EnvironmentVarPortSupplier": "strombus.compat.dl4j.void_configuration",
    "EqualRepartitioner": "strombus.compat.dl4j.algorithms",
    "Evaluation": "strombus.compat.dl4j.evaluation",
    "EvaluationAveraging": "strombus.compat.dl4j.evaluation",
    "EvaluationBinary": "strombus.compat.dl4j.evaluation_binary",
    "EvaluationCalibration": "strombus.compat.dl4j.evaluation_calibration",
    "ExecutionMode": "strombus.compat.dl4j.enumerations",
    "FaultToleranceStrategy": "strombus.compat.dl4j.enumerations",
    "FixedThresholdAlgorithm": "strombus.compat.dl4j.algorithms",
    "InvalidScoreIterationTerminationCondition": "strombus.compat.dl4j.termination",
    "MLLibUtil": "strombus.compat.dl4j.mllib",
    "MaxEpochsTerminationCondition": "strombus.compat.dl4j.termination",
    "MaxScoreIterationTerminationCondition": "strombus.compat.dl4j.termination",
    "MaxTimeIterationTerminationCondition": "strombus.compat.dl4j.termination",
    "MeshBuildMode": "strombus.compat.dl4j.enumerations",
    "MultiDataSet": "strombus.compat.dl4j.data_sets",
    "MultiDataSetExportFunction": "strombus.compat.dl4j.exports",
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
    "ScoreImprovementEpochTerminationCondition": "strombus.compat.dl4j.termination",
    "SharedTrainingMaster": "strombus.compat.dl4j.shared_training",
    "SparkComputationGraph": "strombus.compat.dl4j.graph",
    "SparkDataSetLossCalculator": "strombus.compat.dl4j.early_stopping",
    "SparkDataUtils": "strombus.compat.dl4j.data_utils",
    "SparkDataValidation": "strombus.compat.dl4j.data_validation",
    "SparkDl4jMultiLayer": "strombus.compat.dl4j.multi_layer",
    "SparkEarlyStoppingGraphTrainer": "strombus.compat.dl4j.early_stopping",
    "SparkEarlyStoppingTrainer": "strombus.compat.dl4j.early_stopping",
    "SparkLossCalculatorComputationGraph": "strombus.compat.dl4j.early_stopping",
    "SparkTrainingStats": "strombus.compat.dl4j.training_stats",
    "SparkUtils": "strombus.compat.dl4j.spark_utils",
    "SplitDataSetsFunction": "strombus.compat.dl4j.exports",
    "StatCounter": "strombus.compat.dl4j.statistics",
    "StaticPortSupplier": "strombus.compat.dl4j.void_configuration",
    "StatsUtils": "strombus.compat.dl4j.training_stats",
    "StorageLevel": "strombus.compat.dl4j.enumerations",
    "TargetSparsityThresholdAlgorithm": "strombus.compat.dl4j.algorithms",
    "TerminationReason": "strombus.compat.dl4j.early_stopping",
    "TimeUnit": "strombus.compat.dl4j.termination",
    "TrainingHook": "strombus.compat.dl4j.hooks",
    "TrainingListener": "strombus.compat.dl4j.listeners",
    "TransportType": "strombus.compat.dl4j.enumerations",
    "VoidConfiguration": "strombus.compat.dl4j.void_configuration",
}

__all__ = [
    "Accumulator",
    "AdaptiveThresholdAlgorithm",
    "BatchAndExportDataSetsFunction",
    "BatchAndExportMultiDataSetsFunction",
    "BatchDataSetsFunction",
    "BestScoreEpochTerminationCondition",
    "Broadcast",
    "DaskSparkContext",
    "DataSet",
    "DataSetExportFunction",
    "DefaultRepartitioner",
    "EarlyStoppingConfiguration",
    "EarlyStoppingListener",
    "EarlyStoppingResult",
    "EnvironmentVarPortSupplier",
    "EqualRepartitioner",
    "Evaluation",
    "EvaluationAveraging",
    "EvaluationBinary",
    "EvaluationCalibration",
    "ExecutionMode",
    "FaultToleranceStrategy",
    "FixedThresholdAlgorithm",
    "InvalidScoreIterationTerminationCondition",
    "MLLibUtil",
    "MaxEpochsTerminationCondition",
    "MaxScoreIterationTerminationCondition",
    "MaxTimeIterationTerminationCondition",
    "MeshBuildMode",
    "MultiDataSet",
    "MultiDataSetExportFunction",
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
    "ScoreImprovementEpochTerminationCondition",
    "SharedTrainingMaster",
    "SparkComputationGraph",
    "SparkDataSetLossCalculator",
    "SparkDataUtils",
    "SparkDataValidation",
    "SparkDl4jMultiLayer",
    "SparkEarlyStoppingGraphTrainer",
    "SparkEarlyStoppingTrainer",
    "SparkLossCalculatorComputationGraph",
    "SparkTrainingStats",
    "SparkUtils",
    "SplitDataSetsFunction",
    "StatCounter",
    "StaticPortSupplier",
    "StatsUtils",
    "StorageLevel",
    "TargetSparsityThresholdAlgorithm",
    "TerminationReason",
    "TimeUnit",
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
    from strombus.compat.dl4j.data_sets import (
        DataSet,
        MultiDataSet,
    )
    from strombus.compat.dl4j.data_utils import SparkDataUtils
    from strombus.compat.dl4j.data_validation import SparkDataValidation
    from strombus.compat.dl4j.early_stopping import (
        EarlyStoppingConfiguration,
        EarlyStoppingListener,
        EarlyStoppingResult,
        SparkDataSetLossCalculator,
        SparkEarlyStoppingGraphTrainer,
        SparkEarlyStoppingTrainer,
        SparkLossCalculatorComputationGraph,
        TerminationReason,
    )
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
    from strombus.compat.dl4j.exports import (
        BatchAndExportDataSetsFunction,
        BatchAndExportMultiDataSetsFunction,
        BatchDataSetsFunction,
        DataSetExportFunction,
        MultiDataSetExportFunction,
        SplitDataSetsFunction,
    )
    from strombus.compat.dl4j.graph import SparkComputationGraph
    from strombus.compat.dl4j.hooks import TrainingHook
    from strombus.compat.dl4j.listeners import TrainingListener
    from strombus.compat.dl4j.mllib import MLLibUtil
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
    from strombus.compat.dl4j.spark_utils import SparkUtils
    from strombus.compat.dl4j.statistics import StatCounter
    from strombus.compat.dl4j.termination import (
        BestScoreEpochTerminationCondition,
        InvalidScoreIterationTerminationCondition,
        MaxEpochsTerminationCondition,
        MaxScoreIterationTerminationCondition,
        MaxTimeIterationTerminationCondition,
        ScoreImprovementEpochTerminationCondition,
        TimeUnit,
    )
    from strombus.compat.dl4j.training_stats import (
        SparkTrainingStats,
        StatsUtils,
    )
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
