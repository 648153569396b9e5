"""What a master is given to train, and whom it tells how that goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from strombus.data import NativeCollection, Source
from strombus.errors import MemberLost
from strombus.executors.base import Executor
from strombus.networks import Network
from strombus.runs import Checkpoint, Saving
from strombus.stats import Relay, TrainingStats
from strombus.types import Cursor, EpochLength, NetworkState, WorkerReport

__all__ = ["Observer", "Progress", "Recovery", "Remainder", "SavedByMembers", "TrainingJob"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What the driver knows after a round.

    Parameters
    ----------
    epoch, round : int
        Both from zero.
    examples, minibatches : int
        Of this round, over all workers.
    iteration : int
        Minibatches on the longest worker's path since the network was made.
    score : float
        Mean loss of the workers' last minibatches, weighted by their counts.
    figures : mapping of str to float
        What else there is to know, such as the compression of shared training.
    workers : tuple of WorkerReport
        Who trained this round: all that had rows in averaging, the one that reports in shared training.
    """

    epoch: int
    round: int
    examples: int
    minibatches: int
    iteration: int
    score: float
    figures: Mapping[str, float] = field(default_factory=dict)
    workers: tuple[WorkerReport, ...] = ()


@dataclass(frozen=True)
class SavedByMembers:
    """A checkpoint of which every member has written its part.

    Parameters
    ----------
    step : int
    cursor : Cursor
    examples, minibatches : int
        Trained of the cursor's epoch in this fit, over all members.
    files : mapping of str to mapping
        Size and hash of each file.
    members : tuple of str
        Each rank's file.
    skipped : mapping of int to int
        Minibatches of this attempt that each member has left out, where it has.
    error : str
        What went wrong, where something did.
    """

    step: int
    cursor: Cursor
    examples: int
    minibatches: int
    files: Mapping[str, Mapping[str, Any]]
    members: tuple[str, ...]
    skipped: Mapping[int, int] = field(default_factory=dict)
    error: str = ""


class Observer(Protocol):
    """Who is told how training goes; runs on the driver."""

    def on_round(self, progress: Progress) -> bool:
        """Take note of a round that has ended; return True to stop as soon as it can be done.

        What was trained by then counts. An epoch of which rows are left is not told of.
        """

    def interrupted(self) -> bool:
        """Say whether to stop in order, and where training can go on: with a checkpoint, if any are made."""

    def checkpoint_is_due(self) -> bool:
        """Say whether `on_checkpoint` should be called for the state after the round that was told of last."""

    def on_checkpoint(self, state: NetworkState, cursor: Cursor) -> None:
        """Keep what training can go on from; `cursor` lies within an epoch."""

    def on_saved(self, saved: SavedByMembers) -> None:
        """Complete a checkpoint that the workers have written, where the master has them do so."""

    def validates(self, epoch: int) -> bool:
        """Say whether an epoch, from zero, is to be validated; always where the observer does not wait."""

    def on_epoch(
        self,
        epoch: int,
        state: NetworkState | None,
        validation: Mapping[str, float] | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Take note of an epoch that has ended; return True to stop.

        Parameters
        ----------
        state : NetworkState or None
            None where the observer does not wait (`TrainingJob.waits`) and the state stayed with the workers.
        validation : mapping, optional
            Figures of a master that validates by itself; empty for an epoch that is not validated.
        seconds : float, optional
            What the epoch took where it was trained, for a master that hears of it later.
        """


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is done when workers are lost that the engine does not make good, or numbers are not finite.

    Parameters
    ----------
    max_failures : int
        Times that a fit goes on from its last checkpoint after a loss.
    min_workers : int
        With at least as many.
    timeout : float
        Seconds to wait for these.
    max_rollbacks : int
        Times that a fit goes back to its last checkpoint, and on without the minibatch that broke it.
    survives : bool
        Whether the others carry on when one is lost, so that no checkpoint is needed.
    """

    max_failures: int = 0
    min_workers: int = 1
    timeout: float = 0.0
    max_rollbacks: int = 0
    survives: bool = False


@dataclass(frozen=True, slots=True)
class Remainder:
    """Where members have left their gang, for another to go on.

    Parameters
    ----------
    cursor : Cursor
    examples, minibatches : int
        Of the cursor's epoch, what was trained in this job.
    lost : tuple of MemberLost
        Empty where they have left so that others can join.
    again : int
        Rows of the cursor's epoch that were dealt to those who were lost and are left.
    """

    cursor: Cursor
    examples: int
    minibatches: int
    lost: tuple[MemberLost, ...] = ()
    again: int = 0


@dataclass
class TrainingJob:
    """One call of ``fit``, as a master sees it.

    `source` is readable by every worker, or a collection that the executor's engine holds.

    Parameters
    ----------
    validation : Source or None
        For a master that validates by itself (`TrainingMaster.validates`), what to score after each epoch for which
        the observer wants it.
    waits : bool
        Whether the observer needs each epoch's state, or may stop the fit after it.
    hands_over : bool
        Whether it gets each epoch's state and need not be waited for: what it says to that may come later.
    carried : object
        What the last fit of the same trainer and master left for the next one, and what this one leaves.
    cursor : Cursor or None
        Where in its first epoch training goes on; None: at the epoch's start.
    saving : Saving or None
        For a master whose workers write checkpoints, when and where.
    resumed : Checkpoint or None
        For such a master, the one that training goes on from.
    left_out : frozenset of tuple
        The places (`NonFiniteError.place`) of minibatches that are not trained.
    losses : list of str
        Workers that were lost when everything had been trained, and what was lost with them.
    survives : bool
        Whether the others carry on when a worker is lost, as `Recovery` says.
    relay : Relay
        Repeats here what workers log.
    length : EpochLength or None
        How long an epoch is, where it ends after so many steps and not with the data.
    left : Remainder or None
        Set by a master that has returned before its job was done: the state that it returned is what to go on from.
    """

    network: Network
    source: Source | NativeCollection
    executor: Executor
    workers: int
    epochs: int
    seed: int
    observer: Observer
    first_epoch: int = 0
    stats: TrainingStats = field(default_factory=TrainingStats)
    validation: Source | None = None
    waits: bool = True
    hands_over: bool = False
    carried: Any = None
    cursor: Cursor | None = None
    saving: Saving | None = None
    resumed: Checkpoint | None = None
    left_out: frozenset[tuple[int, int, int, int]] = frozenset()
    losses: list[str] = field(default_factory=list)
    survives: bool = False
    relay: Relay = field(default_factory=Relay)
    length: EpochLength | None = None
    left: Remainder | None = None
