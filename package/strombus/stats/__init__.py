"""Timed phases of a job: where the time went, on the driver and on each worker."""

from strombus.stats.recorder import Recorder, where
from strombus.stats.training import PhaseTotals, TrainingStats

__all__ = ["PhaseTotals", "Recorder", "TrainingStats", "where"]
