"""Timed phases of a job: where the time went, on the driver and on each worker."""

from strombus.stats.recorder import Recorder, where
from strombus.stats.relay import Ear, Listening, Relay, Said
from strombus.stats.training import PhaseTotals, TrainingStats

__all__ = ["Ear", "Listening", "PhaseTotals", "Recorder", "Relay", "Said", "TrainingStats", "where"]
