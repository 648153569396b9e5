"""One member's part of shared training: minibatch, update, exchange, epoch after epoch."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from strombus.compression import Compressor, Update, warm_up
from strombus.data import open_cell
from strombus.errors import ExecutorError, NonFiniteError
from strombus.evaluation import Evaluation
from strombus.executors.base import Member
from strombus.executors.members import GRACE, LEASE
from strombus.networks import StepResult
from strombus.networks.parcels import pack_state
from strombus.partitioning import EqualRepartitioner
from strombus.stats import Recorder, where
from strombus.transport import Transport
from strombus.types import Cursor, DataSet, Event, MultiDataSet, NetworkState, Partition
from strombus.worker.carrying import Carried
from strombus.worker.evaluating import evaluate_batches
from strombus.worker.guarding import Guard, Place
from strombus.worker.hooks import call_hooks
from strombus.worker.meeting import connected
from strombus.worker.mixing import LEFT_OUT, Mixer, Pace
from strombus.worker.peers import Peers
from strombus.worker.saving import MemberRecord, Saver, read_records
from strombus.worker.scoring import score_batches
from strombus.worker.settling import Settler
from strombus.worker.sharing_work import MemberResult, SharingWork
from strombus.worker.step import seed_torch

__all__ = ["share_training"]

_REPORT_EVERY = 0.5
"""Seconds between two reports to the driver."""
_LOOK = 0.02
"""Seconds between two looks at whether the driver has ended the gang."""
_CHUNK = 2**22
"""Bytes of a state that travel to the driver in one record."""


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
    skipped: int = 0
    sent: int = 0
    elements: int = 0
    loss: float = float("nan")
    count: float = 0.0
    threshold: float = 0.0

    def take(self) -> dict[str, Any]:
        """Return the figures and start new sums."""
        found = dict(vars(self))
        self.examples = self.minibatches = self.skipped = self.sent = self.elements = 0
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
        self.saver = Saver(member, work.saving)
        self.record: MemberRecord | None = None
        if work.resumed is not None:
            self.record = read_records(work.resumed, [member.rank])[0]
            self.record.load_(self.replica, self.compressor)
            self.settler.rows = int(self.record.figures["rows"])
        self.pace = Pace(options.patience, options.step_patience)
        self.mixer = Mixer(self.peers, self.compressor, options.combine, options.max_staleness, self.pace)
        self.figures = _Figures()
        self.reported = 0.0
        self.since = 0.0
        self.where = where()
        self.words: dict[int, dict[str, Any]] = {}
        self.validates = work.validates_first
        self.told_to_stop = self.told_to_leave = False
        self.leaves = self.saved = False
        # Where each stops where it is, no number of steps says what is left of its cell.
        self.together = options.max_staleness is not None or not work.cells
        self.whole_state: NetworkState | None = None
        self.guard = Guard(self.replica, options.on_nonfinite, work.left_out)
        self.skipped = 0

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
            whole = self._epoch(epoch)
            last = whole and epoch == self.work.epochs[-1]
            if not whole or (self.work.waits and not self._may_go_on(epoch)) or self.leaves:
                break
        state, carried = self.whole_state, None
        if last or not self.leaves:
            with self.recorder.phase("settle"):
                state, carried = self._final_state()
        self._tell_timings()
        return MemberResult(state, carried, tuple(hook.state() for hook in self.hooks))

    def _final_state(self) -> tuple[NetworkState | None, Carried | None]:
        """Settle; return the network's state where this member hands it in.

        Rank 1 has its own in reserve. So has anybody when another member is lost from here on: all have added all
        updates, and once they have met the driver has heard of all that they have reported.
        """
        self.member.exchange(b"")
        try:
            found = self.settler.final_state()
        except ExecutorError:
            if not self._is_stopped():  # nobody but this member knows of a loss
                raise
            return self.settler.own_state()
        return self.settler.own_state() if self.member.rank == 1 else found

    def _is_stopped(self) -> bool:
        """Wait as long as the driver may need to find out that a member is lost; say whether it has told this one."""
        deadline = time.monotonic() + LEASE + GRACE
        while not self.member.stopping() and time.monotonic() < deadline:
            time.sleep(_LOOK)
        return self.member.stopping()

    # -- one epoch

    def _epoch(self, epoch: int) -> bool:
        """Train an epoch; say whether it is whole, or was stopped before its end."""
        feed, rank, started = self.work.feed, self.member.rank, time.perf_counter()
        with self.recorder.phase("split"):
            ranges = self.work.cells or feed.ranges(self.work.repartitioner, epoch, self.member.size)
        self.since = time.monotonic()
        self._seed(epoch)
        self.replica.begin_epoch(epoch)
        sizes = [feed.sizes(part.rows) for part in ranges]
        steps, taken, ends = max(map(len, sizes)), self._begun(epoch), False
        rows, seen = self._rows_before(epoch), 0
        with closing(self._batches(epoch, ranges[rank])) as batches:
            while not ends and not self.leaves:
                first, planned = taken, self.saver.stretch(steps - taken)
                self.mixer.start([mine[first : first + planned] for mine in sizes])
                here = epoch, rank, feed.done(epoch) - self._begun(epoch) + first
                trained, read, own, mine_whole = self._stretch(here, islice(batches, planned))
                rows, seen, ends = rows + trained, seen + read, first + planned >= steps
                with self.recorder.phase("epoch_end" if ends else "meet"):
                    met = time.monotonic()
                    note = self.settler.note(mine_whole, *self.saver.plan(planned, epoch, ends), self.told_to_leave)
                    agreed = self.settler.agree(note, self.mixer.finish(note))
                    reached, self.leaves = first + self.mixer.length(planned), agreed.leaves
                    taken, ends = max(reached, first + own), reached >= steps or not agreed.whole
                    if ends:
                        self.settler.settle(agreed, rows)
                    self.guard.check_parameters((*here, 0))
                saves = self.saver.saves(agreed.saves, agreed.leaves or (ends and epoch == self.work.epochs[-1]))
                if not ends:
                    if saves and (self.together or not agreed.leaves):
                        self._save(epoch, ranges[rank], agreed.iteration, taken, rows, seen)
                    self.saver.go_on(agreed.stretch, met, saves)
        whole = ends and agreed.whole
        figures = self._validate() if whole and self.validates else {}
        self._tell("epoch", epoch, {**figures, "seconds": time.perf_counter() - started, "whole": whole})
        met = time.monotonic()
        self._keep_epoch(epoch, whole, saves)
        self.saver.go_on(agreed.stretch, met, saves)
        return whole

    def _keep_epoch(self, epoch: int, whole: bool, saves: bool) -> None:
        """Keep what an epoch came to: as a checkpoint where one is made, and for a fit that is stopped in the next."""
        self.saved = whole and saves
        if self.saved:
            self._save(epoch + 1, None, self.replica.iteration)
        if whole and self.member.rank == 0 and not self.work.waits:
            self.whole_state = self.replica.state()

    def _rows_before(self, epoch: int) -> int:
        """Return the rows of an epoch that this member had trained when the fit was cut off."""
        return int(self.record.figures["epoch_rows"]) if self.record is not None and self.work.feed.done(epoch) else 0

    def _seed(self, epoch: int) -> None:
        """Start an epoch's random numbers, or go on with those of one that was cut off."""
        feed, rank = self.work.feed, self.member.rank
        done = feed.done(epoch)
        if done and self.record is not None:
            self.record.seed()
        else:
            seed_torch(self.replica, feed.seed, epoch, rank, *([done] if done else []))

    def _begun(self, epoch: int) -> int:
        """Return the steps of an epoch of cells that were taken before; of other rows those were cut out."""
        return self.work.feed.done(epoch) if self.work.cells else 0

    def _stretch(
        self, place: tuple[int, int, int], batches: Iterator[DataSet | MultiDataSet]
    ) -> tuple[int, int, int, bool]:
        """Take the steps until the members meet, the first of which is at `place` (epoch, rank and step).

        Return the rows that were trained, those that were read, the steps, and whether it was not told to stop before.
        """
        epoch, rank, first = place
        rows = seen = steps = 0
        for batch in batches:
            self._hear()
            if self.told_to_leave:
                self.mixer.cut()
            if self.told_to_stop or self.mixer.ends:
                return rows, seen, steps, not self.told_to_stop
            rows += batch.examples if self._step((epoch, rank, first + steps, 0), batch) else 0
            seen, steps = seen + batch.examples, steps + 1
        return rows, seen, steps, True

    def _save(
        self, epoch: int, part: Partition | None, step: int, taken: int = 0, rows: int = 0, examples: int = 0
    ) -> None:
        """Write what this member goes on from, within `epoch` or (part None) at its start.

        `taken` are the epoch's steps, `rows` those that this member has trained of it, `examples` what it has read in
        this fit.
        """
        feed, cursor, steps = self.work.feed, Cursor(epoch), 0
        if part is not None:
            left = (feed.rest(part, epoch, taken),) if self.cell is None else ()
            begun = self._begun(epoch)
            cursor = Cursor(epoch, feed.done(epoch) + taken - begun, self.member.size, left)
            steps = len(feed.sizes(part.rows)[begun:taken])
        with self.recorder.phase("checkpoint"):
            record = MemberRecord.of(self.replica, self.compressor, self.settler.rows, rows)
            figures = {"step": step, "examples": examples, "minibatches": steps, "skipped": self.skipped}
            self.saver.save(self.work.network, self.replica, record, cursor, **figures)

    def _batches(self, epoch: int, part: Partition) -> Generator[DataSet | MultiDataSet]:
        if not part.rows:
            return
        with ExitStack() as stack:
            if self.cell is None:
                reader = self.work.feed.open(epoch, part, 0)
                stack.callback(reader.close)
                batches = iter(reader)
            else:
                batches = islice(self.work.feed.of_cell(self.cell, epoch, part.rank), self._begun(epoch), None)
            while True:
                with self.recorder.phase("data_wait"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def _step(self, place: Place, batch: DataSet | MultiDataSet) -> bool:
        """Take a step; say whether its minibatch was trained, and not left out."""
        if self.guard.leaves_out(place):
            return self._exchange(place, batch, None)
        call_hooks(self.hooks, "pre_update", batch, self.replica, self.recorder)
        with self.recorder.phase("fit", examples=batch.examples) as known:
            result = self.guard.attempt(place, partial(self.replica.gradients, batch))
            known.update({"skipped": 1} if result is None else {"loss": result.loss})
        trained = self._exchange(place, batch, result)
        call_hooks(self.hooks, "post_update", batch, self.replica, self.recorder)
        return trained

    def _exchange(self, place: Place, batch: DataSet | MultiDataSet, result: StepResult | None) -> bool:
        """Send what the gradients come to, and add what is due; None for a minibatch that is left out."""
        with self.recorder.phase("encode") as known:
            update = self._update(place) if result is not None else self.compressor.skip_()
            known |= {"tau": update.threshold, "share": update.count / len(self.replica.flat.vector)}
            known["bytes"] = update.nbytes * len(self.peers.others)
        with self.recorder.phase("exchange"):
            self.mixer.add(update.payload, LEFT_OUT if result is None else result.count)
        figures = self.figures
        figures.examples += batch.examples
        figures.minibatches += 1
        figures.sent += update.nbytes
        figures.elements += update.count
        if result is None:
            figures.skipped += 1
            self.skipped += 1
        else:
            figures.loss, figures.count, figures.threshold = result.loss, result.count, update.threshold
        self._report(place[0])
        return result is not None

    def _update(self, place: Place) -> Update:
        try:
            update = self.compressor.step_(self.replica.optimizer)
        except NonFiniteError as error:
            raise error.at(place) from error
        self.replica.advance()
        return update

    def _report(self, epoch: int) -> None:
        """Say what is due about the step that was taken, and pause where that is asked for."""
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
        """Take in what the driver says: whether to go on after an epoch, to stop at once, or to leave in order."""
        for word in self.member.commands():
            if "epoch" in word:
                self.words[word["epoch"]] = word
            elif "leave" in word:
                self.told_to_leave = True
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
        word = self.words.pop(epoch)
        self.validates, self.leaves = word["validate"], self.leaves or word["leave"]
        if self.saver.saves(False, self.leaves) and not self.saved:
            self._save(epoch + 1, None, self.replica.iteration)
        return not word["stop"]
