"""Trainer: the one face users hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Literal, Self

from strombus.callbacks import Callback, JsonLinesLogger, show_progress
from strombus.callbacks.base import check_callbacks
from strombus.data import Source
from strombus.errors import ConfigurationError, ExecutorError, hide_credentials, kind_of
from strombus.evaluation import Evaluation
from strombus.evaluation.request import Request
from strombus.executors import resolve
from strombus.executors.base import Executor
from strombus.executors.local import LocalExecutor
from strombus.exporting import readable_source
from strombus.fitting.checking import check_losses, whole_number
from strombus.fitting.checkpointing import Keeper
from strombus.fitting.display import show_trainer
from strombus.fitting.explaining import Explanation, explain_fit
from strombus.fitting.fit import Fit
from strombus.fitting.recording import count_known, describe, record_result, restore_result
from strombus.fitting.result import FitResult
from strombus.fitting.stepping import check_steps_per_epoch
from strombus.fitting.trying import check_steps, try_out
from strombus.inference import Inference
from strombus.masters.base import TrainingMaster
from strombus.networks import Network
from strombus.runs import CheckpointConfig, open_run, read_result
from strombus.scoring import Scoring
from strombus.stats import TrainingStats

__all__ = ["Trainer"]


class Trainer(Scoring):
    """Train, score, evaluate and predict with one network on one backend.

    Parameters
    ----------
    network : Network
        A `MultiLayerNetwork` or `ComputationGraph`; training changes it in place.
    master : TrainingMaster, optional
        How to train; None will do for scoring, evaluation and inference.
    backend : str or object
        ``"auto"``, ``"local"``, ``"dask"``, ``"spark"``, a ``distributed.Client``, a scheduler's address,
        a SparkSession, a SparkContext, or an `Executor`. What Strombus did not open it never closes.

    Examples
    --------
    >>> with Trainer(network, master, backend="dask") as trainer:  # doctest: +SKIP
    ...     trainer.fit("digits.zarr", epochs=5)
    """

    def __init__(self, network: Network, master: TrainingMaster | None = None, backend: Any = "auto") -> None:
        if master is not None and not isinstance(master, TrainingMaster):
            raise ConfigurationError(f"master must be a TrainingMaster or None, got {kind_of(master)}")
        self.network = network
        self.master = master
        self.stats = TrainingStats()
        self._executor: Executor | None = None
        self._stand_in: Executor | None = None
        self._last: FitResult | None = None
        self._closed, self._owned = False, not isinstance(backend, Executor)
        self._backend = backend

    @property
    def network(self) -> Network:
        """The network; another one may be set, and what the last fit left for the next one is forgotten then."""
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        if not isinstance(network, Network):
            raise ConfigurationError(
                f"network must be a MultiLayerNetwork or ComputationGraph, got {kind_of(network)}; "
                "wrap an nn.Module: strombus.MultiLayerNetwork(module, loss, optimizer)"
            )
        self._network = network
        self._carried: Any = None

    @property
    def executor(self) -> Executor:
        """The backend's executor, opened on first use.

        While shared training keeps its workers busy, that is for callbacks, it is one that runs in this process.
        """
        if self._stand_in is not None:
            return self._stand_in
        if self._closed:
            raise ExecutorError("this Trainer is closed; make a new one with the same network")
        if self._executor is None:
            workers = self.master.workers if self.master is not None else None
            executor = resolve(self._backend, workers)
            try:
                executor.check()
            except BaseException:
                if self._owned:
                    executor.close()
                raise
            self._executor = executor
        return self._executor

    @property
    def score(self) -> float:
        """The score of the last training round; 0.0 before any training, as in DL4J."""
        return 0.0 if self.network.score is None else self.network.score

    def fit(
        self,
        data: Any,
        epochs: int = 1,
        validation: Any = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        *,
        name: str | None = None,
        storage_path: str | os.PathLike[str] | None = None,
        checkpoint: CheckpointConfig | None = None,
        accept_changes: bool = False,
        fast_dev_run: bool | int = False,
        steps_per_epoch: int | None = None,
        validation_mode: Literal["inline", "async"] = "inline",
    ) -> FitResult:
        """Train for a number of epochs; a second call goes on where the first ended.

        Parameters
        ----------
        data : path, URI, arrays, Dataset, iterable, Bag or RDD
            Everything `strombus.data` can open; with `steps_per_epoch` a stream too (`strombus.data.stream`).
        epochs : int
            At least 1.
        validation : like `data`, optional
            Scored after each epoch; for classifiers the accuracy is given too.
        callbacks : sequence of Callback
        progress : bool
            Show a bar on a terminal, a table in a notebook, lines elsewhere.
        name : str, optional
            Gives the fit a directory ``storage_path/name`` with its options, metrics, checkpoints, network and result.
            The same fit with the same name goes on where it was cut off, or returns its result where it has ended.
            Without a name nothing is written.
        storage_path : path or URI, optional
            ``strombus-runs`` in the working directory by default.
        checkpoint : CheckpointConfig, optional
            When a fit with a name writes checkpoints; after each epoch by default.
        accept_changes : bool
            Go on with a run that was begun with other settings.
        fast_dev_run : bool or int
            Try it all with two minibatches on every worker, or so many, and as many rows of the validation data: on
            the real backend, with the first of the real rows. It leaves no trace: no run directory, no checkpoint,
            nothing in this trainer; the network is as it was. Metric loggers and early stopping are left out.
        steps_per_epoch : int, optional
            Minibatches of each worker after which an epoch ends; the next one goes on in the data, or in the stream.
            By default an epoch is all of the data.
        validation_mode : {"inline", "async"}
            "inline": an epoch is validated before the next one begins. "async": on slots that the master's workers
            leave free, while the next one is trained; callbacks hear of an epoch when its figures are there, in the
            order of epochs. Without such slots a warning says so, and validation is inline.

        Raises
        ------
        ConfigurationError
            Without a master, optimizer or loss, for fewer than one epoch, or when another fit trains this network now.
        RunError
            When the name is in use, or was given to a fit with other settings.
        DataError, TaskError, FitInterrupted
            When the data cannot be used, a worker fails, or SIGTERM comes (Ctrl-C: KeyboardInterrupt).
        """
        epochs, steps_per_epoch = whole_number("epochs", epochs), check_steps_per_epoch(steps_per_epoch)
        master = self._master_to_fit(validates=validation is not None)
        if name is None and (storage_path is not None or checkpoint is not None):
            raise ConfigurationError("storage_path and checkpoint are for a fit with a name; give fit a name too")
        if checkpoint is not None and checkpoint.best is not None and validation is None:
            raise ConfigurationError(f"best={checkpoint.best!r} is a figure of the validation data: give fit some")
        if validation_mode not in ("inline", "async"):
            raise ConfigurationError(f"validation_mode must be 'inline' or 'async', got {validation_mode!r}")
        if steps := check_steps(fast_dev_run):
            return try_out(self, steps, data, validation, check_callbacks(callbacks), progress)
        with self.network.kept_for_a_fit(), ExitStack() as stack:
            callbacks = check_callbacks(callbacks)
            watchers, keeper = [*callbacks, *([show_progress()] if progress else [])], None
            if name is not None:
                settings = describe(self.network, master, epochs, steps_per_epoch)
                if (finished := read_result(name, storage_path)) is not None:
                    settings |= count_known(data)
                    return restore_result(finished, self.network, settings, accept_changes, callbacks)
                run = stack.enter_context(open_run(name, storage_path))
                keeper = Keeper(run, checkpoint or CheckpointConfig(), settings, accept_changes)
                watchers.append(JsonLinesLogger())
            parts = self.network, master, self.executor, watchers, self._validation_figures
            more: dict[str, Any] = {
                "trainer": self,
                "keeper": keeper,
                "carried": self._carried,
                "steps": steps_per_epoch,
                "beside": validation_mode == "async",
            }
            fit = Fit(*parts, readable=self._readable, **more)
            self._carried = None  # a fit that fails leaves nothing behind
            if master.validates:
                self._stand_in = stack.enter_context(LocalExecutor(1))
            try:
                result = fit.run(data, epochs, validation)
            finally:
                self._stand_in = None
                self.stats.merge(fit.stats)
            self._carried, self._last = fit.carried, result
            if keeper is not None:
                record_result(keeper, result)
            return result

    def explain(
        self,
        data: Any,
        epochs: int = 1,
        validation: Any = None,
        *,
        name: str | None = None,
        storage_path: str | os.PathLike[str] | None = None,
        checkpoint: CheckpointConfig | None = None,
        steps_per_epoch: int | None = None,
    ) -> Explanation:
        """Return what `fit` with these arguments is going to do: who trains what, what is sent, what is written where.

        Nothing is trained, exported or written. Rows that an engine holds are counted there, a pass over them for a
        Bag or an RDD. Its text is for ``print``; a notebook shows it as a table.
        """
        epochs, steps_per_epoch = whole_number("epochs", epochs), check_steps_per_epoch(steps_per_epoch)
        master = self._master_to_fit(validates=validation is not None)
        what = self.network, master, self.executor, data, epochs, validation
        kept: dict[str, Any] = {"name": name, "storage_path": storage_path, "checkpoint": checkpoint}
        return explain_fit(*what, **kept, steps_per_epoch=steps_per_epoch)

    def _readable(self, source: Any, executor: Executor, **options: Any) -> AbstractContextManager[Source]:
        return readable_source(source, executor, **options)

    def _validation_figures(
        self, source: Any, network: Network | None = None, executor: Executor | None = None
    ) -> dict[str, float]:
        """Return the figures of the network, or of a copy of it on another executor."""
        scored, ours = network or self.network, self._inference
        inference = ours if network is None else Inference(scored, executor or self.executor, *ours.options)
        figures = {"score": inference.calculate_score(source, finite=False)}
        if scored.classifies:
            request = Request([Evaluation()])
            figures["accuracy"] = request.answer(inference.run_metrics(source, request, 64))[0].accuracy()
        return figures

    def _master_to_fit(self, validates: bool) -> TrainingMaster:
        if self.master is None:
            raise ConfigurationError(
                "fit needs a training master; give one: Trainer(network, ParameterAveragingTrainingMaster(...))"
            )
        if self.network.optimizer is None:
            raise ConfigurationError(
                "fit needs an optimizer; give the network one: optimizer=functools.partial(torch.optim.SGD, lr=0.1)"
            )
        check_losses(self.network, validates)
        return self.master

    def __repr__(self) -> str:
        master = None if self.master is None else type(self.master).__name__
        backend = repr(hide_credentials(self._backend)) if isinstance(self._backend, str) else kind_of(self._backend)
        return f"Trainer({self.network!r}, {master}, backend={backend})"

    def _repr_html_(self) -> str:
        return show_trainer(self.network, self.master, self._backend, self._executor, self._last)

    def close(self) -> None:
        """Close the backend if this trainer opened it."""
        if self._executor is not None and self._owned:
            self._executor.close()
        self._executor, self._closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
