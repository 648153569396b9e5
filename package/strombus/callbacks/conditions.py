"""When early stopping ends a fit: conditions on what was measured, without a memory of their own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from strombus.errors import ConfigurationError

__all__ = [
    "BestScore",
    "EpochCondition",
    "InvalidScore",
    "IterationCondition",
    "MaxEpochs",
    "MaxScore",
    "MaxTime",
    "ScoreImprovement",
    "Scored",
    "Standing",
]


class Scored(NamedTuple):
    """One evaluation: the epoch counted since the network was made, the epochs run by then, and the score."""

    epoch: int
    after: int
    score: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What an `EpochCondition` judges.

    Parameters
    ----------
    epochs : int
        Epochs that early stopping has seen.
    scores : tuple of Scored
        All evaluations, the last one not always of this epoch.
    maximize : bool
        Whether higher scores are better.
    """

    epochs: int = 0
    scores: tuple[Scored, ...] = ()
    maximize: bool = False

    @property
    def evaluated(self) -> bool:
        """Whether this epoch's network was evaluated."""
        return bool(self.scores) and self.scores[-1].after == self.epochs

    def gain(self, score: float, best: float) -> float:
        """Return by how much `score` is better than `best`; NaN is worse than any other."""
        if math.isnan(score) or math.isnan(best):
            return math.inf if math.isnan(best) and not math.isnan(score) else -math.inf
        return score - best if self.maximize else best - score

    @property
    def best(self) -> Scored | None:
        """The best evaluation, the first of equal ones; None where none was a number."""
        best: Scored | None = None
        for one in self.scores:
            if self.gain(one.score, math.nan if best is None else best.score) > 0:
                best = one
        return best


class EpochCondition(ABC):
    """Ends a fit after an epoch (DL4J: ``EpochTerminationCondition``).

    Attributes
    ----------
    needs_scores : bool
        Whether it looks at what is monitored, so that there has to be something to monitor.
    """

    needs_scores: ClassVar[bool] = True

    @abstractmethod
    def ends(self, standing: Standing) -> bool:
        """Say whether the fit should end; asked after each epoch, whether it was evaluated or not."""


class IterationCondition(ABC):
    """Ends a fit within an epoch (DL4J: ``IterationTerminationCondition``)."""

    @abstractmethod
    def ends(self, seconds: float, loss: float) -> bool:
        """Say whether the fit should end; asked after each round, and after each epoch.

        Parameters
        ----------
        seconds : float
            Since the fit began, and in the fits that were gone on with before.
        loss : float
            Mean training loss of the workers' last minibatches.
        """


def _positive(condition: Any, name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError(f"{type(condition).__name__}: {name} must be above 0, got {value!r}")


@dataclass(frozen=True, slots=True)
class MaxEpochs(EpochCondition):
    """Ends after this number of epochs (DL4J: ``MaxEpochsTerminationCondition``)."""

    epochs: int
    needs_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _positive(self, "epochs", self.epochs)

    def ends(self, standing: Standing) -> bool:
        return standing.epochs >= self.epochs


@dataclass(frozen=True, slots=True)
class ScoreImprovement(EpochCondition):
    """Ends when the score has not improved in `epochs` epochs (DL4J: ``ScoreImprovementEpochTerminationCondition``).

    Parameters
    ----------
    epochs : int
    min_improvement : float
        An improvement has to be larger than this to count.
    """

    epochs: int
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "epochs", self.epochs)
        if not self.min_improvement >= 0:
            raise ConfigurationError(f"ScoreImprovement: min_improvement must not be negative: {self.min_improvement}")

    def ends(self, standing: Standing) -> bool:
        if not standing.evaluated:
            return False
        reference = standing.scores[0]
        for one in standing.scores[1:]:
            if standing.gain(one.score, reference.score) > self.min_improvement:
                reference = one
        return standing.epochs >= reference.after + self.epochs


@dataclass(frozen=True, slots=True)
class BestScore(EpochCondition):
    """Ends once a score is at least as good as this (DL4J: ``BestScoreEpochTerminationCondition``)."""

    score: float

    def ends(self, standing: Standing) -> bool:
        return standing.evaluated and standing.gain(standing.scores[-1].score, self.score) >= 0


@dataclass(frozen=True, slots=True)
class MaxTime(IterationCondition):
    """Ends when the fit has lasted this long (DL4J: ``MaxTimeIterationTerminationCondition``)."""

    seconds: float

    def __post_init__(self) -> None:
        _positive(self, "seconds", self.seconds)

    def ends(self, seconds: float, loss: float) -> bool:
        return seconds >= self.seconds


@dataclass(frozen=True, slots=True)
class MaxScore(IterationCondition):
    """Ends when the training loss is above this, or NaN (DL4J: ``MaxScoreIterationTerminationCondition``)."""

    score: float

    def ends(self, seconds: float, loss: float) -> bool:
        return not loss <= self.score


@dataclass(frozen=True, slots=True)
class InvalidScore(IterationCondition):
    """Ends when the training loss is NaN or infinite (DL4J: ``InvalidScoreIterationTerminationCondition``).

    Without it such a loss is an error.
    """

    def ends(self, seconds: float, loss: float) -> bool:
        return not math.isfinite(loss)
