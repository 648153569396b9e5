"""Train PyTorch networks on the Dask or Spark cluster you already have, over ordinary Ethernet."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

__version__ = _version("strombus")

# Imported on first use, so that `strombus --help` does not wait for torch.
_WHERE = {
    "AdaptiveThresholdAlgorithm": "strombus.compression",
    "Callback": "strombus.callbacks",
    "CheckpointConfig": "strombus.runs",
    "ComputationGraph": "strombus.networks",
    "DataSet": "strombus.types",
    "DefaultRepartitioner": "strombus.partitioning",
    "DenseEncoder": "strombus.compression",
    "Dl4jEncoder": "strombus.compression",
    "EarlyStopping": "strombus.callbacks",
    "Encoder": "strombus.compression",
    "EpochRecord": "strombus.callbacks",
    "EqualRepartitioner": "strombus.partitioning",
    "Evaluation": "strombus.evaluation",
    "EvaluationBinary": "strombus.evaluation",
    "EvaluationCalibration": "strombus.evaluation",
    "Executor": "strombus.executors.base",
    "FitResult": "strombus.fitting",
    "FixedThresholdAlgorithm": "strombus.compression",
    "MultiDataSet": "strombus.types",
    "MultiLayerNetwork": "strombus.networks",
    "NoOpRepartitioner": "strombus.partitioning",
    "NoOpResidualPostProcessor": "strombus.compression",
    "ParameterAveragingTrainingMaster": "strombus.masters.parameter_averaging",
    "ROC": "strombus.evaluation",
    "ROCBinary": "strombus.evaluation",
    "ROCMultiClass": "strombus.evaluation",
    "RegressionEvaluation": "strombus.evaluation",
    "Repartitioner": "strombus.partitioning",
    "ResidualClippingPostProcessor": "strombus.compression",
    "ResidualPostProcessor": "strombus.compression",
    "SharedTrainingMaster": "strombus.masters.shared_training",
    "StrombusClassifier": "strombus.estimators",
    "StrombusRegressor": "strombus.estimators",
    "TargetSparsityThresholdAlgorithm": "strombus.compression",
    "ThresholdAlgorithm": "strombus.compression",
    "ThresholdEncoder": "strombus.compression",
    "Trainer": "strombus.trainer",
    "TrainingHook": "strombus.worker.hooks",
    "TrainingMaster": "strombus.masters.base",
    "Transport": "strombus.transport",
    "TransportOptions": "strombus.transport",
    "data": "strombus",
    "errors": "strombus",
    "load_dl4j": "strombus.importing",
    "save_dl4j": "strombus.networks.dl4j",
}

__all__ = [
    "__version__",
    "AdaptiveThresholdAlgorithm",
    "Callback",
    "CheckpointConfig",
    "ComputationGraph",
    "DataSet",
    "DefaultRepartitioner",
    "DenseEncoder",
    "Dl4jEncoder",
    "EarlyStopping",
    "Encoder",
    "EpochRecord",
    "EqualRepartitioner",
    "Evaluation",
    "EvaluationBinary",
    "EvaluationCalibration",
    "Executor",
    "FitResult",
    "FixedThresholdAlgorithm",
    "MultiDataSet",
    "MultiLayerNetwork",
    "NoOpRepartitioner",
    "NoOpResidualPostProcessor",
    "ParameterAveragingTrainingMaster",
    "ROC",
    "ROCBinary",
    "ROCMultiClass",
    "RegressionEvaluation",
    "Repartitioner",
    "ResidualClippingPostProcessor",
    "ResidualPostProcessor",
    "SharedTrainingMaster",
    "StrombusClassifier",
    "StrombusRegressor",
    "TargetSparsityThresholdAlgorithm",
    "ThresholdAlgorithm",
    "ThresholdEncoder",
    "Trainer",
    "TrainingHook",
    "TrainingMaster",
    "Transport",
    "TransportOptions",
    "data",
    "errors",
    "load_dl4j",
    "save_dl4j",
]

if TYPE_CHECKING:
    from strombus import data, errors
    from strombus.callbacks import Callback, EarlyStopping, EpochRecord
    from strombus.compression import (
        AdaptiveThresholdAlgorithm,
        DenseEncoder,
        Dl4jEncoder,
        Encoder,
        FixedThresholdAlgorithm,
        NoOpResidualPostProcessor,
        ResidualClippingPostProcessor,
        ResidualPostProcessor,
        TargetSparsityThresholdAlgorithm,
        ThresholdAlgorithm,
        ThresholdEncoder,
    )
    from strombus.estimators import StrombusClassifier, StrombusRegressor
    from strombus.evaluation import (
        ROC,
        Evaluation,
        EvaluationBinary,
        EvaluationCalibration,
        RegressionEvaluation,
        ROCBinary,
        ROCMultiClass,
    )
    from strombus.executors.base import Executor
    from strombus.fitting.result import FitResult
    from strombus.importing import load_dl4j
    from strombus.masters.base import TrainingMaster
    from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
    from strombus.masters.shared_training import SharedTrainingMaster
    from strombus.networks import ComputationGraph, MultiLayerNetwork
    from strombus.networks.dl4j import save_dl4j
    from strombus.partitioning import DefaultRepartitioner, EqualRepartitioner, NoOpRepartitioner, Repartitioner
    from strombus.runs import CheckpointConfig
    from strombus.trainer import Trainer
    from strombus.transport import Transport, TransportOptions
    from strombus.types import DataSet, MultiDataSet
    from strombus.worker.hooks import TrainingHook


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'strombus' has no attribute {name!r}")
    where = _WHERE[name]
    return import_module(f"strombus.{name}") if where == "strombus" else getattr(import_module(where), name)


def __dir__() -> list[str]:
    return sorted(__all__)
