"""The interface of a callback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strombus.masters.base import Progress

__all__ = ["Callback", "EpochRecord", "FitPlan"]


@dataclass(frozen=True, slots=True)
class FitPlan:
    """What a fit is about to do.

    Parameters
    ----------
    epochs, examples, workers : int
        Epochs to run, examples of one epoch, workers that train.
    backend : str
        Name of the executor.
    """

    epochs: int
    examples: int
    workers: int
    backend: str


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """An epoch that has ended.

    Parameters
    ----------
    epoch : int
        Counted from 1 since the network was made.
    iteration : int
        Minibatches on the longest worker's path since the network was made.
    examples, minibatches : int
        Trained in this epoch, over all workers.
    score : float
        The last round's score: mean loss of the workers' last minibatches.
    seconds : float
        Duration, validation included.
    validation : mapping of str to float
        ``score`` and, for classifiers, ``accuracy`` on the validation data; empty without any.
    """

    epoch: int
    iteration: int
    examples: int
    minibatches: int
    score: float
    seconds: float
    validation: Mapping[str, float] = field(default_factory=dict)


class Callback:
    """Called on the driver, in the order given; override what you need. For code on the workers see `TrainingHook`.

    Attributes
    ----------
    passive : bool
        True for a callback that only watches: at an epoch's end it neither stops the fit nor looks at the
        network. Shared training waits for the driver after each epoch unless all callbacks are passive.
    """

    passive: bool = False

    def on_fit_start(self, plan: FitPlan) -> None:
        """Run before the first round."""

    def on_round(self, progress: Progress) -> None:
        """Run after each round."""

    def on_epoch_end(self, record: EpochRecord) -> bool | None:
        """Run after each epoch; return True to end the fit after it. The network has the epoch's parameters."""
        return None

    def on_fit_end(self) -> None:
        """Run when the fit is over, also after an error; the callback that was started last comes first."""
