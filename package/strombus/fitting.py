"""One fit from data to result: open the data, let the master train, keep the books, tell the callbacks."""

from __future__ import annotations

import logging
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from strombus.callbacks import Callback, EpochRecord, FitPlan
from strombus.checkpointing import Keeper, Snapshot, layout_of
from strombus.data import NativeCollection, Source, count_objects, open_source
from strombus.errors import DataError, EmptyDataError, StrombusWarning
from strombus.executors.base import Executor
from strombus.exporting import readable_source
from strombus.masters.base import TrainingMaster
from strombus.masters.job import Progress, SavedByMembers, TrainingJob
from strombus.networks import Network
from strombus.runs import Checkpoint
from strombus.stats import Recorder, TrainingStats
from strombus.types import Cursor, NetworkState

__all__ = ["Fit", "FitResult"]

logger = logging.getLogger(__name__)

Readable = Source | NativeCollection


@dataclass(frozen=True)
class FitResult:
    """What a fit came to.

    Parameters
    ----------
    network : Network
        The trained network, the one the trainer holds.
    epochs : tuple of EpochRecord
    examples, minibatches : int
        Trained in this fit, over all workers and epochs.
    seconds : float
    seed : int
        The seed that governed the fit; give it as ``rng_seed`` to repeat it.
    stats : TrainingStats
        Timed phases; empty unless ``collect_training_stats``.
    stopped_by : str or None
        The class of the callback that said that the fit should end.
    """

    network: Network
    epochs: tuple[EpochRecord, ...]
    examples: int
    minibatches: int
    seconds: float
    seed: int
    stats: TrainingStats = field(repr=False)
    stopped_by: str | None = None

    @property
    def score(self) -> float:
        """The last epoch's score; NaN when nothing was trained."""
        return self.epochs[-1].score if self.epochs else float("nan")


