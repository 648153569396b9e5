"""Train PyTorch networks on the Dask or Spark cluster you already have, over ordinary Ethernet."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

__version__ = _version("strombus")

# Imported on first use, so that `strombus --help` does not wait for torch.
_WHERE = {
    "Callback": "strombus.callbacks",
    "ComputationGraph": "strombus.networks",
    "DataSet": "strombus.types",
    "DefaultRepartitioner": "strombus.partitioning",
    "EpochRecord": "strombus.callbacks",
    "EqualRepartitioner": "strombus.partitioning",
    "Evaluation": "strombus.evaluation",
    "Executor": "strombus.executors.base",
    "FitResult": "strombus.fitting",
    "MultiDataSet": "strombus.types",
    "MultiLayerNetwork": "strombus.networks",
    "NoOpRepartitioner": "strombus.partitioning",
    "ParameterAveragingTrainingMaster": "strombus.masters.parameter_averaging",
    "SharedTrainingMaster": "strombus.masters.shared_training",
    "Trainer": "strombus.trainer",
    "TrainingHook": "strombus.worker.hooks",
    "TrainingMaster": "strombus.masters.base",
    "data": "strombus",
    "errors": "strombus",
}

__all__ = [
    "__version__",
    "Callback",
    "ComputationGraph",
    "DataSet",
    "DefaultRepartitioner",
    "EpochRecord",
    "EqualRepartitioner",
    "Evaluation",
    "Executor",
    "FitResult",
    "MultiDataSet",
    "MultiLayerNetwork",
    "NoOpRepartitioner",
    "ParameterAveragingTrainingMaster",
    "SharedTrainingMaster",
    "Trainer",
    "TrainingHook",
    "TrainingMaster",
    "data",
    "errors",
]

if TYPE_CHECKING:
    from strombus import data, errors
    from strombus.callbacks import Callback, EpochRecord
    from strombus.evaluation import Evaluation
    from strombus.executors.base import Executor
    from strombus.fitting import FitResult
    from strombus.masters.base import TrainingMaster
    from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
    from strombus.masters.shared_training import SharedTrainingMaster
    from strombus.networks import ComputationGraph, MultiLayerNetwork
    from strombus.partitioning import DefaultRepartitioner, EqualRepartitioner, NoOpRepartitioner
    from strombus.trainer import Trainer
    from strombus.types import DataSet, MultiDataSet
    from strombus.worker.hooks import TrainingHook


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'strombus' has no attribute {name!r}")
    where = _WHERE[name]
    return import_module(f"strombus.{name}") if where == "strombus" else getattr(import_module(where), name)


def __dir__() -> list[str]:
    return sorted(__all__)
