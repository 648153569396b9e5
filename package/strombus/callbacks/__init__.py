"""User code on the driver while a fit runs."""

from strombus.callbacks.base import Callback, EpochRecord, FitPlan
from strombus.callbacks.progress import ProgressBar

__all__ = ["Callback", "EpochRecord", "FitPlan", "ProgressBar"]
