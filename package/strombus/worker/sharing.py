"""One member's part of shared training: minibatch, update, exchange, epoch after epoch."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import count, islice
from typing import Any

from strombus.compression import Compressor, Update, warm_up
from strombus.data import open_cell
from strombus.errors import ExecutorError, NonFiniteError
from strombus.executors.base import Member
from strombus.executors.members import GRACE, LEASE
from strombus.networks import StepResult
from strombus.stats import Ear, Recorder
from strombus.transport import Transport
from strombus.types import Cursor, DataSet, Event, MultiDataSet, NetworkState, Partition
from strombus.worker.bench import let_go
from strombus.worker.carrying import Carried
from strombus.worker.data_wait import DataWait
from strombus.worker.guarding import Guard, Place
from strombus.worker.hooks import call_hooks
from strombus.worker.meeting import connected
from strombus.worker.mixing import LEFT_OUT, Mixer, Pace
from strombus.worker.peers import Kind, Peers, Regroup
from strombus.worker.regrouping import Departure, Standing
from strombus.worker.reporting import Reports, tell_said
from strombus.worker.saving import MemberRecord, Saver, read_records
from strombus.worker.settling import Settler
from strombus.worker.sharing_work import MemberResult, SharingWork
from strombus.worker.step import seed_torch
from strombus.worker.validating import validate_share

__all__ = ["share_training"]

_LOOK = 0.02
"""Seconds between two looks at whether the driver has ended the gang."""


def share_training(member: Member, work: SharingWork, opened: Any) -> MemberResult:
    """Train as one of a gang; every member runs this. `opened` is its cell, where an engine holds the rows.

    What takes long and no other member has to wait for comes before they meet.
    """
    options = work.options
    with ExitStack() as stack:
        ear = stack.enter_context(Ear(work.listening))
        stack.callback(tell_said, member, ear)  # also what led to an error
        training = _Training(member, work, open_cell(opened)[1] if work.cells else None, ear)
        training.warm_up()
        with training.recorder.phase("connect"):
            meeting = connected(member, work.keys, options.transport, options.transport_options, work.hub)
            transport = stack.enter_context(meeting)
        return training.run(transport)


class _Training:
    """One member at work."""

    def __init__(self, member: Member, work: SharingWork, cell: DataSet | MultiDataSet | None, ear: Ear) -> None:
        options = work.options
        self.cell = cell
        self.member, self.work, self.options = member, work, options
        self.recorder = Recorder(work.timed, member.rank)
        self.recorder.note_clock(member.clock)
        self.hooks = copy.deepcopy(work.hooks)
        self.peers = Peers(member, options.patience)
        self.data_wait = DataWait(self.peers)
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
        parts = self.peers, self.compressor, options.combine, options.max_staleness, self.pace
        self.mixer = Mixer(*parts, options.weighting)
        self.reports = Reports(member, self.replica, self.recorder, ear)
        self.words: dict[int, dict[str, Any]] = {}
        self.validates = work.validates_first
        self.told_to_stop = self.told_to_leave = False
        self.leaves = self.saved = False
        # Where each stops where it is, no number of steps says what is left of its cell.
        self.together = options.max_staleness is not None or not work.cells
        self.whole_state: NetworkState | None = None
        self.guard = Guard(self.replica, options.on_nonfinite, work.left_out)

    def warm_up(self) -> None:
        """Make the optimizer, and compile what the steps need."""

        def tell() -> None:
            self.member.report(Event("alive", self.member.rank, time.time()))

        with self.recorder.phase("warm_up"):
            if self.replica.device.type == "cpu":
                warm_up(self.replica.flat.vector.dtype, tell)
            self.replica.optimizer  # noqa: B018 - made on first use

    def run(self, transport: Transport | None) -> MemberResult:
        """Train all epochs and settle, or leave where one was lost and others go on."""
        self.peers.transport = transport
        if self.work.survives:
            self.peers.hear = self._hear
            self.peers.survive()
        try:
            state, carried = self._train()
            # Somebody who can hand in the finished result, should rank 0 be lost with it.
            departure = self._departure() if self._stands_in else None
        except Regroup:
            self.peers.send(Kind.LEAVE, 0)
            self.reports.tell("progress", self.place.epoch, {})
            state, carried, departure = None, None, self._departure()
        self.reports.tell_timings()
        return MemberResult(state, carried, tuple(hook.state() for hook in self.hooks), departure)

    def _train(self) -> tuple[NetworkState | None, Carried | None]:
        waits, last = self.work.waits or self.work.survives, False
        for epoch in self.work.epochs:
            whole = self._epoch(epoch)
            last = whole and epoch == self.work.epochs[-1]
            if whole and (self.work.waits or self.work.hands_over):
                self._hand_over(epoch)
            if not whole or (waits and not self._may_go_on(epoch)) or self.leaves:
                break
        if self.leaves and not last:
            return self.whole_state, None
        with self.recorder.phase("settle"):
            return self.settler.final_state() if self.work.survives else self._final_state()

    @property
    def _stands_in(self) -> bool:
        return self.work.survives and self.member.rank == 1 and not self.leaves

    def _departure(self) -> Departure:
        """Return this member's state, and what of the epoch is in it."""
        record = MemberRecord.of(self.replica, self.compressor, self.settler.rows, self.place.rows)
        parameters, taken = self.replica.flat.read(), self.mixer.taken()
        return Departure.of(self.member.rank, record, parameters, self.place, self.work.feed, taken)

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
        self.reports.begin()
        self._seed(epoch)
        self.replica.begin_epoch(epoch)
        sizes = [feed.sizes(part.rows) for part in ranges]
        steps, taken, ends = max(map(len, sizes)), self._begun(epoch), False
        rows, seen = self._rows_before(epoch), 0
        self.place = place = Standing(epoch, ranges, sizes)
        with closing(self._batches(epoch, ranges[rank])) as batches:
            while not ends and not self.leaves:
                first, planned = taken, self.saver.stretch(steps - taken)
                place.met = first
                self.mixer.start([mine[first : first + planned] for mine in sizes])
                here = epoch, rank, feed.done(epoch) - self._begun(epoch) + first
                trained, read, own, mine_whole = self._stretch(here, islice(batches, planned))
                place.rows = rows = rows + trained
                seen, ends = seen + read, first + planned >= steps
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
        figures = {}
        if whole and self.validates and self.work.validation is not None:
            with self.recorder.phase("validate"):
                figures = validate_share(self.replica, self.work.validation, self.member, self.peers.sign)
        self.reports.tell("epoch", epoch, {**figures, "seconds": time.perf_counter() - started, "whole": whole})
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
            figures = {"step": step, "examples": examples, "minibatches": steps, "skipped": self.reports.skipped}
            self.saver.save(self.work.network, self.replica, record, cursor, **figures)

    def _batches(self, epoch: int, part: Partition) -> Generator[DataSet | MultiDataSet]:
        if not part.rows:
            return
        with ExitStack() as stack:
            if self.cell is None:
                assert self.work.feed.source is not None
                stack.callback(let_go, self.work.feed.source)
                reader = self.work.feed.open(epoch, part, 0)
                stack.callback(reader.close)
                reader.watch(self._look, 2 * self.options.patience)
                batches = iter(reader)
            else:
                batches = islice(self.work.feed.of_cell(self.cell, epoch, part.rank), self._begun(epoch), None)
            for number in count(self._begun(epoch) + 1):
                self.data_wait.place = f"minibatch {number} of epoch {epoch}"
                with self.recorder.phase("data_wait"):
                    batch = next(batches, None)
                    self.data_wait.end()
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
        self.reports.count(batch, update, result)
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
            self.reports.tell_encoding(epoch, self.compressor.statistics())
        if self.reports.due:
            self.reports.tell("progress", epoch, {})
        if self.options.pause:
            time.sleep(self.options.pause)

    # -- the driver

    def _look(self, seconds: float) -> None:
        """Listen in a wait for data that has taken so long."""
        self._hear()
        self.data_wait.look(seconds)

    def _hear(self) -> None:
        """Take in what the driver says: to go on after an epoch, who is lost, to stop at once, or to leave in order."""
        for word in self.member.commands():
            if "lost" in word:
                self.peers.lose(word["lost"])
            elif "starved" in word:
                self.data_wait.told()
            elif "leave" in word and "epoch" not in word:
                # Where the others go on without it, one whose worker is taken away has nobody leave with it.
                self.told_to_leave |= word["leave"] is True or not self.work.survives
            elif "epoch" not in word:
                self.told_to_stop = True
            elif not self.peers.lost:  # the same to all, who hear all words in one order
                self.words[word["epoch"]] = word

    def _hand_over(self, epoch: int) -> None:
        """Hand the epoch's network to the driver."""
        with self.recorder.phase("settle"):
            state = self.settler.current_state()
        if state is not None:
            self.reports.tell_state(epoch, state)

    def _may_go_on(self, epoch: int) -> bool:
        """Wait for the driver's word after an epoch."""

        def told() -> bool:
            self._hear()
            return epoch in self.words or bool(self.peers.lost)

        with self.recorder.phase("driver_wait"):
            self.peers.wait_for_driver(told)
        word = self.words.pop(epoch, None)
        if word is None or word["regroup"]:
            raise Regroup
        self.validates, self.leaves = word["validate"], self.leaves or word["leave"]
        if self.saver.saves(False, self.leaves) and not self.saved:
            self._save(epoch + 1, None, self.replica.iteration)
        return not word["stop"]
