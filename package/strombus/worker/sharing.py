"""One member's part of shared training: minibatch, update, exchange, epoch after epoch."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Literal

from strombus.compression import Compression, Compressor, warm_up
from strombus.data import open_cell
from strombus.evaluation import Evaluation
from strombus.executors.base import Member
from strombus.networks import Network
from strombus.networks.flat import read_buffers, write_buffers_
from strombus.networks.parcels import pack_state
from strombus.partitioning import EqualRepartitioner, Repartitioner
from strombus.stats import Recorder, where
from strombus.transport import Keys, Transport, TransportOptions
from strombus.types import DataSet, Event, MultiDataSet, NetworkState, Partition
from strombus.worker.bench import Feed
from strombus.worker.carrying import Carried
from strombus.worker.evaluating import evaluate_batches
from strombus.worker.hooks import TrainingHook
from strombus.worker.meeting import connected
from strombus.worker.mixing import Mixer, Pace
from strombus.worker.peers import Peers
from strombus.worker.scoring import ScoringWork, score_batches
from strombus.worker.settling import Settler
from strombus.worker.step import seed_torch

__all__ = ["MemberResult", "SharingOptions", "SharingWork", "share_training"]

_REPORT_EVERY = 0.5
"""Seconds between two reports to the driver."""
_CHUNK = 2**22
"""Bytes of a state that travel to the driver in one record."""


@dataclass(frozen=True)
class SharingOptions:
    """How updates are made, exchanged and combined; see `SharedTrainingMaster`.

    Parameters
    ----------
    patience : float
        Seconds to wait for another member.
    step_patience : float or None
        Seconds to wait for another member's step once steps are measured; None: see `strombus.worker.mixing.Pace`.
    pause : float
        Seconds to sleep in each step, for trials with stragglers.
    debug : bool
        Whether each step's compression is reported.
    """

    combine: Literal["mean", "sum"]
    max_staleness: int | None
    compression: Compression
    transport: str | type[Transport]
    transport_options: TransportOptions
    patience: float
    step_patience: float | None = None
    pause: float = 0.0
    debug: bool = False


@dataclass(frozen=True)
class SharingWork:
    """What all members of a fit know; shared with them once.

    Parameters
    ----------
    network : Network
        With the state that the fit starts from.
    epochs : range
    keys : Keys or None
        What lets a member in; made for this fit.
    cells : tuple of Partition
        What each member trains where an engine holds the rows; empty otherwise.
    validation : ScoringWork or None
        What the members score after each epoch.
    waits : bool
        Whether the driver sees each epoch's network and says whether to go on.
    carried : Carried or None
        What an earlier fit has left.
    """

    network: Network
    feed: Feed
    repartitioner: Repartitioner
    epochs: range
    options: SharingOptions
    keys: Keys | None = None
    cells: tuple[Partition, ...] = ()
    validation: ScoringWork | None = None
    waits: bool = False
    hooks: tuple[TrainingHook, ...] = ()
    timed: bool = False
    carried: Carried | None = None


@dataclass(frozen=True)
class MemberResult:
    """What a member hands in: rank 0 the network's state too.

    Parameters
    ----------
    hooks : tuple
        What each hook's ``state()`` returned.
    """

    state: NetworkState | None
    carried: Carried | None
    hooks: tuple[Any, ...] = ()


def share_training(member: Member, work: SharingWork, opened: Any) -> MemberResult:
    """Train as one of a gang; every member runs this. `opened` is its cell, where an engine holds the rows.

    What takes long and no other member has to wait for comes before they meet.
    """
    training = _Training(member, work, open_cell(opened)[1] if work.cells else None)
    training.warm_up()
    options = work.options
    with ExitStack() as stack:
        with training.recorder.phase("connect"):
            meeting = connected(member, work.keys, options.transport, options.transport_options)
            transport = stack.enter_context(meeting)
        return training.run(transport)


@dataclass
class _Figures:
    """What is reported to the driver: sums since the last report, and the latest values."""

    examples: int = 0
    minibatches: int = 0
    sent: int = 0
    elements: int = 0
    loss: float = float("nan")
    count: float = 0.0
    threshold: float = 0.0

    def take(self) -> dict[str, Any]:
        """Return the figures and start new sums."""
        found = dict(vars(self))
        self.examples = self.minibatches = self.sent = self.elements = 0
        return found


class _Training:
    """One member at work."""

    def __init__(self, member: Member, work: SharingWork, cell: DataSet | MultiDataSet | None) -> None:
        options = work.options
        self.cell = cell
        self.member, self.work, self.options = member, work, options
        self.recorder = Recorder(work.timed, member.rank)
        self.recorder.note_clock(member.clock)
        self.hooks = copy.deepcopy(work.hooks)
        self.peers = Peers(member, options.patience)
        with self.recorder.phase("init"):
            self.replica = work.network.replica()
            parameters = list(self.replica.flat.parameters)
            self.compressor = Compressor(options.compression, parameters, self.replica.flat.vector)
        self.settler = Settler(
            self.peers, self.replica, self.compressor, options.combine, exact=options.max_staleness == 0
        )
        if work.carried is not None:
            self.settler.take_up(work.carried)
        self.pace = Pace(options.patience, options.step_patience)
        self.mixer = Mixer(self.peers, self.compressor, options.combine, options.max_staleness, self.pace)
        self.figures = _Figures()
        self.reported = 0.0
        self.since = 0.0
        self.where = where()
        self.words: dict[int, bool] = {}
        self.told_to_stop = False
        self.skips_nonfinite = options.compression.on_nonfinite == "skip"

    def warm_up(self) -> None:
        """Make the optimizer, and compile what the steps need."""

        def tell() -> None:
            self.member.report(Event("alive", self.member.rank, time.time()))

        with self.recorder.phase("warm_up"):
            if self.replica.device.type == "cpu":
                warm_up(self.replica.flat.vector.dtype, tell)
            self.replica.optimizer  # noqa: B018 - made on first use

    def run(self, transport: Transport | None) -> MemberResult:
        """Train all epochs and settle."""
        self.peers.transport = transport
        for epoch in self.work.epochs:
            if not self._epoch(epoch) or (self.work.waits and not self._may_go_on(epoch)):
                break
        with self.recorder.phase("settle"):
            state, carried = self.settler.final_state()
        self._tell_timings()
        return MemberResult(state, carried, tuple(hook.state() for hook in self.hooks))

    # -- one epoch

    def _epoch(self, epoch: int) -> bool:
        """Train an epoch; say whether it is whole, or was stopped before its end."""
        feed, rank, started = self.work.feed, self.member.rank, time.perf_counter()
        with self.recorder.phase("split"):
            ranges = self.work.cells or feed.ranges(self.work.repartitioner, epoch, self.member.size)
        self.since = time.monotonic()
        self.mixer.start([feed.sizes(part.rows) for part in ranges])
        seed_torch(self.replica, feed.seed, epoch, rank)
        rows, mine_whole = 0, True
        with closing(self._batches(epoch, ranges[rank])) as batches:
            for batch in batches:
                self._hear()
                if self.told_to_stop:
                    mine_whole = False
                    break
                self._step(epoch, batch)
                rows += batch.examples
        with self.recorder.phase("epoch_end"):
            note = self.settler.note(mine_whole)
            whole = self.settler.settle(note, self.mixer.finish(note), rows)
        figures = self._validate() if whole else {}
        self._tell("epoch", epoch, {**figures, "seconds": time.perf_counter() - started, "whole": whole})
        return whole

    def _batches(self, epoch: int, part: Partition) -> Generator[DataSet | MultiDataSet]:
        if not part.rows:
            return
        with ExitStack() as stack:
            if self.cell is None:
                reader = self.work.feed.open(epoch, part, 0)
                stack.callback(reader.close)
                batches = iter(reader)
            else:
                batches = self.work.feed.of_cell(self.cell, epoch, part.rank)
            while True:
                with self.recorder.phase("data_wait"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def _step(self, epoch: int, batch: DataSet | MultiDataSet) -> None:
        for hook in self.hooks:
            hook.pre_update(batch, self.replica)
        buffers = read_buffers(self.replica.module) if self.skips_nonfinite else {}
        skipped = self.compressor.skipped
        with self.recorder.phase("fit", examples=batch.examples) as known:
            result = self.replica.gradients(batch, check=not self.skips_nonfinite)
            known["loss"] = result.loss
        with self.recorder.phase("encode") as known:
            update = self.compressor.step_(self.replica.optimizer)
            known |= {"tau": update.threshold, "share": update.count / len(self.replica.flat.vector)}
            known["bytes"] = update.nbytes * len(self.peers.others)
        if buffers and self.compressor.skipped > skipped:  # what spoilt the update has spoilt running means too
            write_buffers_(self.replica.module, buffers)
        self.replica.advance()
        with self.recorder.phase("exchange"):
            self.mixer.add(update.payload, result.count)
        for hook in self.hooks:
            hook.post_update(batch, self.replica)
        figures = self.figures
        figures.examples += result.examples
        figures.minibatches += 1
        figures.sent += update.nbytes
        figures.elements += update.count
        figures.loss, figures.count, figures.threshold = result.loss, result.count, update.threshold
        if self.options.debug:
            values = {"epoch": epoch, "iteration": self.replica.iteration, **self.compressor.statistics()}
            self.member.report(Event("encoding", self.member.rank, time.time(), values=values))
        if time.monotonic() - self.reported > _REPORT_EVERY:
            self._tell("progress", epoch, {})
        if self.options.pause:
            time.sleep(self.options.pause)

    # -- the driver

    def _tell(self, name: str, epoch: int, more: dict[str, Any]) -> None:
        """Report what happened since the last report."""
        now = time.monotonic()
        seconds, self.since, self.reported = now - self.since, now, now
        values = {
            "epoch": epoch,
            "iteration": self.replica.iteration,
            "length": len(self.replica.flat.vector),
            "skipped": self.compressor.skipped,
            **self.figures.take(),
            **more,
        }
        self.member.report(Event(name, self.member.rank, time.time(), seconds, self.where, values))
        self._tell_timings()

    def _tell_timings(self) -> None:
        """Report what was timed since the last report, so that no member keeps a whole fit's."""
        if self.recorder.enabled:
            self.member.report(Event("timings", self.member.rank, time.time(), payload=self.recorder.take().pack()))

    def _hear(self) -> None:
        """Take in what the driver says: whether to go on after an epoch, or to stop at once."""
        for word in self.member.commands():
            if "epoch" in word:
                self.words[word["epoch"]] = not word["stop"]
            else:
                self.told_to_stop = True

    def _validate(self) -> dict[str, Any]:
        """Score this member's share of the validation data."""
        work, rank = self.work.validation, self.member.rank
        if work is None:
            return {}
        assert work.source is not None
        parts = EqualRepartitioner().plan([work.source.rows], workers=self.member.size, batch_size=work.batch_size)
        mine = [part for part in parts if part.rank == rank]
        metrics = tuple(metric.fresh() for metric in work.metrics)
        with self.recorder.phase("validate"):
            losses = [score_batches(self.replica, work.batches(part)) for part in mine]
            for part in mine if metrics else ():
                evaluate_batches(self.replica, work.batches(part), metrics)
        found: dict[str, Any] = {
            "loss_total": sum(loss.total for loss in losses),
            "loss_count": sum(loss.count for loss in losses),
            "penalty": self.replica.regularization(),
        }
        for metric in metrics:
            if isinstance(metric, Evaluation):
                right, rows = (0, 0) if metric.empty else (metric.true_positives().sum(), metric.examples)
                found |= {"right": int(right), "evaluated": rows}
        return found

    def _may_go_on(self, epoch: int) -> bool:
        """Hand the epoch's network to the driver, and wait for its word."""
        with self.recorder.phase("settle"):
            state = self.settler.current_state()
        if state is not None:
            data = pack_state(state)
            for start in range(0, len(data), _CHUNK):
                values = {"epoch": epoch, "last": start + _CHUNK >= len(data)}
                self.member.report(Event("state", 0, values=values, payload=data[start : start + _CHUNK]))

        def told() -> bool:
            self._hear()
            return epoch in self.words

        with self.recorder.phase("driver_wait"):
            self.peers.wait_for_driver(told)
        return self.words.pop(epoch)
