"""User code on the driver while a fit runs."""

from strombus.callbacks.base import Callback, EpochRecord, FitPlan
from strombus.callbacks.loggers import Entry, JsonLinesLogger, MetricLogger, MlflowLogger, TensorBoardLogger
from strombus.callbacks.progress import ProgressBar

__all__ = [
    "Callback",
    "Entry",
    "EpochRecord",
    "FitPlan",
    "JsonLinesLogger",
    "MetricLogger",
    "MlflowLogger",
    "ProgressBar",
    "TensorBoardLogger",
]
