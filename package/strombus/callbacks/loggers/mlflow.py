"""Metrics for MLflow."""

from __future__ import annotations

import math
import time
from typing import Any

from strombus.callbacks.base import EpochRecord, FitPlan
from strombus.callbacks.loggers.base import Entry, MetricLogger
from strombus.errors import ConfigurationError

__all__ = ["MlflowLogger"]

_SEND_EVERY = 1.0
"""Seconds between two requests to the tracking server, at least."""
_LARGEST_BATCH = 1000
"""Metrics that MLflow takes in one request."""


class MlflowLogger(MetricLogger):
    """Log one MLflow run: metrics ``worker-0/loss``, ..., ``all/validation_score``, the step being the iteration.

    What is not finite is left out, since MLflow's stores differ in what they do with it. Needs the extra
    ``strombus[mlflow]``. MLflow's active run is neither used nor changed.

    Parameters
    ----------
    experiment : str
        Made if it does not exist.
    run_name : str, optional
        The fit's name by default.
    tracking_uri : str, optional
        MLflow's own setting by default.
    """

    def __init__(
        self, experiment: str = "strombus", run_name: str | None = None, tracking_uri: str | None = None
    ) -> None:
        self._experiment, self._name, self._uri = experiment, run_name, tracking_uri
        self._run: str | None = None
        self._before: str | None = None
        self._failed = False

    def on_fit_start(self, plan: FitPlan) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        except ImportError as error:
            raise ConfigurationError("MlflowLogger needs mlflow: pip install strombus[mlflow]") from error
        self._metric, self._client = Metric, MlflowClient(self._uri)
        self._waiting: list[Any] = []
        self._sent, self._failed = 0.0, False
        self._run, self._before = self._before or self._start(plan), None

    def _start(self, plan: FitPlan) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        number = found.experiment_id if found else self._client.create_experiment(self._experiment)
        name = self._name or (plan.run.name if plan.run else None)
        run: str = self._client.create_run(number, run_name=name).info.run_id
        for key in ("epochs", "examples", "workers", "backend", "seed"):
            self._client.log_param(run, key, getattr(plan, key))
        return run

    def log(self, entry: Entry) -> None:
        when = round(entry.time * 1000)
        for name, value in entry.figures.items():
            if math.isfinite(value):
                self._waiting.append(self._metric(f"{entry.source}/{name}", float(value), when, entry.iteration))
        if time.monotonic() - self._sent > _SEND_EVERY:
            self._send()

    def on_epoch_end(self, record: EpochRecord) -> None:
        super().on_epoch_end(record)
        self._send()

    def on_error(self, error: Exception) -> None:
        self._failed = True

    def on_fit_end(self) -> None:
        self._send()
        self._client.set_terminated(self._run, "FAILED" if self._failed else "FINISHED")

    def _send(self) -> None:
        for start in range(0, len(self._waiting), _LARGEST_BATCH):
            self._client.log_batch(self._run, metrics=self._waiting[start : start + _LARGEST_BATCH])
        self._waiting, self._sent = [], time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return the MLflow run, which another logger goes on with."""
        return {"run": self._run}

    def load_state(self, state: dict[str, Any]) -> None:
        self._before = state["run"]
