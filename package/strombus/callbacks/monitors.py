"""What early stopping watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strombus.callbacks.base import EpochRecord, FitPlan
from strombus.errors import ConfigurationError
from strombus.evaluation import Metric

__all__ = ["MetricValue", "Monitor", "check_name", "higher_is_better", "watch"]

_HIGHER_IS_BETTER = {"score": False, "accuracy": True}


@dataclass(frozen=True)
class MetricValue:
    """A figure of a metric on the validation data.

    Parameters
    ----------
    metric : Metric
        Such as `Evaluation`; a fresh one is filled for each evaluation.
    value : str
        Its method or attribute, such as ``"f1"``.
    """

    metric: Metric
    value: str

    def __post_init__(self) -> None:
        if not hasattr(self.metric, self.value):
            raise ConfigurationError(f"{type(self.metric).__name__} has no {self.value!r}")

    def of(self, plan: FitPlan) -> float:
        """Return the figure for the trainer's network."""
        found = getattr(plan.trainer.do_evaluation(plan.validation, [self.metric])[0], self.value)
        return float(found() if callable(found) else found)


Monitor = str | MetricValue | Callable[[Any], float]


def higher_is_better(monitor: Monitor, maximize: bool | None) -> bool:
    """Return `maximize`; where it is None, what is known of the name.

    Raises
    ------
    ConfigurationError
        Where nothing is known.
    """
    if maximize is not None:
        return maximize
    if isinstance(monitor, str) and monitor in _HIGHER_IS_BETTER:
        return _HIGHER_IS_BETTER[monitor]
    raise ConfigurationError(f"say whether a higher {monitor!r} is better: maximize=True or maximize=False")


def check_name(monitor: Monitor, plan: FitPlan) -> None:
    """Raise ConfigurationError for a name that is no validation figure of this network."""
    known = ["score", *(["accuracy"] if plan.trainer.network.classifies else [])]
    if isinstance(monitor, str) and monitor not in known:
        raise ConfigurationError(f"no validation figure is called {monitor!r}; known: {', '.join(known)}")


def watch(monitor: Monitor, plan: FitPlan, record: EpochRecord) -> float:
    """Return the score of the epoch's network."""
    if isinstance(monitor, MetricValue):
        return monitor.of(plan)
    if not isinstance(monitor, str):
        return float(monitor(plan.trainer))
    if monitor not in record.validation:
        raise ConfigurationError(
            f"epoch {record.epoch} has no validation figure {monitor!r}: it was not validated, or all of it is masked"
        )
    return record.validation[monitor]
