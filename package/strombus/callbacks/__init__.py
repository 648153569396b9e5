"""User code on the driver while a fit runs."""

from strombus.callbacks.base import Callback, EpochRecord
from strombus.callbacks.progress import ProgressBar

__all__ = ["Callback", "EpochRecord", "ProgressBar"]
