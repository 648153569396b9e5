"""The driver's books of a fit: what the master tells is added up, kept, and told to callbacks."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from strombus.callbacks import Callback, EpochRecord, FitPlan
from strombus.errors import DataError, NonFiniteError
from strombus.fitting.aside import Aside, Pending
from strombus.fitting.checkpointing import Keeper, Snapshot
from strombus.fitting.interrupting import Interruption
from strombus.masters.job import Progress, SavedByMembers
from strombus.networks import Network
from strombus.stats import Recorder
from strombus.types import Cursor, NetworkState

__all__ = ["Books"]

logger = logging.getLogger(__name__)


class Books:
    """What is known of a fit while it runs; the master's `Observer`.

    Parameters
    ----------
    network : Network
        Gets each epoch's parameters.
    callbacks : sequence of Callback
    recorder : Recorder
    validate : callable
        Returns the validation figures after an epoch, where the master has none.
    keeper : Keeper, optional
        Writes checkpoints.
    keeps_epochs : bool
        Whether it writes those at an epoch's end too, which a master's workers may do themselves.
    interruption : Interruption
        Says whether a signal asks to stop.

    Attributes
    ----------
    records : list of EpochRecord
    trained : list of int
        Examples and minibatches of the fit.
    skipped : Counter
        Minibatches that each worker has left out of them.
    stopped_by : str or None
        The class of the callback that has ended the fit.
    cursor : Cursor or None
        Where the fit goes on that was cut off.
    aside : Aside or None
        Validates an epoch beside the training of the next. Callbacks are told of the epoch, and its checkpoint is
        written, when the figures are there; then the network still has the epoch's parameters. One epoch at a time
        waits for them.
    """

    def __init__(
        self,
        network: Network,
        callbacks: Sequence[Callback],
        recorder: Recorder,
        validate: Callable[[], Mapping[str, float]],
        keeper: Keeper | None,
        keeps_epochs: bool,
        interruption: Interruption,
    ) -> None:
        self.network, self.callbacks, self.keeper = network, callbacks, keeper
        self._interruption = interruption
        self.records: list[EpochRecord] = []
        self.trained = [0, 0]
        self.skipped: Counter[int] = Counter()
        self.stopped_by: str | None = None
        self.cursor: Cursor | None = None
        self.aside: Aside | None = None
        self._pending: Pending | None = None
        self._saved: list[SavedByMembers] = []  # since the epoch whose figures are awaited
        self._recorder, self._validate, self._keeps_epochs = recorder, validate, keeps_epochs
        self._iteration = network.iteration
        self._fault: Exception | None = None
        self._skipped_before: Counter[int] = Counter()  # in attempts before this one
        self._spent, self._score = 0.0, float("nan")
        self._began = time.perf_counter()
        self._start_epoch()

    @property
    def seconds(self) -> float:
        """What the fit has taken, over all processes that went on with it."""
        return time.perf_counter() - self._began

    def go_on(self, past: Snapshot) -> None:
        """Take over the books of an attempt that was cut off."""
        self.records, self.trained = list(past.records), list(past.trained)
        self.skipped, self._skipped_before = Counter(past.skipped), Counter(past.skipped)
        self._began = time.perf_counter() - past.seconds
        self._iteration, self.cursor = past.iteration, past.cursor
        self._start_epoch()
        self._examples, self._minibatches = past.examples, past.minibatches
        self._before = past.examples, past.minibatches

    def take_up(self, cursor: Cursor, examples: int = 0, minibatches: int = 0) -> None:
        """Go on from `cursor` in the same fit: of its epoch that much was trained since the fit went on last."""
        before = self._before if cursor.within else (0, 0)
        counts = before[0] + examples, before[1] + minibatches
        spent, score = self._spent + time.perf_counter() - self._started, self._score
        self.go_on(self._snapshot(cursor, self.network.iteration, *counts, self.skipped))
        if cursor.within:
            self._spent, self._score = spent, score

    @contextmanager
    def told(self, plan: FitPlan) -> Iterator[None]:
        """Tell the callbacks of the start of training, and of its end, which comes after a ``with`` block."""
        with ExitStack() as stack:
            for callback in self.callbacks:
                with self._calling(callback, "on_fit_start"):
                    callback.on_fit_start(plan)
                stack.callback(self._end, callback)
            self._started = time.perf_counter()
            yield

    @contextmanager
    def _calling(self, callback: Callback, method: str) -> Iterator[None]:
        """Note on an error of a callback whose it is, and keep it: engines may wrap it in errors of their own."""
        try:
            yield
        except Exception as error:
            error.add_note(f"raised by {type(callback).__name__}.{method}, a callback of this fit")
            self._fault = error
            raise

    def _end(self, callback: Callback) -> None:
        with self._calling(callback, "on_fit_end"):
            callback.on_fit_end()

    @property
    def driver_failed(self) -> bool:
        """Whether the error is of this process: a callback has raised it, or an epoch has taught nothing."""
        return self._fault is not None

    def fail(self, error: Exception) -> None:
        """Tell the callbacks of an error, and raise it unless one of them takes it for the fit's end."""
        told, takers = self._fault or error, []
        for callback in self.callbacks:
            with self._calling(callback, "on_error"):
                if callback.on_error(told) is True:
                    takers.append(type(callback).__name__)
        if self._fault is not None:
            raise self._fault
        if not takers:
            raise error
        self.stopped_by = takers[0]

    # -- what the master tells

    def on_round(self, progress: Progress) -> bool:
        """Add a round to the epoch's figures, and ask the callbacks whether to stop."""
        if self.keeper is not None:
            self.keeper.run.check()
        self._examples += progress.examples
        self._minibatches += progress.minibatches
        self.trained[0] += progress.examples
        self.trained[1] += progress.minibatches
        progress = self._with_skipped(progress)
        self._iteration = progress.iteration
        if progress.minibatches or not math.isnan(progress.score):  # else who reports has had no rows
            self._score = self.network.score = progress.score
        for callback in self.callbacks:
            with self._calling(callback, "on_round"):
                self._heed(callback, callback.on_round(progress))
        if self._pending is not None and self._pending.done:
            self.settle()
        return self.stopped_by is not None

    def _with_skipped(self, progress: Progress) -> Progress:
        """Count what was left out, and have callbacks see the sum so far."""
        for report in progress.workers:
            self._uncounted += int(report.figures.get("uncounted", 0))
            if skipped := int(report.figures.get("skipped", 0)):
                self.skipped[report.worker] += skipped
        if not self.skipped:
            return progress
        return replace(progress, figures={**progress.figures, "skipped": self.skipped.total()})

    def interrupted(self) -> bool:
        """Say whether a signal asks to stop."""
        return self._interruption.asked

    def _heed(self, callback: Callback, stop: bool | None) -> None:
        """Keep the first callback that has ended the fit."""
        if stop is True and self.stopped_by is None:
            self.stopped_by = type(callback).__name__

    def validates(self, epoch: int) -> bool:
        """Say whether a callback wants the epoch validated; where none is asked, it is."""
        asked = [callback for callback in self.callbacks if not callback.passive]
        for callback in asked:
            with self._calling(callback, "validates"):
                if callback.validates(epoch + 1):
                    return True
        return not asked

    def on_epoch(
        self,
        epoch: int,
        state: NetworkState | None,
        validation: Mapping[str, float] | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Give the network the epoch's parameters, validate, and ask the callbacks whether to stop."""
        self.settle()
        if state is not None:
            self.network.load_state(state)
        self.network.epoch = epoch + 1
        later = validation is None and self.aside is not None and self.validates(epoch)
        if validation is None:
            validation = self._validate() if self.aside is None and self.validates(epoch) else {}
        record = EpochRecord(
            epoch=epoch + 1,
            iteration=self._iteration if state is None else state.iteration,
            examples=self._examples,
            minibatches=self._minibatches,
            score=self._score,
            validation=validation,
            seconds=self._spent + (time.perf_counter() - self._started if seconds is None else seconds),
            skipped=self.skipped.total() - sum(record.skipped for record in self.records),
        )
        _check_skipped(record)
        self._check_counted(record)
        ended = Pending(epoch, state, record, time.time() - (time.perf_counter() - self._started))
        self._start_epoch()
        if later and self.aside is not None:
            self._pending = ended
            self.aside.start(ended, self.network)
        else:
            self._tell_of(ended, record)
        return self.stopped_by is not None or self.interrupted()

    def _check_counted(self, record: EpochRecord) -> None:
        """Raise DataError for an epoch of which nothing was learnt, since nothing in it counted."""
        if self._uncounted and self._uncounted == record.minibatches - record.skipped:
            self._fault = DataError(
                f"all {record.examples} examples of epoch {record.epoch} are masked or have no weight, so that nothing "
                "was learnt; weights count as the network's dtype has them"
            )
            raise self._fault

    def settle(self) -> None:
        """Wait for the figures of the epoch that has ended last, and tell of it."""
        ended, self._pending = self._pending, None
        if ended is None:
            return
        figures = ended.figures()
        self._recorder.note("validate", ended.started, ended.seconds, {})
        score, self.network.score = self.network.score, ended.record.score
        self._tell_of(ended, replace(ended.record, validation=figures))
        self.network.score = score
        saved, self._saved = self._saved, []
        for one in saved:
            self.on_saved(one)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Have the last epoch settled at the end of a ``with`` block, also after an error, which comes first."""
        try:
            yield
        except Exception:
            if not self.driver_failed:
                with suppress(Exception):
                    self.settle()
            self._pending, self._saved = None, []
            raise
        self.settle()

    def _tell_of(self, ended: Pending, record: EpochRecord) -> None:
        """Enter an epoch into the books, tell the callbacks, and keep it."""
        self.records.append(record)
        names = ("epoch", "iteration", "examples", "minibatches", "score", "validation", "skipped")
        self._recorder.note("epoch", ended.began, record.seconds, {name: getattr(record, name) for name in names})
        for callback in self.callbacks:
            with self._calling(callback, "on_epoch_end"):
                self._heed(callback, callback.on_epoch_end(record))
        if ended.state is not None and self._keeps_epochs and self.stopped_by is None:
            self._keep_epoch(ended.epoch, ended.state, record)

    def _start_epoch(self) -> None:
        self._examples = self._minibatches = 0
        self._uncounted = 0  # of these, with nothing to learn from
        self._before = (0, 0)  # of these, trained before the fit went on
        self._spent = 0.0  # seconds of the epoch before workers were lost
        self._score = float("nan")
        self._started = time.perf_counter()

    # -- checkpoints

    def keep_start(self) -> None:
        """Write a first checkpoint, from which a fit goes on whatever it began with."""
        if self.keeper is not None and self.cursor is None:
            self.keeper.write(
                self.network, self.network.state(), self._snapshot(Cursor(self.network.epoch), self.network.iteration)
            )

    def checkpoint_is_due(self) -> bool:
        """Say whether the run directory should get a checkpoint of where training stands."""
        if self._pending is not None and self.interrupted():
            self.settle()
        waits = self._pending is not None  # no checkpoint comes before that of the epoch that has ended
        return self.keeper is not None and not waits and (self.interrupted() or self.keeper.is_due(self._iteration))

    def on_checkpoint(self, state: NetworkState, cursor: Cursor) -> None:
        """Write a checkpoint from within an epoch."""
        assert self.keeper is not None
        past = self._snapshot(cursor, state.iteration, self._examples, self._minibatches)
        self.keeper.write(self.network, state, past)

    def _keep_epoch(self, epoch: int, state: NetworkState, record: EpochRecord) -> None:
        if self.keeper is None:
            return
        if self.keeper.epoch_is_due(len(self.records), state.iteration, record) or self.interrupted():
            self.keeper.write(self.network, state, self._snapshot(Cursor(epoch + 1), state.iteration))

    def on_saved(self, saved: SavedByMembers) -> None:
        """Complete a checkpoint whose files the workers have written, and which has all epochs before it."""
        if self._pending is not None and not self.interrupted():
            self._saved.append(saved)
            return
        self.settle()
        assert self.keeper is not None
        before = self._before if saved.cursor.within else (0, 0)
        examples, minibatches = before[0] + saved.examples, before[1] + saved.minibatches
        skipped = self._skipped_before + Counter(saved.skipped)
        self.keeper.complete(self._snapshot(saved.cursor, saved.step, examples, minibatches, skipped), saved)

    def _snapshot(
        self,
        cursor: Cursor,
        iteration: int,
        examples: int = 0,
        minibatches: int = 0,
        skipped: Mapping[int, int] | None = None,
    ) -> Snapshot:
        """Return how far the fit has come, with what was trained of the cursor's epoch."""
        trained = (
            examples + sum(record.examples for record in self.records),
            minibatches + sum(record.minibatches for record in self.records),
        )
        left_out = dict(self.skipped if skipped is None else skipped)
        return Snapshot(cursor, iteration, examples, minibatches, trained, self.seconds, tuple(self.records), left_out)


def _check_skipped(record: EpochRecord) -> None:
    """Tell of minibatches that were left out; of an epoch that had no others nothing was learnt, which is an error."""
    if not record.skipped:
        return
    if record.skipped == record.minibatches:
        raise NonFiniteError(
            f"all {record.skipped} minibatches of epoch {record.epoch} were left out, since their losses or gradients "
            "are NaN or infinite; the workers' logs say which: lower the learning rate, or clean the data"
        )
    logger.warning(
        "epoch %d: %d of %d minibatches were left out, since their losses or gradients are NaN or infinite",
        record.epoch,
        record.skipped,
        record.minibatches,
    )
