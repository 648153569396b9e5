"""What `SparkDl4jMultiLayer` and `SparkComputationGraph` have in common: all but what is about inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import nn

from strombus.callbacks import Callback
from strombus.compat.dl4j.evaluation import Evaluation
from strombus.compat.dl4j.exported import KeepingTrainer
from strombus.compat.dl4j.listeners import TrainingListener, read_listeners
from strombus.compat.dl4j.masters import MasterMethods
from strombus.compat.dl4j.paths import Loader, from_paths
from strombus.compat.dl4j.regression_evaluation import RegressionEvaluation
from strombus.compat.dl4j.roc import ROC, ROCMultiClass
from strombus.compat.dl4j.training_stats import SparkTrainingStats
from strombus.errors import ConfigurationError
from strombus.evaluation import Metric
from strombus.masters.base import TrainingMaster
from strombus.networks import Network
from strombus.scoring import EVALUATION_WORKERS

__all__ = ["SparkNetwork"]

N = TypeVar("N", bound=Network)
M = TypeVar("M", bound=Metric)

BATCH = 64
STEPS = 32


class SparkNetwork(Generic[N]):
    """A network on a cluster, under DL4J's names; see `strombus.Trainer`, which does the work.

    Parameters
    ----------
    sparkContext : SparkContext, SparkSession, distributed.Client, DaskSparkContext or any backend of `Trainer`
        What is handed over stays open.
    network : Network or callable
        The network, or a function that makes it.
    trainingMaster : TrainingMaster, optional
        How to train; None will do for scoring, evaluation and inference.

    Raises
    ------
    ConfigurationError
        For arguments of other types.
    """

    DEFAULT_EVAL_SCORE_BATCH_SIZE: ClassVar[int] = BATCH
    DEFAULT_ROC_THRESHOLD_STEPS: ClassVar[int] = STEPS
    DEFAULT_EVAL_WORKERS: ClassVar[int] = EVALUATION_WORKERS

    _kind: ClassVar[type[Network]]

    def __init__(
        self, sparkContext: Any, network: N | Callable[[], N], trainingMaster: TrainingMaster | None = None
    ) -> None:
        self._context = sparkContext
        self._trainer = KeepingTrainer(self._checked(network), trainingMaster, sparkContext)
        if isinstance(trainingMaster, MasterMethods):
            trainingMaster._exports.add(self._trainer.kept)
        self._listeners: list[Callback] = []
        master = trainingMaster
        self._workers = self.DEFAULT_EVAL_WORKERS if master is None else master.default_evaluation_workers

    def _checked(self, network: N | Callable[[], N]) -> N:
        made = network() if callable(network) and not isinstance(network, nn.Module) else network
        if not isinstance(made, self._kind):
            raise ConfigurationError(
                f"{type(self).__name__} needs a {self._kind.__name__} or a function that makes one, "
                f"got {type(made).__name__}"
            )
        return made

    # -- accessors -------------------------------------------------------------------------------

    def getSparkContext(self) -> Any:
        """Return the context, as it was handed over."""
        return self._context

    def getNetwork(self) -> N:
        """Return the driver's network, which training changes."""
        return self._trainer.network  # type: ignore[return-value]

    def setNetwork(self, network: N) -> None:
        """Replace the network, by one of another architecture too; training starts afresh with it."""
        self._trainer.network = self._checked(network)

    def getTrainingMaster(self) -> TrainingMaster | None:
        """Return the training master."""
        return self._trainer.master

    def getDefaultEvaluationWorkers(self) -> int:
        """Return how many model copies evaluate at the same time in one process."""
        return self._workers

    def setDefaultEvaluationWorkers(self, workers: int) -> None:
        """Set how many model copies evaluate at the same time in one process where no number is given, at least 1."""
        if workers < 1:
            raise ConfigurationError(f"workers must be at least 1, got {workers}")
        self._workers = workers

    def setCollectTrainingStats(self, collectTrainingStats: bool) -> None:
        """Set whether each phase of training is timed."""
        master = self._trainer.master
        if master is None:
            raise ConfigurationError("statistics are those of training, which needs a training master; give one")
        if hasattr(master, "setCollectTrainingStats"):
            master.setCollectTrainingStats(collectTrainingStats)
        else:
            self._trainer.master = master.model_copy(update={"collect_training_stats": collectTrainingStats})

    def getSparkTrainingStats(self) -> SparkTrainingStats | None:
        """Return the timed phases of all fits; None where none were collected."""
        return SparkTrainingStats(self._trainer.stats) if self._trainer.stats.events else None

    def setListeners(self, *listeners: Any) -> None:
        """Set who is told of each round and epoch, in place of all before; None, or nothing, for nobody.

        Parameters
        ----------
        *listeners
            `TrainingListener` or `strombus.callbacks.Callback`, one by one or in a collection. A router, an object
            with a method ``putUpdate``, may come first, and is handed to listeners with a ``setStorageRouter``.
        """
        self._listeners = read_listeners(listeners)

    # -- training --------------------------------------------------------------------------------

    def fit(self, data: Any, minPartitions: int | None = None) -> N:
        """Train one epoch and return the driver's network.

        Parameters
        ----------
        data : RDD or Bag of DataSet or MultiDataSet, path of a dataset
            Or anything else that `strombus.Trainer.fit` takes. In the Export approach an RDD or a Bag is exported when
            it is fitted first, and read from there until another one is fitted or this object is closed.
        minPartitions : int, optional
            Deprecated, and without effect: every worker gets its share of the rows, whatever they come in.
        """
        if minPartitions is not None:
            warnings.warn(
                "minPartitions is deprecated and has no effect: leave it out", DeprecationWarning, stacklevel=2
            )
        for listener in self._listeners:
            if isinstance(listener, TrainingListener):
                listener.model = self.getNetwork()
        self._trainer.fit(data, callbacks=self._listeners, progress=False)
        return self.getNetwork()

    def fitPaths(self, paths: Any, loader: Loader | None = None) -> N:
        """Train one epoch on what lies at paths, and return the driver's network.

        Parameters
        ----------
        paths : list, RDD or Bag of paths
            Of Strombus datasets, or of their parts.
        loader : callable, optional
            Reads the DataSet or MultiDataSet at a path of any other kind; called in the tasks.
        """
        return self.fit(from_paths(paths, loader, self._trainer.executor))

    def getScore(self) -> float:
        """Return the score of the last round of training; 0.0 before any."""
        return self._trainer.score

    def setScore(self, lastScore: float) -> None:
        """Set what `getScore` returns."""
        self.getNetwork().score = lastScore

    # -- scoring and inference -------------------------------------------------------------------

    def calculateScore(self, data: Any, average: bool, minibatchSize: int = BATCH) -> float:
        """Return the mean loss over `data`, or the sum; see `strombus.Trainer.calculate_score`."""
        return self._trainer.calculate_score(data, average, minibatchSize)

    def scoreExamples(self, data: Any, includeRegularizationTerms: bool, batchSize: int = BATCH) -> Any:
        """Return the loss of each example, by key where objects are pairs with a key.

        An RDD gives an RDD, lazily, a Bag a Bag; see `strombus.Trainer.score_examples`.
        """
        return self._trainer.score_examples(data, includeRegularizationTerms, batchSize)

    def feedForwardWithKey(self, featuresData: Any, batchSize: int) -> Any:
        """Return the network's output for each key; see `strombus.Trainer.feed_forward_with_key`."""
        return self._trainer.feed_forward_with_key(featuresData, batchSize)

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self, data: Any, *options: Any) -> Evaluation:
        """Return accuracy, precision, recall and F1 on `data`.

        Parameters
        ----------
        data : RDD, Bag, path, or anything `strombus.Trainer.evaluate` takes
            With a loader, the path of a directory of files, or a collection of paths.
        *options
            Names of the classes, a list; rows of a minibatch, a number (64); a loader, a function that reads
            the object at a path.
        """
        labels, batch, loader = None, BATCH, None
        for option in options:
            if isinstance(option, int):
                batch = option
            elif callable(option):
                loader = option
            else:
                labels = option
        data = data if loader is None else from_paths(data, loader, self._trainer.executor)
        return self._evaluate(data, Evaluation(labels), batch)

    def evaluateRegression(self, data: Any, minibatchSize: int = BATCH) -> RegressionEvaluation:
        """Return errors, R squared and correlation of each output column on `data`."""
        return self._evaluate(data, RegressionEvaluation(), minibatchSize)

    def evaluateROC(self, data: Any, thresholdSteps: int = STEPS, evaluationMinibatchSize: int = BATCH) -> ROC:
        """Return curves and areas of a yes-or-no output on `data`; exact ones for 0 steps."""
        return self._evaluate(data, ROC(thresholdSteps), evaluationMinibatchSize)

    def evaluateROCMultiClass(
        self, data: Any, thresholdSteps: int = STEPS, evaluationMinibatchSize: int = BATCH
    ) -> ROCMultiClass:
        """Return curves and areas of each class against the rest on `data`; exact ones for 0 steps."""
        return self._evaluate(data, ROCMultiClass(thresholdSteps), evaluationMinibatchSize)

    def _evaluate(self, data: Any, metric: M, batch: int) -> M:
        filled: M = self._trainer.do_evaluation(data, [metric], batch, self._workers)[0]
        return filled

    def doEvaluation(self, data: Any, *options: Any) -> Any:
        """Run metrics over `data` in one pass and return new ones, filled.

        Parameters
        ----------
        data : RDD, Bag, path, or anything `strombus.Trainer.do_evaluation` takes
            With a loader, paths; see `evaluate`.
        *options
            In this order: workers and rows of a minibatch, or the latter alone (64); a loader; metrics. Or one metric
            and the rows of a minibatch: that metric comes back then, and a list otherwise.
        """
        if len(options) == 2 and isinstance(options[1], int):
            return self.doEvaluation(data, options[1], options[0])[0]
        rest = list(options)
        numbers: list[int] = []
        while rest and isinstance(rest[0], int):
            numbers.append(rest.pop(0))
        *workers, batch = numbers[-2:] or [BATCH]
        if rest and callable(rest[0]) and not hasattr(rest[0], "compute"):  # metrics of torchmetrics can be called too
            data = from_paths(data, rest.pop(0), self._trainer.executor)
        return self._trainer.do_evaluation(data, rest, batch, workers[0] if workers else self._workers)

    # -- closing ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove what was exported, and close a backend that was given by name; nothing that was handed over."""
        self._trainer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
