"""One fit from data to result: open the data, let the master train, and again where workers were lost."""

from __future__ import annotations

import hashlib
import logging
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from strombus.callbacks import Callback, FitPlan
from strombus.data import NativeCollection, Source, StreamSource, count_objects, open_source
from strombus.errors import EmptyDataError, GangUnavailable, MemberLost, StrombusWarning
from strombus.executors.base import Executor
from strombus.exporting import readable_source
from strombus.files import join, normalise
from strombus.fitting.aside import set_aside
from strombus.fitting.attempts import Attempts
from strombus.fitting.checking import check_labels
from strombus.fitting.checkpointing import Keeper, layout_of
from strombus.fitting.interrupting import Interruption
from strombus.fitting.observing import Books
from strombus.fitting.result import FitResult
from strombus.fitting.settings import dealing_of
from strombus.fitting.stepping import in_steps, length_of, record_of
from strombus.masters.base import TrainingMaster
from strombus.masters.job import Remainder, TrainingJob
from strombus.networks import Network
from strombus.runs import Checkpoint
from strombus.stats import Recorder, Relay, TrainingStats
from strombus.types import Cursor, EpochLength

__all__ = ["Fit"]

logger = logging.getLogger(__name__)

Readable = Source | NativeCollection

_GRACE = 5.0
"""Seconds in which a fit without a name must have stopped."""


