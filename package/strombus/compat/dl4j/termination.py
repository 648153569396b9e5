"""When early stopping ends a fit, under DL4J's names."""

from __future__ import annotations

from enum import StrEnum

from strombus import callbacks as core
from strombus.errors import ConfigurationError

__all__ = [
    "BestScoreEpochTerminationCondition",
    "InvalidScoreIterationTerminationCondition",
    "MaxEpochsTerminationCondition",
    "MaxScoreIterationTerminationCondition",
    "MaxTimeIterationTerminationCondition",
    "ScoreImprovementEpochTerminationCondition",
    "TimeUnit",
]


class TimeUnit(StrEnum):
    """Units of time."""

    MILLISECONDS = "MILLISECONDS"
    SECONDS = "SECONDS"
    MINUTES = "MINUTES"
    HOURS = "HOURS"
    DAYS = "DAYS"


_SECONDS = {"MILLISECONDS": 1e-3, "SECONDS": 1, "MINUTES": 60, "HOURS": 3600, "DAYS": 86400}


class MaxEpochsTerminationCondition(core.MaxEpochs):
    """Ends after a number of epochs; see `strombus.MaxEpochs`."""

    __slots__ = ()


class ScoreImprovementEpochTerminationCondition(core.ScoreImprovement):
    """Ends when the score has not improved in so many epochs; see `strombus.ScoreImprovement`."""

    __slots__ = ()


class BestScoreEpochTerminationCondition(core.BestScore):
    """Ends once the score is at least as good as this; see `strombus.BestScore`."""

    __slots__ = ()


class MaxScoreIterationTerminationCondition(core.MaxScore):
    """Ends when the training loss is above this, or NaN; see `strombus.MaxScore`."""

    __slots__ = ()


class InvalidScoreIterationTerminationCondition(core.InvalidScore):
    """Ends when the training loss is NaN or infinite; see `strombus.InvalidScore`."""

    __slots__ = ()


class MaxTimeIterationTerminationCondition(core.MaxTime):
    """Ends when the fit has lasted so long; see `strombus.MaxTime`.

    Parameters
    ----------
    maxTimeAmount : float
    maxTimeUnit : TimeUnit or str
    """

    __slots__ = ()

    def __init__(self, maxTimeAmount: float, maxTimeUnit: TimeUnit | str = TimeUnit.SECONDS) -> None:
        if maxTimeUnit not in _SECONDS:
            raise ConfigurationError(f"maxTimeUnit must be one of {', '.join(_SECONDS)}, got {maxTimeUnit!r}")
        super().__init__(maxTimeAmount * _SECONDS[maxTimeUnit])
