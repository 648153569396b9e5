"""Mergeable metrics: any partition of the data, in any order, gives what one pass gives."""

from strombus.evaluation.base import Metric
from strombus.evaluation.classification import Evaluation

__all__ = ["Evaluation", "Metric"]
