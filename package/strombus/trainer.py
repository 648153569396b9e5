"""Trainer: the one face users hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from strombus.callbacks import Callback, ProgressBar
from strombus.data import NativeCollection, open_source
from strombus.errors import ConfigurationError, DataError, ExecutorError
from strombus.evaluation import ROC, Evaluation, RegressionEvaluation, ROCMultiClass
from strombus.evaluation.request import Request
from strombus.executors import resolve
from strombus.executors.base import Executor, Shared
from strombus.exporting import readable_source
from strombus.fitting import Fit, FitResult
from strombus.masters.base import TrainingMaster
from strombus.networks import Network
from strombus.partitioning import DefaultRepartitioner
from strombus.stats import TrainingStats
from strombus.types import NativePartition, Partition
from strombus.worker.evaluating import evaluate_part, merge_metrics
from strombus.worker.scoring import (
    LossSum,
    ScoringWork,
    merge_losses,
    predict_part,
    score_part,
)

__all__ = ["Trainer"]

E = TypeVar("E")


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
        if not isinstance(network, Network):
            raise ConfigurationError(
                f"network must be a MultiLayerNetwork or ComputationGraph, got {type(network).__name__}; "
                "wrap an nn.Module: strombus.MultiLayerNetwork(module, loss, optimizer)"
            )
        if master is not None and not isinstance(master, TrainingMaster):
            raise ConfigurationError(f"master must be a TrainingMaster or None, got {type(master).__name__}")
        self.network = network
        self.master = master
        self.stats = TrainingStats()
        self._executor: Executor | None = None
        self._carried: Any = None
        self._closed = False
        self._owned = not isinstance(backend, Executor)
        self._backend = backend

    @property
    def executor(self) -> Executor:
        """The backend's executor, opened on first use."""
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

        Raises
        ------
        ConfigurationError
            Without a master, without an optimizer, or for fewer than one epoch.
        DataError
            When the data cannot be used; TaskError when a worker fails.
        """
        master = self._master_to_fit(epochs)
        watchers = [*callbacks, *([ProgressBar()] if progress else [])]
        fit = Fit(self.network, master, self.executor, watchers, self._validation_figures, self._carried)
        self._carried = None  # a fit that fails leaves nothing behind
        try:
            result = fit.run(data, epochs, validation)
        finally:
            self.stats.merge(fit.stats)
        self._carried = fit.carried
        return result

    def _validation_figures(self, source: Any) -> dict[str, float]:
        figures = {"score": self.calculate_score(source)}
        if self.network.classifies:
            figures["accuracy"] = self.evaluate(source).accuracy()
        return figures

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

        Raises
        ------
        DataError
            When the data is empty.
        """
        with self._work(data, batch_size) as (work, parts):
            total: LossSum = self.executor.map_reduce(score_part, parts, merge_losses, work).get()
        if not total.count:
            raise DataError("the data holds no examples")
        penalty = self.network.regularization()
        return total.total / total.count + penalty if average else total.total + penalty * total.count

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
        filled: E = self.do_evaluation(data, [metric], batch_size)[0]
        return filled

    def do_evaluation(
        self, data: Any, metrics: Sequence[Any] | Mapping[int, Sequence[Any]], batch_size: int = 64
    ) -> Any:
        """Run several metrics over `data` in one pass and return new ones, filled.

        Parameters
        ----------
        metrics : sequence or mapping
            Metrics of the first output; or for each number of an output of a `ComputationGraph` those that
            judge it. A metric is a `strombus.evaluation.Metric`, or a ``torchmetrics.Metric`` or
            ``MetricCollection`` whose states can be merged.

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
        with self._work(data, batch_size, request) as (work, parts):
            return request.answer(self.executor.map_reduce(evaluate_part, parts, merge_metrics, work).get())

    def predict(self, data: Any, batch_size: int = 64) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """Return the network's output for each example, in the data's order.

        Parameters
        ----------
        data : array of features, or anything `fit` takes
            Labels are not needed.

        Returns
        -------
        ndarray, shape (examples, ...), or for a `ComputationGraph` a tuple with one for each output
        """
        with self._work(data, batch_size) as (work, parts):
            pieces = list(self.executor.map(predict_part, parts, work))
        filled = [piece for piece in pieces if piece]
        if not filled:
            raise DataError("the data holds no examples")
        outputs = tuple(np.concatenate(arrays) for arrays in zip(*filled, strict=True))
        return outputs if self.network.several else outputs[0]

    @contextmanager
    def _work(
        self, data: Any, batch_size: int, request: Request | None = None
    ) -> Iterator[tuple[Shared[ScoringWork], tuple[Partition | NativePartition, ...]]]:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
        asked = () if request is None else (request.metrics, request.outputs)
        source = open_source(data)
        if isinstance(source, NativeCollection):
            native = tuple(source.partitions())
            if not native:
                raise DataError("the data holds no examples")
            with self._shared(ScoringWork(self.network, None, batch_size, *asked)) as work:
                yield work, native
            return
        with readable_source(
            source,
            self.executor,
            directory=self.master.export_directory if self.master is not None else None,
            batch_size=batch_size,
        ) as readable:
            if not readable.rows:
                raise DataError("the data holds no examples")
            # A few partitions for each slot, so that a slow one does not hold up the rest.
            slots = self.executor.capacity().slots or 1
            pieces = DefaultRepartitioner(max_partitions=4 * slots if slots > 1 else 1)
            parts = pieces.plan([readable.rows], workers=slots, batch_size=batch_size)
            with self._shared(ScoringWork(self.network, readable, batch_size, *asked)) as work:
                yield work, parts

    @contextmanager
    def _shared(self, work: ScoringWork) -> Iterator[Shared[ScoringWork]]:
        shared = self.executor.share(work)
        try:
            yield shared
        finally:
            shared.free()

    # -- closing ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the backend if this trainer opened it."""
        if self._executor is not None and self._owned:
            self._executor.close()
        self._executor, self._closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
