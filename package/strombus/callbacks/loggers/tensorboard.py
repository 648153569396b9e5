"""Metrics for TensorBoard."""

from __future__ import annotations

import os
from typing import Any

from strombus.callbacks.base import FitPlan
from strombus.callbacks.loggers.base import Entry, MetricLogger
from strombus.errors import ConfigurationError
from strombus.files import join

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(MetricLogger):
    """Write scalars for TensorBoard: each worker is a run of its own, so that one chart compares them.

    The runs are ``worker-0``, ``worker-1``, ... and ``all``; the step is the iteration. Needs the extra
    ``strombus[tensorboard]``.

    Parameters
    ----------
    directory : path or URI, optional
        ``tensorboard`` in the run directory by default.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._given = directory
        self._writers: dict[str, Any] = {}

    def on_fit_start(self, plan: FitPlan) -> None:
        if self._given is None and plan.run is None:
            raise ConfigurationError("TensorBoardLogger needs a directory where the fit has no name")
        self._directory = plan.run.file("tensorboard") if self._given is None else os.fspath(self._given)  # type: ignore[union-attr]
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigurationError(
                "TensorBoardLogger needs tensorboard: pip install strombus[tensorboard]"
            ) from error
        self._make = SummaryWriter

    def log(self, entry: Entry) -> None:
        if entry.source not in self._writers:
            self._writers[entry.source] = self._make(join(self._directory, entry.source))
        writer = self._writers[entry.source]
        for name, value in entry.figures.items():
            writer.add_scalar(name, value, entry.iteration, walltime=entry.time)

    def on_fit_end(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
