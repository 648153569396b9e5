"""The interface of a callback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strombus.errors import ConfigurationError, kind_of
from strombus.masters.job import Progress
from strombus.runs import Run

__all__ = ["Callback", "EpochRecord", "FitPlan", "check_callbacks"]


@dataclass(frozen=True, slots=True)
class FitPlan:
    """What a fit is about to do.

    Parameters
    ----------
    epochs, examples, workers : int
        Epochs to run, examples of one epoch, workers that train.
    backend : str
        Name of the executor.
    trainer : Trainer
        Whose network is trained. Its scoring and evaluation may be used after an epoch; while shared training keeps
        the workers busy they run in this process.
    validation : object
        The validation data as it was opened, which the trainer takes too; None without any.
    run : Run or None
        The run directory of a fit that has a name.
    seed : int or None
        What governs the fit.
    """

    epochs: int
    examples: int
    workers: int
    backend: str
    trainer: Any = field(default=None, compare=False, repr=False)
    validation: Any = field(default=None, compare=False, repr=False)
    run: Run | None = field(default=None, compare=False, repr=False)
    seed: int | None = field(default=None, compare=False)


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
        Trained in this epoch, over all workers; what was left out is among them.
    score : float
        The last round's score: mean loss of the workers' last minibatches.
    seconds : float
        Duration, validation included.
    validation : mapping of str to float
        ``score`` and, for classifiers, ``accuracy`` on the validation data; empty without any, and for an epoch that
        no callback wants validated (`Callback.validates`).
    skipped : int
        Minibatches that were left out, since their numbers were not finite.
    """

    epoch: int
    iteration: int
    examples: int
    minibatches: int
    score: float
    seconds: float
    validation: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0


class Callback:
    """Called on the driver, in the order given; override what you need. For code on the workers see `TrainingHook`.

    An error that a callback raises ends the fit, with a note of which callback it was.

    Attributes
    ----------
    passive : bool
        True for a callback that only watches: it never ends the fit, and does not look at the network after an
        epoch. Shared training waits for the driver after each epoch unless all callbacks are passive.
    """

    passive: bool = False

    def on_fit_start(self, plan: FitPlan) -> None:
        """Run before the first round."""

    def validates(self, epoch: int) -> bool:
        """Say whether `epoch`, counted as in `EpochRecord`, has to be validated; asked before it ends.

        An epoch that no callback wants validated is not. Passive callbacks take what there is and are not asked; where
        all are passive, every epoch is validated.
        """
        return True

    def on_round(self, progress: Progress) -> bool | None:
        """Run after each round, or report of shared training; return True to end the fit at once.

        Rounds that are under way are waited for. The network gets what was trained by then; an epoch of which rows
        are left has no record, and does not count.
        """
        return None

    def on_epoch_end(self, record: EpochRecord) -> bool | None:
        """Run after each epoch; return True to end the fit after it. The network has the epoch's parameters."""
        return None

    def on_error(self, error: Exception) -> bool | None:
        """Run when training fails; return True to end the fit without the error, with the last epoch's network."""
        return None

    def on_fit_end(self) -> None:
        """Run when the fit is over, also after an error; the callback that was started last comes first."""

    def state(self) -> dict[str, Any]:
        """Return what another instance needs to go on: numbers, texts, lists and mappings, as JSON has them."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; called before `on_fit_start`."""


def check_callbacks(given: Any) -> tuple[Callback, ...]:
    """Return the callbacks of a sequence; ConfigurationError for what is none."""
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"callbacks must be a sequence of Callback, got {kind_of(given)}: put it into a list")
    callbacks = tuple(given)
    for one in callbacks:
        if not isinstance(one, Callback):
            raise ConfigurationError(f"a callback must be a strombus.Callback, got {kind_of(one)}")
    return callbacks
