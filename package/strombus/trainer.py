"""Trainer: the one face users hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self, TypeVar

from strombus.callbacks import Callback, JsonLinesLogger, ProgressBar
from strombus.callbacks.base import check_callbacks
from strombus.checkpointing import Keeper
from strombus.data import Source
from strombus.errors import ConfigurationError, ExecutorError, kind_of
from strombus.evaluation import ROC, Evaluation, RegressionEvaluation, ROCMultiClass
from strombus.evaluation.request import Request
from strombus.executors import resolve
from strombus.executors.base import Executor
from strombus.executors.local import LocalExecutor
from strombus.exporting import readable_source
from strombus.fit_result import FitResult
from strombus.fitting import Fit
from strombus.inference import Inference
from strombus.masters.base import TrainingMaster
from strombus.networks import Network
from strombus.recording import describe, record_result, restore_result
from strombus.runs import CheckpointConfig, open_run, read_result
from strombus.stats import TrainingStats

__all__ = ["Trainer"]

E = TypeVar("E")

EVALUATION_WORKERS = 4  # model copies at work in one process, where no master says; DL4J's default


class Trainer:
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

    # -- training --------------------------------------------------------------------------------

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
    ) -> FitResult:
        """Train for a number of epochs; a second call goes on where the first ended.

        Parameters
        ----------
        data : path, URI, arrays, Dataset, iterable, Bag or RDD
            Everything `strombus.data` can open.
        epochs : int
            At least 1.
        validation : like `data`, optional
            Scored after each epoch; for classifiers the accuracy is given too.
        callbacks : sequence of Callback
        progress : bool
            Show a bar on a terminal, lines elsewhere.
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

        Raises
        ------
        ConfigurationError
            Without a master or optimizer, for fewer than one epoch, or when another fit trains this network now.
        RunError
            When the name is in use, or was given to a fit with other settings.
        DataError, TaskError, FitInterrupted
            When the data cannot be used, a worker fails, or SIGTERM comes (Ctrl-C: KeyboardInterrupt).
        """
        master = self._master_to_fit(epochs)
        if name is None and (storage_path is not None or checkpoint is not None):
            raise ConfigurationError("storage_path and checkpoint are for a fit with a name; give fit a name too")
        if checkpoint is not None and checkpoint.best is not None and validation is None:
            raise ConfigurationError(f"best={checkpoint.best!r} is a figure of the validation data: give fit some")
        with self.network.kept_for_a_fit(), ExitStack() as stack:
            watchers, keeper = [*check_callbacks(callbacks), *([ProgressBar()] if progress else [])], None
            if name is not None:
                settings = describe(self.network, master, epochs)
                if (finished := read_result(name, storage_path)) is not None:
                    return restore_result(finished, self.network, settings, accept_changes)
                run = stack.enter_context(open_run(name, storage_path))
                keeper = Keeper(run, checkpoint or CheckpointConfig(), settings, accept_changes)
                watchers.append(JsonLinesLogger())
            parts = self.network, master, self.executor, watchers, self._validation_figures
            fit = Fit(*parts, trainer=self, keeper=keeper, carried=self._carried, readable=self._readable)
            self._carried = None  # a fit that fails leaves nothing behind
            if master.validates:
                self._stand_in = stack.enter_context(LocalExecutor(1))
            try:
                result = fit.run(data, epochs, validation)
            finally:
                self._stand_in = None
                self.stats.merge(fit.stats)
            self._carried = fit.carried
            if keeper is not None:
                record_result(keeper, result)
            return result

    def _readable(self, source: Any, executor: Executor, **options: Any) -> AbstractContextManager[Source]:
        return readable_source(source, executor, **options)

    def _validation_figures(self, source: Any) -> dict[str, float]:
        figures = {"score": self._inference.calculate_score(source, finite=False)}
        return figures | ({"accuracy": self.evaluate(source).accuracy()} if self.network.classifies else {})

    def _master_to_fit(self, epochs: int) -> TrainingMaster:
        if self.master is None:
            raise ConfigurationError(
                "fit needs a training master; give one: Trainer(network, ParameterAveragingTrainingMaster(...))"
            )
        if self.network.optimizer is None:
            raise ConfigurationError(
                "fit needs an optimizer; give the network one: optimizer=functools.partial(torch.optim.SGD, lr=0.1)"
            )
        if epochs < 1:
            raise ConfigurationError(f"epochs must be at least 1, got {epochs}")
        return self.master

    # -- scoring, evaluation, inference ----------------------------------------------------------

    def calculate_score(self, data: Any, average: bool = True, batch_size: int = 64) -> float:
        """Return the loss over `data` plus regularisation (DL4J: ``calculateScore``).

        Parameters
        ----------
        average : bool
            Mean over examples (or unmasked terms), regularisation once; otherwise the sum, regularisation
            once for each example.
        batch_size : int
            Rows of a minibatch. Several minibatches go through the network together where that takes a few
            megabytes at most: in evaluation mode no row depends on another.

        Raises
        ------
        DataError
            When the data is empty, or all of it is masked.
        NonFiniteError
            When the loss is NaN or infinite; says whether data or parameters are.
        """
        return self._inference.calculate_score(data, average, batch_size)

    def score_examples(
        self,
        data: Any,
        include_regularization_terms: bool,
        batch_size: int = 64,
        to: str | os.PathLike[str] | None = None,
    ) -> Any:
        """Return the loss of each example (DL4J: ``scoreExamples``), in the form in which the data came.

        Parameters
        ----------
        data : anything `fit` takes, or a Bag, an RDD or a list of (key, data set) or (key, (features, labels))
            A pair with a key holds one example.
        include_regularization_terms : bool
            Whether the regularisation terms are added to every example.
        batch_size : int
            Rows of a minibatch; see `calculate_score`.
        to : path or URI, optional
            Where the workers write the scores as a Zarr array (with keys, a group of ``scores`` and ``keys``), so
            that nothing but small records passes the driver. Nothing may be there; it appears when it is complete.

        Returns
        -------
        Bag or RDD, lazily, of floats or of (key, float)
            For a Bag or an RDD.
        list of (key, float)
            For a list of pairs.
        ndarray, shape (examples,), the network's dtype
            For everything else, in the data's order; (keys, scores) for a Zarr dataset with an array ``keys``.
        zarr.Array or zarr.Group
            With `to`.

        Raises
        ------
        DataError
            When the data is empty or has no labels, or a key's object holds several examples.

        The score of an example is the mean over its unmasked terms; NaN stays NaN, and names its row by its place.
        """
        return self._inference.score_examples(data, include_regularization_terms, batch_size, to)

    def evaluate(
        self, data: Any, batch_size: int = 64, *, labels: Sequence[str] | None = None, top_n: int = 1
    ) -> Evaluation:
        """Return accuracy, precision, recall, F1 and the confusion matrix on `data`; see `Evaluation`."""
        return self._evaluate(data, Evaluation(labels=labels, top_n=top_n), batch_size)

    def evaluate_regression(
        self, data: Any, batch_size: int = 64, *, column_names: Sequence[str] | None = None
    ) -> RegressionEvaluation:
        """Return errors, R squared and correlation of each output column on `data`; see `RegressionEvaluation`."""
        return self._evaluate(data, RegressionEvaluation(column_names=column_names), batch_size)

    def evaluate_roc(self, data: Any, threshold_steps: int = 0, batch_size: int = 64) -> ROC:
        """Return curves and areas of a yes-or-no output on `data`, exact for 0 steps; see `ROC`."""
        return self._evaluate(data, ROC(threshold_steps), batch_size)

    def evaluate_roc_multi_class(
        self, data: Any, threshold_steps: int = 0, batch_size: int = 64, *, labels: Sequence[str] | None = None
    ) -> ROCMultiClass:
        """Return curves and areas of each class against the rest on `data`; see `ROCMultiClass`."""
        return self._evaluate(data, ROCMultiClass(threshold_steps, labels=labels), batch_size)

    def _evaluate(self, data: Any, metric: E, batch_size: int) -> E:
        return self.do_evaluation(data, [metric], batch_size)[0]  # type: ignore[no-any-return]

    def do_evaluation(
        self,
        data: Any,
        metrics: Sequence[Any] | Mapping[int, Sequence[Any]],
        batch_size: int = 64,
        workers: int | None = None,
    ) -> Any:
        """Run several metrics over `data` in one pass and return new ones, filled.

        Parameters
        ----------
        metrics : sequence or mapping
            Metrics of the first output; or for each number of an output of a `ComputationGraph` those that
            judge it. A metric is a `strombus.evaluation.Metric`, or a ``torchmetrics.Metric`` or
            ``MetricCollection`` whose states can be merged.
        workers : int, optional
            Model copies that work at the same time in one process; the master's ``default_evaluation_workers``.

        Returns
        -------
        list or dict of list
            As `metrics` was given, in its order.

        Raises
        ------
        ConfigurationError
            When one is no metric, or cannot be merged from partitions.
        """
        request = Request(metrics)
        return request.answer(self._inference.run_metrics(data, request, batch_size, workers))

    def predict(self, data: Any, batch_size: int = 64, to: str | os.PathLike[str] | None = None) -> Any:
        """Return the network's output for each example, in the form in which the data came.

        Parameters
        ----------
        data : array of features, or anything `fit` takes
            Labels are not needed. A vector is one example; a list of arrays is for a network of several inputs.
        batch_size : int
            Rows of a minibatch; see `calculate_score`.
        to : path or URI, optional
            Where the workers write the outputs as a Zarr array (a group of ``output_0``, ... for a
            `ComputationGraph`, with ``keys`` where objects have some); see `score_examples`.

        Returns
        -------
        ndarray, shape (examples, ...)
            In the data's order; for a vector, which is computed here, without the first axis.
        Bag or RDD, lazily
            For a Bag or an RDD: an array for each object, (key, array) where the objects are pairs with a key.
        zarr.Array or zarr.Group
            With `to`.

        For a `ComputationGraph` each array is a tuple of arrays, one for each output.
        """
        return self._inference.predict(data, batch_size, to)

    def feed_forward_with_key(self, data: Any, batch_size: int = 64, to: str | os.PathLike[str] | None = None) -> Any:
        """Return the network's output for each key (DL4J: ``feedForwardWithKey``).

        Parameters
        ----------
        data : Bag, RDD or iterable of (key, features); Zarr dataset with an array ``keys``
            Keys may be anything, and occur more than once. Features are an array of one or more examples, a vector
            for a single one, or for a `ComputationGraph` a list of arrays. Sequences may differ in length.
        batch_size, to
            See `predict`; keys must then be numbers or strings, and outputs of one shape.

        Returns
        -------
        Bag, RDD or list of (key, output)
            In the data's order; (keys, outputs) as arrays for a Zarr dataset.
        """
        return self._inference.feed_forward(data, False, batch_size, to)

    def feed_forward_with_mask_and_key(
        self, data: Any, batch_size: int = 64, to: str | os.PathLike[str] | None = None
    ) -> Any:
        """Return the network's output for each key, given masks too (DL4J: ``feedForwardWithMaskAndKey``).

        Objects are pairs (key, (features, mask)); see `feed_forward_with_key`. The mask has shape
        (examples, time), or (time,) for a single example without its axis; it may be None.
        """
        return self._inference.feed_forward(data, True, batch_size, to)

    @property
    def _inference(self) -> Inference:
        if self.master is None:
            return Inference(self.network, self.executor, EVALUATION_WORKERS, None)
        return Inference(
            self.network, self.executor, self.master.default_evaluation_workers, self.master.export_directory
        )

    # -- closing ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the backend if this trainer opened it."""
        if self._executor is not None and self._owned:
            self._executor.close()
        self._executor, self._closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
