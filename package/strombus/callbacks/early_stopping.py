"""End a fit when it no longer pays, and keep the best network."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from strombus.callbacks.base import Callback, EpochRecord, FitPlan
from strombus.callbacks.conditions import EpochCondition, IterationCondition, Scored, Standing
from strombus.callbacks.monitors import Monitor, check_name, higher_is_better, watch
from strombus.callbacks.savers import FileModelSaver, InMemoryModelSaver, ModelSaver
from strombus.errors import ConfigurationError, DataError, kind_of, nonfinite_of
from strombus.masters.job import Progress
from strombus.networks import Network
from strombus.runs import FinishedRun

__all__ = ["EarlyStopping", "EarlyStoppingResult"]

logger = logging.getLogger(__name__)

_RECORD = "early_stopping.json"

Reason = Literal["epoch_condition", "iteration_condition", "epochs", "interrupted", "error"]


@dataclass(frozen=True)
class EarlyStoppingResult:
    """How a fit with early stopping ended (DL4J: ``EarlyStoppingResult``).

    Parameters
    ----------
    reason : {"epoch_condition", "iteration_condition", "epochs", "interrupted", "error"}
        Which kind of condition ended it; "epochs": none did, and the epochs asked for are over; "interrupted":
        something else did, such as another callback.
    details : str
        The condition, or the error.
    scores : mapping of int to float
        Score of each epoch that was evaluated, by the epoch's number since the network was made.
    best_epoch : int or None
    best_score : float
        NaN where no evaluation gave a number.
    epochs : int
        Epochs that were run to their end.
    best_network : Network or None
        A copy of the network as it was after `best_epoch`.
    """

    reason: Reason
    details: str
    scores: Mapping[int, float]
    best_epoch: int | None
    best_score: float
    epochs: int
    best_network: Network | None = field(repr=False, compare=False)


class EarlyStopping(Callback):
    """End a fit by conditions on its score and keep the best network (DL4J: ``EarlyStoppingConfiguration``).

    Parameters
    ----------
    conditions : sequence of EpochCondition or IterationCondition
        Each ends the fit: `MaxEpochs`, `ScoreImprovement` and `BestScore` after an epoch, `MaxTime`, `MaxScore` and
        `InvalidScore` within one too. Where they are of `MaxEpochs` and the latter alone, no validation data is needed;
        without, no epoch is the best.
    monitor : str, MetricValue or callable
        The score: a name among the validation figures (``"score"``, ``"accuracy"``), a metric's figure on the
        validation data, or ``monitor(trainer) -> float``, called after an epoch.
    maximize : bool, optional
        Whether higher is better; to be given where `monitor` is neither ``"score"`` nor ``"accuracy"``.
    evaluate_every_n_epochs : int
        Only each n-th epoch is validated, and may be the best. All count as epochs. Another callback that wants
        more of them validated gets them.
    saver : ModelSaver, optional
        Keeps the networks; by default files in the run directory, or this process's memory for a fit without a name.
    save_latest : bool
        Keep the last epoch's network too.
    restore_best : bool
        Give the network the best epoch's values when the fit is over.

    Attributes
    ----------
    result : strombus.callbacks.EarlyStoppingResult or None
        None until a fit has ended. Where a fit returns the result of a run that has ended, the run's; a dry run leaves
        early stopping out, and this as it was.

    Raises
    ------
    ConfigurationError
        Without a condition, or for options that cannot work.
    """

    result: EarlyStoppingResult | None = None

    def __init__(
        self,
        conditions: Sequence[EpochCondition | IterationCondition],
        monitor: Monitor = "score",
        *,
        maximize: bool | None = None,
        evaluate_every_n_epochs: int = 1,
        saver: ModelSaver | None = None,
        save_latest: bool = False,
        restore_best: bool = False,
    ) -> None:
        self.conditions = _check_conditions(conditions)
        if evaluate_every_n_epochs < 1:
            raise ConfigurationError(f"evaluate_every_n_epochs must be at least 1, got {evaluate_every_n_epochs}")
        if saver is not None and not isinstance(saver, ModelSaver):
            raise ConfigurationError(f"saver must be a ModelSaver, such as FileModelSaver(path), got {kind_of(saver)}")
        self.monitor, self.maximize = monitor, higher_is_better(monitor, maximize)
        self.every = evaluate_every_n_epochs
        self.save_latest, self.restore_best = save_latest, restore_best
        self._saver = saver
        self._standing = Standing(maximize=self.maximize)
        self._seconds, self._started = 0.0, math.nan  # of fits that are over, and when this one began
        self._goes_on = False

    # -- what a fit calls ------------------------------------------------------------------------

    def on_fit_start(self, plan: FitPlan) -> None:
        self._watches = plan.validation is not None or callable(self.monitor)
        wants = [one for one in self.conditions if isinstance(one, EpochCondition) and one.needs_scores]
        if not self._watches and (wants or self.restore_best):
            raise ConfigurationError(
                f"EarlyStopping watches {self.monitor!r} of the validation data, and the fit has none: give "
                "fit(..., validation=...), or a function of the trainer as monitor, such as "
                "monitor=lambda trainer: trainer.calculate_score(data), maximize=False"
            )
        check_name(self.monitor, plan)
        self._plan = plan
        self._network: Network = plan.trainer.network
        self._keeper = self._saver or (FileModelSaver(plan.run.path) if plan.run else InMemoryModelSaver())
        if not self._goes_on:
            self._standing, self._seconds = Standing(maximize=self.maximize), 0.0
        self._goes_on, self.result = False, None
        self._before: int = self._network.epoch - self._standing.epochs  # epochs that do not count here
        self._last = self._standing.epochs + plan.epochs
        self._started = time.monotonic()
        self._ended: tuple[Reason, str] | None = None

    def validates(self, epoch: int) -> bool:
        return (epoch - self._before) % self.every == 0

    def on_round(self, progress: Progress) -> bool:
        return self._check_iteration(progress.score)

    def on_epoch_end(self, record: EpochRecord) -> bool:
        self._standing = replace(self._standing, epochs=self._standing.epochs + 1)
        if self._watches and self._standing.epochs % self.every == 0:
            self._evaluate(record)
        if self.save_latest:
            self._keeper.save("latest", self._network)
        if not self._check_iteration(record.score):
            met = [c for c in self.conditions if isinstance(c, EpochCondition) and c.ends(self._standing)]
            self._end("epoch_condition", met)
        return self._ended is not None

    def on_error(self, error: Exception) -> bool:
        if nonfinite_of(error) is not None:
            met = [c for c in self.conditions if isinstance(c, IterationCondition) and c.ends(0.0, math.nan)]
            if met:
                logger.warning("the fit ends with the last epoch's network: %s", error)
                self._end("iteration_condition", met)
                return True
        self._ended = ("error", f"{type(error).__name__}: {error}")
        return False

    def on_fit_end(self) -> None:
        self._seconds, self._started = self._elapsed(), math.nan
        best, network = self._standing.best, self._best_network()
        reason, details = self._ended or self._not_ended()
        self.result = EarlyStoppingResult(
            reason,
            details,
            {one.epoch: one.score for one in self._standing.scores},
            best.epoch if best else None,
            best.score if best else math.nan,
            self._standing.epochs,
            network,
        )
        if self._plan.run is not None:
            record = {name: value for name, value in vars(self.result).items() if name != "best_network"}
            self._plan.run.write(_RECORD, record)
        if self.restore_best and network is not None:
            self._keeper.load("best", self._network)

    def _best_network(self) -> Network | None:
        best = self._standing.best
        return None if best is None else _load_best(self._keeper, self._network, best.epoch)

    def restore(self, finished: FinishedRun, network: Network) -> None:
        """Take the result of a run that has ended; None where it had no early stopping. `network` is what it left."""
        self.result = None
        if (values := finished.read(_RECORD)) is None:
            return
        try:
            best = values["best_epoch"]
            self.result = EarlyStoppingResult(
                values["reason"],
                values["details"],
                {int(epoch): _read_score(score) for epoch, score in values["scores"].items()},
                best,
                _read_score(values["best_score"]),
                int(values["epochs"]),
                None if best is None else _load_best(self._saver or FileModelSaver(finished.path), network, best),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{finished.path}/{_RECORD} is damaged: {type(error).__name__}: {error}") from None

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return epochs, seconds and scores so far; the networks stay with the saver."""
        scores = [[one.epoch, one.after, _written(one.score)] for one in self._standing.scores]
        return {"epochs": self._standing.epochs, "seconds": self._elapsed(), "scores": scores}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the next fit where another one was; without this every fit begins anew."""
        scores = tuple(Scored(int(epoch), int(after), float(score)) for epoch, after, score in state["scores"])
        self._standing = Standing(int(state["epochs"]), scores, self.maximize)
        self._seconds, self._goes_on = float(state["seconds"]), True

    # -- parts -----------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return self._seconds + (0.0 if math.isnan(self._started) else time.monotonic() - self._started)

    def _check_iteration(self, loss: float) -> bool:
        if self._ended is None:
            seconds = self._elapsed()
            met = [c for c in self.conditions if isinstance(c, IterationCondition) and c.ends(seconds, loss)]
            self._end("iteration_condition", met)
        return self._ended is not None

    def _end(self, reason: Reason, met: Sequence[object]) -> None:
        if met:
            self._ended = (reason, "; ".join(map(repr, met)))

    def _not_ended(self) -> tuple[Reason, str]:
        if self._standing.epochs == self._last:
            return "epochs", "the epochs asked for are over"
        return "interrupted", "something else ended the fit"

    def _evaluate(self, record: EpochRecord) -> None:
        before = self._standing.best
        scored = Scored(record.epoch, self._standing.epochs, watch(self.monitor, self._plan, record))
        self._standing = replace(self._standing, scores=(*self._standing.scores, scored))
        if self._standing.best != before:
            self._keeper.save("best", self._network)


def _load_best(saver: ModelSaver, like: Network, epoch: int) -> Network | None:
    """Return a copy of a network with the best values; None where the saver has them no more."""
    network = copy.deepcopy(like)
    if saver.load("best", network):
        return network
    logger.warning("the best network, of epoch %d, is not with %s", epoch, type(saver).__name__)
    return None


def _check_conditions(given: Any) -> tuple[EpochCondition | IterationCondition, ...]:
    if isinstance(given, EpochCondition | IterationCondition) or not isinstance(given, Iterable):
        raise ConfigurationError(f"conditions must be a sequence, got {kind_of(given)}: put it into a list")
    conditions = tuple(given)
    if not conditions:
        raise ConfigurationError("EarlyStopping needs at least one condition, such as ScoreImprovement(5)")
    for one in conditions:
        if not isinstance(one, EpochCondition | IterationCondition):
            raise ConfigurationError(f"a condition must be an EpochCondition or IterationCondition, got {one!r}")
    return conditions


def _read_score(score: float | None) -> float:
    """Return a score from a record, in which null stands for what is not finite."""
    return math.nan if score is None else float(score)


def _written(score: float) -> float | str:
    """Return a score for JSON, which knows neither NaN nor infinity; ``float`` reads both forms."""
    return score if math.isfinite(score) else str(score)
