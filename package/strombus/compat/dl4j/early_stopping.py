"""Early stopping under DL4J's names: a configuration, what measures the score, and the trainers."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from functools import partial
from typing import Any, ClassVar, Self

from strombus import callbacks as core
from strombus.callbacks import Callback, EpochCondition, EpochRecord, FitPlan, IterationCondition, ModelSaver
from strombus.errors import ConfigurationError
from strombus.exporting import readable_source
from strombus.masters.base import TrainingMaster
from strombus.networks import ComputationGraph, MultiLayerNetwork, Network
from strombus.trainer import Trainer

__all__ = [
    "EarlyStoppingConfiguration",
    "EarlyStoppingListener",
    "EarlyStoppingResult",
    "SparkDataSetLossCalculator",
    "SparkEarlyStoppingGraphTrainer",
    "SparkEarlyStoppingTrainer",
    "SparkLossCalculatorComputationGraph",
    "TerminationReason",
]

_UNLIMITED = 1_000_000
"""Epochs of a fit that conditions alone end."""


class TerminationReason(Enum):
    """What ended a fit."""

    EpochTerminationCondition = "epoch_condition"
    IterationTerminationCondition = "iteration_condition"


class EarlyStoppingResult(core.EarlyStoppingResult):
    """How a fit with early stopping ended; see `strombus.callbacks.EarlyStoppingResult`."""

    def getTerminationReason(self) -> TerminationReason:
        """Return which kind of condition ended it."""
        within = self.reason == "iteration_condition"
        return (
            TerminationReason.IterationTerminationCondition if within else TerminationReason.EpochTerminationCondition
        )

    def getTerminationDetails(self) -> str:
        """Return the condition."""
        return self.details

    def getScoreVsEpoch(self) -> dict[int, float]:
        """Return the score after each epoch that was evaluated; epochs are counted from 1, in DL4J from 0."""
        return dict(self.scores)

    def getBestModelEpoch(self) -> int | None:
        """Return the epoch of the best score, from 1 on; None where no evaluation gave a number."""
        return self.best_epoch

    def getBestModelScore(self) -> float:
        """Return the best score; NaN where there is none."""
        return self.best_score

    def getTotalEpochs(self) -> int:
        """Return the epochs that were run to their end."""
        return self.epochs

    def getBestModel(self) -> Network | None:
        """Return a copy of the network as it was after the best epoch."""
        return self.best_network


class SparkDataSetLossCalculator:
    """The loss on data that is not trained.

    Parameters
    ----------
    data : RDD, path, or what `strombus.Trainer.fit` takes
    average : bool
        Mean over the examples, or the sum.
    sc : context, or what `strombus.Trainer` takes as backend
    """

    def __init__(self, data: Any, average: bool = True, sc: Any = "auto") -> None:
        self.data, self.average, self._context = data, average, sc

    def calculateScore(self, network: Network) -> float:
        """Return the network's loss on the data; see `strombus.Trainer.calculate_score`."""
        with Trainer(network, backend=self._context) as trainer:
            return self.score(self.data, trainer)

    def score(self, data: Any, trainer: Trainer) -> float:
        """Return the loss of a trainer's network on `data`."""
        return trainer.calculate_score(data, self.average)

    def minimizeScore(self) -> bool:
        """Return True: a loss is better when it is lower."""
        return True


class SparkLossCalculatorComputationGraph(SparkDataSetLossCalculator):
    """The loss of a graph on data that is not trained; see `SparkDataSetLossCalculator`."""


class EarlyStoppingConfiguration:
    """When to stop, what to measure and where to keep the best network; made by `Builder`."""

    def __init__(self, conditions: tuple[Any, ...], **options: Any) -> None:
        self.conditions = conditions
        self._calculator: SparkDataSetLossCalculator | None = options.pop("calculator", None)
        self.options = options
        if not conditions:
            raise ConfigurationError(
                "early stopping needs a condition: epochTerminationConditions(MaxEpochsTerminationCondition(10))"
            )

    @property
    def calculator(self) -> SparkDataSetLossCalculator:
        """What measures the score; ConfigurationError without one."""
        if self._calculator is None:
            raise ConfigurationError("early stopping needs scoreCalculator(SparkDataSetLossCalculator(...))")
        return self._calculator

    def callback(self, monitor: Any = "score") -> core.EarlyStopping:
        """Return what does it in a fit; `monitor` is what `strombus.callbacks.EarlyStopping` watches."""
        maximize = not self.calculator.minimizeScore()
        return core.EarlyStopping(self.conditions, monitor, maximize=maximize, **self.options)

    class Builder:
        """Set options one after another, each method returning the builder; then `build`."""

        def __init__(self) -> None:
            self._epoch: tuple[EpochCondition, ...] = ()
            self._iteration: tuple[IterationCondition, ...] = ()
            self._options: dict[str, Any] = {}

        def epochTerminationConditions(self, *conditions: Any) -> Self:
            """End after an epoch by any of these, given one by one or as a list."""
            self._epoch = _flat(conditions, EpochCondition)
            return self

        def iterationTerminationConditions(self, *conditions: Any) -> Self:
            """End within an epoch by any of these, given one by one or as a list."""
            self._iteration = _flat(conditions, IterationCondition)
            return self

        def scoreCalculator(self, calculator: SparkDataSetLossCalculator) -> Self:
            """Say what measures the score."""
            return self._with(calculator=calculator)

        def evaluateEveryNEpochs(self, epochs: int) -> Self:
            """Evaluate each n-th epoch only; conditions hold in the others too."""
            return self._with(evaluate_every_n_epochs=epochs)

        def modelSaver(self, saver: ModelSaver) -> Self:
            """Say where networks are kept: in this process's memory by default."""
            return self._with(saver=saver)

        def saveLastModel(self, saveLastModel: bool) -> Self:
            """Say whether the last epoch's network is kept too."""
            return self._with(save_latest=saveLastModel)

        def build(self) -> EarlyStoppingConfiguration:
            """Return the configuration; ConfigurationError without a condition."""
            return EarlyStoppingConfiguration((*self._epoch, *self._iteration), **self._options)

        def _with(self, **options: Any) -> Self:
            self._options |= options
            return self