class Fit:
    """One call of ``Trainer.fit``.

    Parameters
    ----------
    network, master, executor
        What trains how and where.
    callbacks : sequence of Callback
    validate : callable
        Returns the validation figures of a source; of another network on another executor, where these are given.
    trainer : Trainer
        For callbacks.
    keeper : Keeper, optional
        For a fit with a name, what writes its checkpoints and finds the one to go on from.
    carried : object
        What the trainer's last fit left (`TrainingJob.carried`); after `run`, what this one leaves.
    readable : callable
        Makes what not every worker can read readable for the time of the fit, as `readable_source` does.
    steps : int, optional
        Steps of each worker after which an epoch ends; otherwise it ends with the data.
    beside : bool
        Whether epochs are validated beside training, where slots are free.
    """

    def __init__(
        self,
        network: Network,
        master: TrainingMaster,
        executor: Executor,
        callbacks: Sequence[Callback],
        validate: Callable[..., Mapping[str, float]],
        *,
        trainer: Any = None,
        keeper: Keeper | None = None,
        carried: Any = None,
        readable: Callable[..., AbstractContextManager[Source]] = readable_source,
        steps: int | None = None,
        beside: bool = False,
    ) -> None:
        self._attempts = Attempts(master.recovery(), executor, keeper is not None)
        self.trainer, self.keeper, self.carried = trainer, keeper, carried
        self._earlier, self._gangs = carried, 0
        self._readable, self._steps, self._beside = readable, steps, beside
        self._length: EpochLength | None = None
        self.network, self.master, self.executor = network, master, executor
        self.stats = TrainingStats()
        self.seed = master.rng_seed if master.rng_seed is not None else secrets.randbits(31)
        self._relay = Relay()
        self._recorder = Recorder(master.collect_training_stats, stats=self.stats)
        if master.collect_training_stats:
            self.stats.about |= {"backend": executor.name, "master": master.name}
        self._validate = validate
        self._validation: Readable | None = None
        grace = _GRACE if keeper is None else keeper.config.grace_seconds
        self._interruption = Interruption(grace, self._saved)
        self._books = Books(
            network,
            callbacks,
            self._recorder,
            self._figures,
            keeper,
            not master.writes_checkpoints,
            self._interruption,
        )

    def _figures(self) -> Mapping[str, float]:
        if self._validation is None:
            return {}
        with self._recorder.phase("validate"):
            return self._validate(self._validation)

    def run(self, data: Any, epochs: int, validation: Any) -> FitResult:
        """Train and return what it came to; the network has the last epoch's parameters.

        Raises
        ------
        KeyboardInterrupt, FitInterrupted
            When SIGINT or SIGTERM came, see `Interruption`.
        """
        with self._interruption, self._relay, ExitStack() as stack:
            try:
                workers = None
                if self._steps is not None:
                    workers = self._workers()
                    self._length = length_of(self._steps, self.master, workers, self.keeper)
                with self._recorder.phase("export"):
                    source = stack.enter_context(self._open(data, keep=self._where_to_export(), epochs=epochs))
            except EmptyDataError as error:
                logger.warning("nothing was trained: %s", error)
            else:
                if validation is not None:
                    with self._recorder.phase("export"):
                        self._validation = stack.enter_context(self._open(validation, not self.master.validates))
                    if isinstance(self._validation, Source) and not self._validation.rows:
                        raise EmptyDataError("the validation data holds no examples")
                    check_labels(self._validation, "the validation data")
                self._train(source, epochs, workers)
        books = self._books
        return FitResult(
            self.network,
            tuple(books.records),
            books.trained[0],
            books.trained[1],
            books.seconds,
            self.seed,
            self.stats,
            books.stopped_by,
            tuple(self._attempts.failures),
            dict(sorted(books.skipped.items())),
        )

    def _where_to_export(self) -> str | None:
        """Return where the data of a fit that may be gone on with is exported; None for one without a name."""
        if self.keeper is None:
            return None
        run, directory = self.keeper.run, self.master.export_directory
        if directory is None:
            return run.file("export")
        return join(normalise(directory), f"strombus-{hashlib.sha256(run.path.encode()).hexdigest()[:16]}")

    def _open(
        self, data: Any, native: bool = True, keep: str | None = None, epochs: int = 0
    ) -> AbstractContextManager[Readable]:
        """Open data for the workers: what is not yet in Zarr is exported, or used where it lies in memory.

        `native` says whether what an engine holds may stay there, `keep` where an export lies that is kept; `epochs`
        is how many are trained, 0 for what only scores.
        """
        master, source = self.master, open_source(data)
        direct = master.rdd_training_approach == "Direct"
        if self._length is not None and epochs:
            source = in_steps(source, self._length, epochs, self.executor, direct)
        if isinstance(source, NativeCollection):
            self._compare_sizes(source)
            if direct and native:
                return nullcontext(source)
            direct = False
        return self._readable(
            source,
            self.executor,
            export=not direct,
            directory=master.export_directory,
            keep=keep,
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

    def _train(self, source: Readable, epochs: int, workers: int | None) -> None:
        with self._recorder.phase("count"):
            rows = source.rows if isinstance(source, Source) else sum(source.counts(self.executor))
        if not rows:
            logger.warning("nothing was trained: the data holds no examples")
            return
        if self.network.training_step is None:
            check_labels(source, "the data")
        workers, span = workers or self._workers(), range(self.network.epoch, self.network.epoch + epochs)
        if self._beside and self._validation is not None:
            validate = partial(self._validate, self._validation)
            self.executor, self._books.aside = set_aside(self.executor, workers, validate, self.master.validates)
        if self.keeper is not None:
            facts: dict[str, Any] = {"backend": self.executor.name, "workers": workers, "seed": self.seed}
            if not isinstance(source, StreamSource):
                facts["examples"] = rows
            if self._length is not None:
                facts["epoch_length"] = record_of(self._length, self.master)
            self.seed = self.keeper.agree(facts)
            span = range(self.keeper.first_epoch - 1, self.keeper.first_epoch - 1 + epochs)
        while (failure := self._attempt(self._job(source, workers, span), rows)) is not None:
            if isinstance(failure, MemberLost) and self._all_is_saved(span.stop):  # nobody is needed any more
                self._attempts.failures.append(str(failure))
                logger.warning("the last checkpoint is the fit's result: %s", failure)
            else:
                workers = self._attempts.begin(workers, failure)

    def _job(self, source: Readable, workers: int, span: range) -> TrainingJob:
        """Return what is to be done of the epochs `span`: all, or what an earlier attempt has left."""
        keeper, saves = self.keeper, self.master.writes_checkpoints
        checkpoint = None if keeper is None else self._go_on(keeper, source, workers)
        cursor = self._books.cursor or Cursor(span.start)
        aside = self._books.aside is not None
        inside = self.master.validates and not aside
        return TrainingJob(
            self.network,
            source,
            self.executor,
            workers=workers,
            epochs=span.stop - cursor.epoch,
            seed=self.seed,
            observer=self._books,
            first_epoch=cursor.epoch,
            stats=self.stats,
            validation=self._validation if inside and isinstance(self._validation, Source) else None,
            waits=not aside and not all(callback.passive for callback in self._books.callbacks),
            hands_over=aside,
            carried=self._earlier,
            cursor=cursor,
            saving=keeper.saving(span.start) if keeper is not None and saves else None,
            resumed=checkpoint if saves else None,
            left_out=self._attempts.left_out,
            survives=self._attempts.survives,
            relay=self._relay,
            length=None if self._length is None else replace(self._length, began=span.start),
        )

    def _go_on(self, keeper: Keeper, source: Readable, workers: int) -> Checkpoint | None:
        """Go on where an earlier attempt was cut off, in this process or another."""
        if native := isinstance(source, NativeCollection):
            layout = layout_of(source.counts(self.executor), dealing_of(keeper.settings))
        else:
            keeps_parts = self.master.choose_repartitioner(source, workers).keeps_parts
            more = [self._length.rows] if self._length is not None else []
            layout = layout_of(source.blocks(), self.master.shuffle, keeps_parts, *more, *filter(None, [source.mark]))
        found = keeper.find(self.network, self._books.callbacks, layout, workers if native else None)
        if found is None:
            return None
        self._books.go_on(found[1])
        return found[0]

    def _attempt(self, job: TrainingJob, rows: int) -> Exception | None:
        """Train; return the error after which another attempt is made."""
        plan = FitPlan(
            job.epochs,
            rows if job.length is None else job.length.rows,
            job.workers,
            self.executor.name,
            trainer=self.trainer,
            validation=self._validation,
            run=None if self.keeper is None else self.keeper.run,
            seed=self.seed,
        )
        failure: Exception | None = None
        with self._books.told(plan):
            if self._recorder.enabled:
                self.stats.about["workers"] = job.workers
            try:
                self._books.keep_start()
                following: TrainingJob | None = job
                while following is not None and (following.epochs or following.resumed is not None):
                    following = self._run(following)
            except Exception as error:
                if self._interruption.asked:
                    raise KeyboardInterrupt from error
                if self._goes_on(error, job):
                    failure = error
                else:
                    self.carried = None
                    self._books.fail(error)  # raises it again, unless a callback takes it for the fit's end
            iteration = self.network.iteration
        if self.network.iteration != iteration:  # a callback has put another state into it
            self.carried = None
        return failure

    def _run(self, job: TrainingJob) -> TrainingJob | None:
        """Train; return what is left to do by those who are there, where workers were lost or others may join."""
        ended, self._gangs = len(self._books.records), self._gangs + 1
        try:
            with self._interruption.deferred():
                with self._books.settled(), self._recorder.phase("train"):
                    state = self.master.train(job)
                self.network.load_state(state)
        except (MemberLost, GangUnavailable) as error:
            # The network is as it was when the job began, unless an epoch has ended since.
            first = self._gangs == 1 and isinstance(error, GangUnavailable)  # there never were as many
            stays = not job.survives or self._books.driver_failed or self._interruption.asked
            if first or stays or len(self._books.records) > ended:
                raise
            self._books.take_up(job.cursor or Cursor(job.first_epoch))
            return self._regrouped(job, error, str(error))
        self._interruption.obey()
        self.carried = job.carried
        for loss in job.losses:
            logger.warning("%s", loss)
        self._attempts.failures += job.losses
        return None if job.left is None else self._after(job, job.left)

    def _after(self, job: TrainingJob, left: Remainder) -> TrainingJob | None:
        """Return what is left of a job whose members have left their gang; None when nothing is."""
        self._books.take_up(left.cursor, left.examples, left.minibatches)
        if self._books.stopped_by is not None:
            return None
        cursor, end = left.cursor, job.first_epoch + job.epochs
        job = replace(job, cursor=cursor, first_epoch=cursor.epoch, epochs=end - cursor.epoch, resumed=None, left=None)
        why = "; ".join(map(str, left.lost))
        again = f"; {left.again} rows of epoch {cursor.epoch + 1} that it had were dealt anew" if left.again else ""
        return self._regrouped(job, left.lost[0] if left.lost else None, why + again)

    def _regrouped(self, job: TrainingJob, lost: Exception | None, why: str) -> TrainingJob:
        """Return what a job has left, if anything, as one for as many workers as there are now."""
        there = partial(self.master.count_there, self.executor)
        workers = self._attempts.regroup(there if job.epochs else None, lost, why)
        saving = None if job.saving is None or self.keeper is None else self.keeper.saving(job.saving.began)
        return replace(job, workers=workers, saving=saving, survives=self._attempts.survives)

    def _saved(self) -> str:
        """Say what is left of a fit that was stopped."""
        epochs = f"the network has the parameters of {self.network.epoch} finished epochs"
        if self.keeper is None:
            return f"{epochs}, and nothing was written: give fit a name to have checkpoints"
        if self.keeper.latest is None:
            return f"{epochs}, and no checkpoint was written"
        place = f"its last checkpoint, of step {self.keeper.latest.iteration}, is in {self.keeper.run.path}"
        return f"{place}; run the same command to go on"

    def _goes_on(self, error: Exception, job: TrainingJob) -> bool:
        """Say whether another attempt is made after `error`.

        Where a member was lost when all had been trained and saved, one that trains nothing costs nothing: it only
        brings the members' states together.
        """
        if self._books.driver_failed:
            return False
        saved = job.epochs > 0 and self._all_is_saved(job.first_epoch + job.epochs)
        return (isinstance(error, MemberLost) and saved) or self._attempts.goes_on(error)

    def _all_is_saved(self, end: int) -> bool:
        """Say whether the latest checkpoint is of the fit's end."""
        latest = None if self.keeper is None else self.keeper.latest
        return latest is not None and latest.cursor.epoch == end

    def _workers(self) -> int:
        count = self.master.count_workers(self.executor.capacity())
        if count is None:
            logger.warning(
                "%s does not say how many slots it has: training with one worker; give the master workers=N",
                self.executor.name,
            )
        return count or 1
