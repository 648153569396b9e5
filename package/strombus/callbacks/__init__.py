"""User code on the driver while a fit runs."""

from strombus.callbacks.base import Callback, EpochRecord, FitPlan
from strombus.callbacks.conditions import (
    BestScore,
    EpochCondition,
    InvalidScore,
    IterationCondition,
    MaxEpochs,
    MaxScore,
    MaxTime,
    Scored,
    ScoreImprovement,
    Standing,
)
from strombus.callbacks.early_stopping import EarlyStopping, EarlyStoppingResult
from strombus.callbacks.live import LiveTable, show_progress
from strombus.callbacks.loggers import Entry, JsonLinesLogger, MetricLogger, MlflowLogger, TensorBoardLogger
from strombus.callbacks.monitors import MetricValue
from strombus.callbacks.progress import ProgressBar
from strombus.callbacks.savers import FileModelSaver, InMemoryModelSaver, ModelSaver

__all__ = [
    "BestScore",
    "Callback",
    "EarlyStopping",
    "EarlyStoppingResult",
    "Entry",
    "EpochCondition",
    "EpochRecord",
    "FileModelSaver",
    "FitPlan",
    "InMemoryModelSaver",
    "InvalidScore",
    "IterationCondition",
    "JsonLinesLogger",
    "LiveTable",
    "MaxEpochs",
    "MaxScore",
    "MaxTime",
    "MetricLogger",
    "MetricValue",
    "MlflowLogger",
    "ModelSaver",
    "ProgressBar",
    "ScoreImprovement",
    "Scored",
    "Standing",
    "TensorBoardLogger",
    "show_progress",
]
