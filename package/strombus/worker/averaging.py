"""One worker's share of a round of parameter averaging."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from strombus.data import open_cell
from strombus.errors import ConfigurationError
from strombus.executors.calls import trains
from strombus.networks import Network, Replica
from strombus.stats import Ear, Listening, Recorder, where
from strombus.types import DataSet, MultiDataSet, NetworkState, Partition, UpdaterState, WorkerReport
from strombus.worker.bench import Feed, Workbench
from strombus.worker.guarding import Guard, OnNonfinite, Place
from strombus.worker.hooks import TrainingHook
from strombus.worker.merging import Averaged, Contribution, Summary
from strombus.worker.step import StepTotals, run_steps, seed_torch

__all__ = ["AveragingWork", "Round", "complete_state", "summary_of", "train_cell", "train_round"]


@dataclass(frozen=True)
class Round:
    """Minibatches `first` to ``first + count`` of a partition, in round `number` of `epoch`."""

    epoch: int
    number: int
    partition: Partition
    first: int
    count: int

    @property
    def rank(self) -> int:
        """The worker; an executor places its parts on the same slot in every round."""
        return self.partition.rank


@dataclass(frozen=True)
class AveragingWork:
    """What stays the same for a whole fit; shared with the workers once.

    Parameters
    ----------
    network : Network
    feed : Feed
    save_updater : bool
        Whether optimizer state is averaged too; otherwise every round starts from `updater`.
    updater : UpdaterState
        The optimizer's state when the fit began.
    weighting : {"examples", "uniform"}
    on_nonfinite : {"raise", "skip", "rollback"}
    left_out : frozenset of tuple
        See `strombus.worker.guarding.Guard`.
    hooks : tuple of TrainingHook
    ranks : tuple of int
        For cells that an engine holds, the rank that trains each.
    timed : bool
        Whether phases are timed.
    listening : Listening or None
        What of the workers' logs the driver wants to have.
    """

    network: Network
    feed: Feed
    save_updater: bool
    updater: UpdaterState
    weighting: Literal["examples", "uniform"]
    on_nonfinite: OnNonfinite = "raise"
    left_out: frozenset[Place] = frozenset()
    hooks: tuple[TrainingHook, ...] = ()
    ranks: tuple[int, ...] = ()
    timed: bool = False
    listening: Listening | None = None
    bench: Workbench = field(default_factory=Workbench)


@trains
def train_round(shared: tuple[AveragingWork, Averaged], part: Round) -> Contribution:
    """Train one worker's minibatches of a round, from the mean of the round before."""
    work, start = shared
    batches = work.bench.batches(work.feed, part.epoch, part.partition, part.first, part.count)
    return _train(work, start, part.partition.rank, part.number, batches)


@trains
def train_cell(shared: tuple[AveragingWork, Averaged], opened: Any) -> Contribution:
    """Train the rows of one cell that the engine holds."""
    work, start = shared
    cell, rows = open_cell(opened)
    return _train(work, start, work.ranks[cell], cell, work.feed.of_cell(rows, start.epoch, cell))


def _train(
    work: AveragingWork, start: Averaged, rank: int, number: int, batches: Iterable[DataSet | MultiDataSet]
) -> Contribution:
    recorder, started = Recorder(work.timed, rank), time.perf_counter()
    hooks = copy.deepcopy(work.hooks)
    with Ear(work.listening) as ear, ExitStack() as stack:
        with recorder.phase("init"):
            replica = stack.enter_context(work.bench.replica_of(work.network))
        with recorder.phase("load"):
            work.bench.load(complete_state(work, start))
            replica.begin_epoch(start.epoch)
        # A seed for each (epoch, round, rank): a round that runs again draws the same numbers.
        seed_torch(replica, work.feed.seed, start.epoch, number, rank)
        guard = Guard(replica, work.on_nonfinite, work.left_out)
        totals = run_steps(replica, batches, hooks, recorder, guard, (start.epoch, rank, number))
        report = _report(replica, totals, rank, time.perf_counter() - started)
        contribution = _contribution(work, replica, totals, recorder, report, hooks, start.epoch)
        work.bench.holds(contribution.state)
        if said := ear.take():
            summary = replace(contribution.summary, said=((rank, ear.place, said),))
            contribution = replace(contribution, summary=summary)
        return contribution


def summary_of(averaged: Averaged) -> Summary:
    """Return the round's figures; looked at where the mean lies."""
    return averaged.summary


def complete_state(work: AveragingWork, averaged: Averaged) -> NetworkState:
    """Return the state with its whole updater: what was not averaged is as it was when the fit began.

    Step counts, hyper-parameters and schedule go on in any case, as DL4J's do.
    """
    state = averaged.state
    if work.save_updater or state.updater is None:
        return state
    began = work.updater.tensors
    kept = {
        name: began[name] if name in began else np.zeros(shape, state.parameters.dtype)
        for name, shape in averaged.left_out.items()
    }
    return replace(state, updater=replace(state.updater, tensors={**state.updater.tensors, **kept}))


def _report(replica: Replica, totals: StepTotals, rank: int, seconds: float) -> WorkerReport:
    counts = {"skipped": totals.skipped, "uncounted": totals.uncounted}
    figures = {name: count for name, count in counts.items() if count}
    return WorkerReport(
        rank, replica.iteration, totals.examples, totals.steps, totals.last_loss, seconds, where(), figures
    )


def _contribution(
    work: AveragingWork,
    replica: Replica,
    totals: StepTotals,
    recorder: Recorder,
    report: WorkerReport,
    hooks: tuple[TrainingHook, ...],
    epoch: int,
) -> Contribution:
    state, left_out = _state_of(replica, work), {}
    if not work.save_updater and state.updater is not None:
        tensors = state.updater.tensors
        left_out = {name: array.shape for name, array in tensors.items() if array.ndim}
        counts = {name: array for name, array in tensors.items() if not array.ndim}
        state = replace(state, updater=replace(state.updater, tensors=counts))
    summary = Summary(
        examples=totals.examples,
        minibatches=totals.steps,
        iteration=state.iteration,
        score_sum=totals.last_loss * totals.last_count,
        count=totals.last_count,
        timings=(recorder.take(),) if recorder.enabled else (),
        hooks=((report.worker, tuple(hook.state() for hook in hooks)),) if hooks else (),
        reports=(report,),
    )
    weight = totals.count if work.weighting == "examples" else float(totals.taken > 0)
    # Never zero: where everything is masked or left out on every worker, the mean is still one of what they ended with.
    return Contribution(state, max(weight, 2.0**-100), summary, totals.taken, epoch, left_out=left_out)


def _state_of(replica: Replica, work: AveragingWork) -> NetworkState:
    try:
        return replica.state()
    except ConfigurationError:
        # An optimizer whose state cannot travel (LBFGS): it starts afresh in every round, if that is wanted.
        if work.save_updater:
            raise
        return replica.state(updater=False)