def _flat(conditions: tuple[Any, ...], kind: type) -> tuple[Any, ...]:
    given = tuple(conditions[0]) if len(conditions) == 1 and isinstance(conditions[0], list | tuple) else conditions
    for one in given:
        if not isinstance(one, kind):
            raise ConfigurationError(f"wanted conditions of the kind {kind.__name__}, got {one!r}")
    return given


class EarlyStoppingListener:
    """Told of a fit's start, of each evaluation and of the end; override what is of interest."""

    def onStart(self, esConfig: EarlyStoppingConfiguration, net: Network) -> None:
        """Run before the first epoch."""

    def onEpoch(self, epochNum: int, score: float, esConfig: EarlyStoppingConfiguration, net: Network) -> None:
        """Run after an epoch that was evaluated; epochs are counted from 1."""

    def onCompletion(self, esResult: EarlyStoppingResult) -> None:
        """Run after the fit."""


class _Telling(Callback):
    """Tells a listener what early stopping, which runs before it, has found."""

    def __init__(
        self, listener: EarlyStoppingListener, configuration: EarlyStoppingConfiguration, stopping: core.EarlyStopping
    ):
        self._listener, self._configuration, self._stopping = listener, configuration, stopping

    def on_fit_start(self, plan: FitPlan) -> None:
        self._network = plan.trainer.network
        self._listener.onStart(self._configuration, self._network)

    def on_epoch_end(self, record: EpochRecord) -> bool:
        scores = self._stopping.state()["scores"]
        if scores and scores[-1][0] == record.epoch:
            self._listener.onEpoch(record.epoch, float(scores[-1][2]), self._configuration, self._network)
        return False


class SparkEarlyStoppingTrainer:
    """Train until a condition ends it, and keep the best network.

    Parameters
    ----------
    sc : SparkContext, SparkSession, DaskSparkContext, or what `strombus.Trainer` takes as backend
    trainingMaster : TrainingMaster
    esConfig : EarlyStoppingConfiguration
    net : MultiLayerNetwork
    train : RDD, path, or what `strombus.Trainer.fit` takes
    *rest
        Optionally an `EarlyStoppingListener`. A graph's two numbers, which DL4J ignores too, are ignored.
    """

    _network: ClassVar[type[Network]] = MultiLayerNetwork

    def __init__(
        self,
        sc: Any,
        trainingMaster: TrainingMaster,
        esConfig: EarlyStoppingConfiguration,
        net: Network,
        train: Any,
        *rest: Any,
    ) -> None:
        if not isinstance(net, self._network):
            raise ConfigurationError(
                f"{type(self).__name__} trains a {self._network.__name__}, got {type(net).__name__}"
            )
        self._context, self._master, self._configuration = sc, trainingMaster, esConfig
        self._net, self._train = net, train
        listeners = [one for one in rest if isinstance(one, EarlyStoppingListener)]
        self._listener = listeners[0] if listeners else None

    def setListener(self, listener: EarlyStoppingListener | None) -> None:
        """Set who is told, or None."""
        self._listener = listener

    def fit(self) -> EarlyStoppingResult:
        """Train until a condition ends it; see `strombus.Trainer.fit`.

        An error on the way is raised, where DL4J returns it as a reason.
        """
        with ExitStack() as stack:
            trainer = stack.enter_context(Trainer(self._net, self._master, backend=self._context))
            validation, monitor = self._measured(trainer, stack)
            stopping = self._configuration.callback(monitor)
            callbacks: list[Callback] = [stopping]
            if self._listener is not None:
                callbacks.append(_Telling(self._listener, self._configuration, stopping))
            trainer.fit(self._train, _UNLIMITED, validation, callbacks, progress=False)
        result = _named(stopping.result)
        if self._listener is not None:
            self._listener.onCompletion(result)
        return result

    def _measured(self, trainer: Trainer, stack: ExitStack) -> tuple[Any, Any]:
        """Return the validation data and what is watched: the mean loss is what a fit measures on it anyway."""
        calculator = self._configuration.calculator
        if calculator.average:
            return calculator.data, "score"
        # Scored in this process while shared training keeps the workers busy, so what an engine holds is exported.
        directory = self._master.export_directory if self._master else None
        data = stack.enter_context(readable_source(calculator.data, trainer.executor, directory=directory))
        return None, partial(calculator.score, data)


class SparkEarlyStoppingGraphTrainer(SparkEarlyStoppingTrainer):
    """Train a graph until a condition ends it, and keep the best; see `SparkEarlyStoppingTrainer`."""

    _network = ComputationGraph


def _named(result: core.EarlyStoppingResult | None) -> EarlyStoppingResult:
    assert result is not None
    return EarlyStoppingResult(**vars(result))