class Fit:
    """One call of ``Trainer.fit``; the master's `Observer`.

    Parameters
    ----------
    network, master, executor
        What trains how and where.
    callbacks : sequence of Callback
    validate : callable
        Returns the validation figures of a source.
    trainer : Trainer
        For callbacks.
    keeper : Keeper, optional
        For a fit with a name, what writes its checkpoints and finds the one to go on from.
    carried : object
        What the trainer's last fit left (`TrainingJob.carried`); after `run`, what this one leaves.
    """

    def __init__(
        self,
        network: Network,
        master: TrainingMaster,
        executor: Executor,
        callbacks: Sequence[Callback],
        validate: Callable[[Readable], Mapping[str, float]],
        *,
        trainer: Any = None,
        keeper: Keeper | None = None,
        carried: Any = None,
    ) -> None:
        self.trainer, self.keeper = trainer, keeper
        self.carried = carried
        self.network, self.master, self.executor = network, master, executor
        self.callbacks, self.validate = callbacks, validate
        self.stats = TrainingStats()
        self.seed = master.rng_seed if master.rng_seed is not None else secrets.randbits(31)
        self._recorder = Recorder(master.collect_training_stats, stats=self.stats)
        if master.collect_training_stats:
            self.stats.about |= {"backend": executor.name, "master": master.name}
        self._validation: Readable | None = None
        self._records: list[EpochRecord] = []
        self._iteration = network.iteration
        self._trained = [0, 0]  # examples and minibatches of all epochs
        self._stopped_by: str | None = None
        self._fault: Exception | None = None
        self._start = time.perf_counter()
        self._seconds = 0.0  # that the fit had taken when it was cut off
        self._cursor: Cursor | None = None
        self._begun = (0, 0)  # examples and minibatches of the cursor's epoch by then
        self._start_epoch()

    def run(self, data: Any, epochs: int, validation: Any) -> FitResult:
        """Train and return what it came to; the network has the last epoch's parameters."""
        with ExitStack() as stack:
            try:
                with self._recorder.phase("export"):
                    source = stack.enter_context(self._open(data))
            except EmptyDataError as error:
                logger.warning("nothing was trained: %s", error)
            else:
                if validation is not None:
                    with self._recorder.phase("export"):
                        self._validation = stack.enter_context(self._open(validation, not self.master.validates))
                    if isinstance(self._validation, Source) and not self._validation.rows:
                        raise EmptyDataError("the validation data holds no examples")
                    _check_labels(self._validation, "the validation data")
                self._train(source, epochs)
        return FitResult(
            self.network,
            tuple(self._records),
            self._trained[0],
            self._trained[1],
            self._elapsed(),
            self.seed,
            self.stats,
            self._stopped_by,
        )

    def _open(self, data: Any, native: bool = True) -> AbstractContextManager[Readable]:
        """Open data for the workers: what is not yet in Zarr is exported, or used where it lies in memory.

        `native` says whether what an engine holds may stay there.
        """
        master, source = self.master, open_source(data)
        direct = master.rdd_training_approach == "Direct"
        if isinstance(source, NativeCollection):
            self._compare_sizes(source)
            if direct and native:
                return nullcontext(source)
            direct = False
        return readable_source(
            source,
            self.executor,
            export=not direct,
            directory=master.export_directory,
            batch_size=master.batch_size_per_worker,
        )

    def _compare_sizes(self, source: NativeCollection) -> None:
        declared = self.master.rdd_data_set_num_examples
        if declared is None:
            return
        objects, rows = next(iter(self.executor.map(count_objects, source.partitions()[:1])))
        if objects and not declared / 2 <= rows / objects <= declared * 2:
            warnings.warn(
                f"rdd_data_set_num_examples says {declared} rows an object, the first partition has "
                f"{rows / objects:.1f}; the measured sizes are used",
                StrombusWarning,
                stacklevel=5,
            )

    def _train(self, source: Readable, epochs: int) -> None:
        with self._recorder.phase("count"):
            rows = source.rows if isinstance(source, Source) else sum(source.counts(self.executor))
        if not rows:
            logger.warning("nothing was trained: the data holds no examples")
            return
        _check_labels(source, "the data")
        workers, first_epoch, end = self._workers(), self.network.epoch, self.network.epoch + epochs
        resumed = None if self.keeper is None else self._go_on(self.keeper, source, rows, workers)
        saves = self.keeper is not None and self.master.writes_checkpoints
        job = TrainingJob(
            self.network,
            source,
            self.executor,
            workers=workers,
            epochs=end - (first_epoch if self._cursor is None else self._cursor.epoch),
            seed=self.seed,
            observer=self,
            first_epoch=first_epoch if self._cursor is None else self._cursor.epoch,
            stats=self.stats,
            validation=self._validation if self.master.validates and isinstance(self._validation, Source) else None,
            waits=not all(callback.passive for callback in self.callbacks),
            carried=self.carried,
            cursor=self._cursor,
            saving=self.keeper.saving(first_epoch) if self.keeper is not None and saves else None,
            resumed=resumed if saves else None,
        )
        with ExitStack() as stack:
            plan = FitPlan(
                job.epochs,
                rows,
                job.workers,
                self.executor.name,
                trainer=self.trainer,
                validation=self._validation,
                run=None if self.keeper is None else self.keeper.run,
                seed=self.seed,
            )
            for callback in self.callbacks:
                with self._calling(callback, "on_fit_start"):
                    callback.on_fit_start(plan)
                stack.callback(self._end, callback)
            self._started = time.perf_counter()
            if self._recorder.enabled:
                self.stats.about["workers"] = job.workers
            try:
                if job.epochs:
                    with self._recorder.phase("train"):
                        state = self.master.train(job)
                    self.network.load_state(state)
                    self.carried = job.carried
            except Exception as error:
                self._fail(error)
            iteration = self.network.iteration
        if self.network.iteration != iteration:  # a callback has put another state into it
            self.carried = None

    def _go_on(self, keeper: Keeper, source: Readable, rows: int, workers: int) -> Checkpoint | None:
        """Agree with what the run directory says of the fit; go on where an earlier process was cut off."""
        native = not isinstance(source, Source)
        facts = {"backend": self.executor.name, "workers": workers, "examples": rows, "seed": self.seed}
        seed = keeper.agree(facts)
        if seed is not None:
            self.seed = seed
        layout = layout_of(source.counts(self.executor) if isinstance(source, NativeCollection) else source.blocks())
        found = keeper.find(self.network, self.callbacks, layout, workers if native else None)
        if found is None:
            return None
        checkpoint, past = found
        self._records, self._trained, self._seconds = list(past.records), list(past.trained), past.seconds
        self._iteration, self._cursor = past.iteration, past.cursor
        self._examples, self._minibatches = self._begun = past.examples, past.minibatches
        return checkpoint

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

    def _fail(self, error: Exception) -> None:
        """Tell the callbacks of an error, and raise it unless one of them takes it for the fit's end."""
        told, takers = self._fault or error, []
        self.carried = None
        for callback in self.callbacks:
            with self._calling(callback, "on_error"):
                if callback.on_error(told) is True:
                    takers.append(type(callback).__name__)
        if self._fault is not None:
            raise self._fault
        if not takers:
            raise error
        self._stopped_by = takers[0]

    def _workers(self) -> int:
        count = self.master.count_workers(self.executor.capacity())
        if count is None:
            logger.warning(
                "%s does not say how many slots it has: training with one worker; give the master workers=N",
                self.executor.name,
            )
        return count or 1

    # -- what the master tells -------------------------------------------------------------------

    def on_round(self, progress: Progress) -> bool:
        """Add a round to the epoch's figures, and ask the callbacks whether to stop."""
        if self.keeper is not None:
            self.keeper.run.check()
        self._examples += progress.examples
        self._minibatches += progress.minibatches
        self._trained[0] += progress.examples
        self._trained[1] += progress.minibatches
        self._iteration = progress.iteration
        self._score = self.network.score = progress.score
        for callback in self.callbacks:
            with self._calling(callback, "on_round"):
                self._heed(callback, callback.on_round(progress))
        return self._stopped_by is not None

    def checkpoint_is_due(self) -> bool:
        """Say whether the run directory should get a checkpoint of where training stands."""
        return self.keeper is not None and self.keeper.is_due(self._iteration)

    def on_checkpoint(self, state: NetworkState, cursor: Cursor) -> None:
        """Write a checkpoint from within an epoch."""
        assert self.keeper is not None
        self.keeper.write(
            self.network, state, self._snapshot(cursor, state.iteration, self._examples, self._minibatches)
        )

    def on_saved(self, saved: SavedByMembers) -> None:
        """Complete a checkpoint whose files the workers have written."""
        assert self.keeper is not None
        goes_on = self._cursor is not None and self._cursor.epoch == saved.cursor.epoch
        before = self._begun if goes_on else (0, 0)
        examples, minibatches = before[0] + saved.examples, before[1] + saved.minibatches
        self.keeper.complete(self._snapshot(saved.cursor, saved.step, examples, minibatches), saved)

    def _snapshot(self, cursor: Cursor, iteration: int, examples: int = 0, minibatches: int = 0) -> Snapshot:
        """Return how far the fit has come, with what was trained of the cursor's epoch."""
        trained = (
            examples + sum(record.examples for record in self._records),
            minibatches + sum(record.minibatches for record in self._records),
        )
        return Snapshot(cursor, iteration, examples, minibatches, trained, self._elapsed(), tuple(self._records))

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._start

    def _heed(self, callback: Callback, stop: bool | None) -> None:
        """Keep the first callback that has ended the fit."""
        if stop is True and self._stopped_by is None:
            self._stopped_by = type(callback).__name__

    def on_epoch(
        self,
        epoch: int,
        state: NetworkState | None,
        validation: Mapping[str, float] | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Give the network the epoch's parameters, validate, and ask the callbacks whether to stop."""
        if state is not None:
            self.network.load_state(state)
        self.network.epoch = epoch + 1
        if validation is None and self._validation is not None:
            with self._recorder.phase("validate"):
                validation = self.validate(self._validation)
        record = EpochRecord(
            epoch=epoch + 1,
            iteration=self._iteration if state is None else state.iteration,
            examples=self._examples,
            minibatches=self._minibatches,
            score=self._score,
            seconds=time.perf_counter() - self._started if seconds is None else seconds,
            validation=validation or {},
        )
        self._records.append(record)
        self._note(record)
        self._start_epoch()
        for callback in self.callbacks:
            with self._calling(callback, "on_epoch_end"):
                self._heed(callback, callback.on_epoch_end(record))
        if state is not None and not self.master.writes_checkpoints and self._stopped_by is None:
            self._keep_epoch(epoch, state)
        return self._stopped_by is not None

    def _keep_epoch(self, epoch: int, state: NetworkState) -> None:
        if self.keeper is not None and self.keeper.epoch_is_due(len(self._records), state.iteration):
            self.keeper.write(self.network, state, self._snapshot(Cursor(epoch + 1), state.iteration))

    def _note(self, record: EpochRecord) -> None:
        """Keep an epoch's figures with the timed phases."""
        names = ("epoch", "iteration", "examples", "minibatches", "score", "validation")
        began = time.time() - (time.perf_counter() - self._started)
        self._recorder.note("epoch", began, record.seconds, {name: getattr(record, name) for name in names})

    def _start_epoch(self) -> None:
        self._examples = self._minibatches = 0
        self._score = float("nan")
        self._started = time.perf_counter()


def _check_labels(source: Readable, what: str) -> None:
    """Raise DataError for rows without labels; those that a transform may add are the workers' business."""
    labelled = not isinstance(source, Source) or source.transform or {"labels", "labels_0"} & source.columns.keys()
    if not labelled:
        raise DataError(f"fitting and scoring need labels, {what} has features alone")
