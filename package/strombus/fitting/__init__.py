"""One fit on the driver: attempts, the books of its epochs, checkpoints, what is written and what came of it."""

from strombus.fitting.fit import Fit
from strombus.fitting.result import FitResult

__all__ = ["Fit", "FitResult"]
