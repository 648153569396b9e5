"""Metrics of a fit, for each worker: as JSON lines, for TensorBoard, for MLflow."""

from strombus.callbacks.loggers.base import Entry, MetricLogger
from strombus.callbacks.loggers.json_lines import JsonLinesLogger
from strombus.callbacks.loggers.mlflow import MlflowLogger
from strombus.callbacks.loggers.tensorboard import TensorBoardLogger

__all__ = ["Entry", "JsonLinesLogger", "MetricLogger", "MlflowLogger", "TensorBoardLogger"]
