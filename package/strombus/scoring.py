"""Scoring: what a Trainer tells of its network without training it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from strombus.evaluation import ROC, Evaluation, RegressionEvaluation, ROCMultiClass
from strombus.evaluation.request import Request
from strombus.executors.base import Executor
from strombus.inference import Inference
from strombus.masters.base import TrainingMaster
from strombus.networks import Network

__all__ = ["Scoring"]

E = TypeVar("E")

EVALUATION_WORKERS = 4  # model copies at work in one process, where no master says; DL4J's default


class Scoring:
    """Score, evaluate and predict with a network on an executor: the half of a `Trainer` that changes nothing."""

    network: Network
    master: TrainingMaster | None

    @property
    def executor(self) -> Executor:
        """The executor on which the workers compute."""
        raise NotImplementedError

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
