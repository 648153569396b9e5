"""Parameter averaging: workers train by themselves for a few minibatches, then take the mean."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from strombus.data import Source
from strombus.errors import ConfigurationError, NonFiniteError
from strombus.executors.base import Shared
from strombus.masters.base import TrainingMaster
from strombus.masters.feeding import feed_of
from strombus.masters.job import Progress, TrainingJob
from strombus.masters.rounds import CellRounds, Rounds, SourceRounds
from strombus.partitioning import Repartitioner
from strombus.stats import Listening, Recorder
from strombus.types import ClockBounds, NetworkState, UpdaterState
from strombus.worker.averaging import AveragingWork, complete_state, summary_of
from strombus.worker.bench import Feed
from strombus.worker.clock import read_clock
from strombus.worker.merging import Averaged, Summary, finish_round, merge_contributions

__all__ = ["ParameterAveragingTrainingMaster"]

T = TypeVar("T")

# Rounds after which the mean passes the driver once, so that an engine that recomputes what a lost
# worker held never has to go further back than this.
_ROUNDS_BETWEEN_ANCHORS = 50


class ParameterAveragingTrainingMaster(TrainingMaster):
    """Synchronous local training with periodic averaging (DL4J: ``ParameterAveragingTrainingMaster``).

    A round: every worker starts from the same parameters and fits up to `averaging_frequency`
    minibatches of its own rows; the mean of what they end with starts the next round. Every row is
    used once per epoch. With one worker this is plain training; with SGD, `averaging_frequency` 1
    and equal rows it is training on the joined minibatches.

    Parameters
    ----------
    averaging_frequency : int
        Minibatches of each worker between two averagings.
    aggregation_depth : int
        Levels of the tree in which the mean is formed.
    save_updater : bool
        Whether optimizer state is averaged with the parameters (on by default, as DL4J's page says;
        DL4J's code has it off).
    weighting : {"examples", "uniform"}
        Whether a worker counts by what its losses averaged over, or each alike as in DL4J.
    **options
        See `TrainingMaster`.
    """

    name: ClassVar[str] = "parameter_averaging"

    averaging_frequency: int = Field(default=5, ge=1)
    aggregation_depth: int = Field(default=2, ge=1)
    save_updater: bool = True
    weighting: Literal["examples", "uniform"] = "examples"

    def train(self, job: TrainingJob) -> NetworkState:
        """Run the epochs of `job`; return the state after the last one.

        Raises
        ------
        ConfigurationError
            Where minibatches are to be left out, and the optimizer's step cannot be taken back.
        NonFiniteError
            When the mean of the workers' parameters is not finite.
        """
        if self.on_nonfinite == "skip" and (replica := job.network.replica("cpu")).evaluates_loss:
            raise ConfigurationError(
                f"{type(replica.optimizer).__name__} evaluates the loss several times in a step, which cannot be taken "
                'back: on_nonfinite="skip" needs another optimizer; "rollback" does not'
            )
        return _Run(self, job).epochs()


class _Run:
    """One fit: what stays the same from round to round."""

    def __init__(self, master: ParameterAveragingTrainingMaster, job: TrainingJob) -> None:
        self.master, self.job = master, job
        self.hooks = master.training_hooks
        self.recorder = Recorder(master.collect_training_stats, stats=job.stats)
        self.stopping = False
        self.score = float("nan")
        with self.recorder.phase("split"):
            repartitioner = master.choose_repartitioner(job.source, job.workers)
            self.feed = feed_of(master, job, repartitioner)
            self.rounds = _lay_out(master, job, self.feed, repartitioner)

    def epochs(self) -> NetworkState:
        job = self.job
        shared: Shared[AveragingWork] | None = None
        try:
            state = job.network.state()
            self.work = work = self._work(state)
            if self.recorder.enabled:
                _compare_clocks(job)
            shared = self._share(work)
            for epoch in range(job.first_epoch, job.first_epoch + job.epochs):
                mean, whole = self._epoch(shared, Averaged(state, epoch))
                state = complete_state(work, mean)
                if not whole or job.observer.on_epoch(epoch, state):
                    break
        finally:
            if shared is not None:
                shared.free()
            self.rounds.close()
        return state

    def _work(self, state: NetworkState) -> AveragingWork:
        master = self.master
        return AveragingWork(
            self.job.network,
            self.feed,
            save_updater=master.save_updater,
            updater=state.updater or self.job.network.replica("cpu").state().updater or UpdaterState(),
            weighting=master.weighting,
            on_nonfinite=master.on_nonfinite,
            left_out=self.job.left_out,
            hooks=self.hooks,
            ranks=self.rounds.ranks,
            timed=master.collect_training_stats,
            listening=Listening.now(),
        )

    def _epoch(self, work: Shared[AveragingWork], start: Averaged) -> tuple[Averaged, bool]:
        """Run one epoch, with one round under way while the one before it is settled; say whether it is whole."""
        # The anchor stays until the next one: what an engine makes again begins with it.
        mean = anchor = self._share(start)
        alive, under_way, whole = [anchor], deque[_UnderWay](), True
        try:
            with self.recorder.phase("split"):
                rounds = self.rounds.of(start.epoch)
            for number, parts in enumerate(rounds, self.feed.done(start.epoch)):
                if self.stopping or self.job.observer.interrupted():
                    whole = False
                    break
                submitted = time.time()
                before, mean = mean, self._submit(parts, work, mean)
                alive.append(mean)
                under_way.append(_UnderWay(start.epoch, number, before, mean, submitted))
                if len(under_way) > 1:
                    self._settle(under_way.popleft(), anchor)
                if number % _ROUNDS_BETWEEN_ANCHORS == _ROUNDS_BETWEEN_ANCHORS - 1:
                    self._settle(under_way.popleft(), anchor)
                    old, mean = anchor, self._anchor(mean)
                    old.free()
                    anchor, alive = mean, [mean]
            while under_way:
                self._settle(under_way.popleft(), anchor)
            if not whole and self.job.observer.interrupted() and number > self.feed.done(start.epoch):
                self._keep(start.epoch, number - 1, mean)
            with self.recorder.phase("apply"):
                return mean.get(), whole
        finally:
            for shared in alive:
                shared.free()

    def _submit(self, parts: list[Any], work: Shared[AveragingWork], start: Shared[Averaged]) -> Shared[Averaged]:
        with self.recorder.phase("submit"):
            return self.job.executor.map_reduce(
                self.rounds.task,
                parts,
                merge_contributions,
                (work, start),
                depth=self.master.aggregation_depth,
                finish=finish_round,
            )

    def _share(self, value: T) -> Shared[T]:
        with self.recorder.phase("broadcast"):
            return self.job.executor.share(value)

    def _anchor(self, mean: Shared[Averaged]) -> Shared[Averaged]:
        """Pass the mean through the driver, so that no engine has to recompute what lies before it."""
        anchored = self._share(replace(mean.get(), summary=Summary()))
        mean.free()
        return anchored

    def _settle(self, done: _UnderWay, anchor: Shared[Averaged]) -> None:
        """Wait for a round, let go the mean it started from, and tell hooks and observer."""
        with self.recorder.phase("round"):
            summary = done.mean.look(summary_of)
        for rank, place, said in summary.said:
            self.job.relay.take(rank, place, said)
        if done.before is not anchor:
            done.before.free()
        if not summary.finite:
            raise NonFiniteError(
                f"epoch {done.epoch + 1}: the mean of the workers' parameters after round {done.number} is NaN or "
                "infinite, though each worker's are finite: their sum overflows; lower the learning rate",
                "parameters",
            )
        for timings in summary.timings:
            timings.bound_clocks(done.submitted, time.time())
            self.job.stats.merge(timings)
        for rank, states in summary.hooks:
            for hook, state in zip(self.hooks, states, strict=True):
                if state is not None:
                    hook.collect(rank, state)
        if summary.count or not any("skipped" in report.figures for report in summary.reports):
            self.score = summary.score  # else the last round's that was trained
        self.stopping |= self.job.observer.on_round(
            Progress(
                done.epoch,
                done.number,
                summary.examples,
                summary.minibatches,
                summary.iteration,
                self.score,
                workers=summary.reports,
            )
        )
        if not self.stopping and not self.job.observer.interrupted():
            self._keep(done.epoch, done.number, done.mean)

    def _keep(self, epoch: int, number: int, mean: Shared[Averaged]) -> None:
        """Have the mean of a round kept, where that is due; an epoch's last one is for `on_epoch`."""
        cursor = self.rounds.after(epoch, number) if self.job.observer.checkpoint_is_due() else None
        if cursor is not None:
            with self.recorder.phase("checkpoint"):
                self.job.observer.on_checkpoint(complete_state(self.work, mean.get()), cursor)


def _compare_clocks(job: TrainingJob) -> None:
    """Ask a task of each worker for its time, so that its events can be put beside the driver's."""
    sent = time.time()
    for place, there in job.executor.map(read_clock, range(job.workers)):
        job.stats.note_clock(place, ClockBounds.of_round_trip(sent, there, time.time()))


def _lay_out(
    master: ParameterAveragingTrainingMaster, job: TrainingJob, feed: Feed, repartitioner: Repartitioner
) -> Rounds:
    frequency = master.averaging_frequency
    if isinstance(job.source, Source):
        return SourceRounds(feed, repartitioner, job.workers, frequency)
    return CellRounds(
        job.source, job.executor, feed, repartitioner, job.workers, frequency, storage_level=master.storage_level
    )


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A round that was submitted: what it starts from, what it ends with."""

    epoch: int
    number: int
    before: Shared[Averaged]
    mean: Shared[Averaged]
    submitted: float
