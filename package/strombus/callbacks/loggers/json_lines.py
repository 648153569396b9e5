"""Metrics as one JSON object a line."""

from __future__ import annotations

import json
import os
import tempfile
from typing import IO, Any

import fsspec

from strombus.callbacks.base import EpochRecord, FitPlan
from strombus.callbacks.loggers.base import Entry, MetricLogger
from strombus.errors import ConfigurationError
from strombus.files import is_local, normalise
from strombus.runs import METRICS, plain

__all__ = ["JsonLinesLogger"]


class JsonLinesLogger(MetricLogger):
    """Append every entry as a line of JSON; a fit with a name has one by itself.

    A line has ``time``, ``epoch``, ``iteration``, ``source``, ``where`` and the figures; what is not finite is null.
    At a URI, where nothing can be appended, the file is written anew after each epoch and at the end.

    Parameters
    ----------
    path : path or URI, optional
        ``metrics.jsonl`` in the run directory by default.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._given = path
        self._file: IO[str] | None = None
        self._length: int | None = None  # of what is kept when a fit goes on

    def on_fit_start(self, plan: FitPlan) -> None:
        if self._given is None and plan.run is None:
            raise ConfigurationError("JsonLinesLogger needs a path where the fit has no name")
        self._path = normalise(plan.run.file(METRICS) if self._given is None else self._given)  # type: ignore[union-attr]
        if is_local(self._path):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - open for the fit
        else:
            self._file = tempfile.NamedTemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
            files, path = fsspec.core.url_to_fs(self._path)
            if files.exists(path):
                self._file.write(files.cat_file(path).decode())
        if self._length is not None:  # what follows was trained, and lost
            self._file.truncate(min(self._length, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
            self._length = None

    def log(self, entry: Entry) -> None:
        assert self._file is not None
        line = {"time": entry.time, "epoch": entry.epoch, "iteration": entry.iteration, "source": entry.source}
        where = {"where": entry.where} if entry.where else {}
        self._file.write(json.dumps(plain({**line, **where, **entry.figures}), allow_nan=False) + "\n")
        self._file.flush()

    def on_epoch_end(self, record: EpochRecord) -> None:
        super().on_epoch_end(record)
        self._upload()

    def on_fit_end(self) -> None:
        if self._file is not None:
            self._upload()
            self._file.close()
            self._file = None

    def state(self) -> dict[str, Any]:
        """Return how much was written."""
        return {} if self._file is None else {"bytes": self._file.tell()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Forget, when the fit starts, what was written after `state`."""
        self._length = int(state["bytes"])

    def _upload(self) -> None:
        if self._file is not None and not is_local(self._path):
            files, path = fsspec.core.url_to_fs(self._path)
            files.put_file(self._file.name, path)
