"""Metrics as one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from strombus.callbacks.base import EpochRecord, FitPlan
from strombus.callbacks.loggers.base import Entry, MetricLogger
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.files import is_local, normalise, open_storage
from strombus.runs import METRICS, plain

__all__ = ["JsonLinesLogger"]


class JsonLinesLogger(MetricLogger):
    """Append every entry as a line of JSON; a fit with a name has one by itself.

    A line has ``time``, ``epoch``, ``iteration``, ``source``, ``where`` and the figures; what is not finite is null.
    At a URI, where nothing can be appended, the file is written anew after each epoch, for each checkpoint and at the
    end. What cannot be written, such as to a full disk, is warned of and left out.

    Parameters
    ----------
    path : path or URI, optional
        ``metrics.jsonl`` in the run directory by default.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._given = path
        self._file: IO[bytes] | None = None
        self._size = self._there = 0  # bytes that were written, and of these at the URI
        self._kept: int | None = None  # bytes that stay when a fit goes on

    def on_fit_start(self, plan: FitPlan) -> None:
        if self._given is None and plan.run is None:
            raise ConfigurationError("JsonLinesLogger needs a path where the fit has no name")
        self._path = normalise(plan.run.file(METRICS) if self._given is None else self._given)  # type: ignore[union-attr]
        # A line is written by itself, or not at all: nothing is held back in a buffer.
        if is_local(self._path):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - open for the fit
        else:
            self._file = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
            files, path = open_storage(self._path)
            if files.exists(path):
                self._file.write(files.cat_file(path))
        self._size = self._there = self._file.seek(0, os.SEEK_END)
        kept = self._size if self._given is not None and self._kept is None else min(self._kept or 0, self._size)
        if kept < self._size:  # what follows was trained, and lost
            self._cut(kept)
        self._kept = None

    def log(self, entry: Entry) -> None:
        assert self._file is not None
        record = {"time": entry.time, "epoch": entry.epoch, "iteration": entry.iteration, "source": entry.source}
        where = {"where": entry.where} if entry.where else {}
        line = json.dumps(plain({**record, **where, **entry.figures}), allow_nan=False).encode() + b"\n"
        with self._tolerant():
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += len(line)

    def on_epoch_end(self, record: EpochRecord) -> None:
        super().on_epoch_end(record)
        self._upload()

    def on_fit_end(self) -> None:
        if self._file is not None:
            self._upload()
            self._file.close()
            self._file = None

    def state(self) -> dict[str, Any]:
        """Return how much was written, once it is where it should be."""
        self._upload()
        return {} if self._file is None else {"bytes": self._size}

    def load_state(self, state: dict[str, Any]) -> None:
        """Forget, when the fit starts, what was written after `state`."""
        self._kept = int(state["bytes"])

    def _cut(self, size: int) -> None:
        assert self._file is not None
        self._file.truncate(size)
        self._size, self._there = self._file.seek(size), -1

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Leave out what cannot be written: training does not end for a line."""
        try:
            yield
        except OSError as error:
            warnings.warn(f"metrics are missing in {self._path}: {error}", StrombusWarning, stacklevel=3)
            self._cut(self._size)

    def _upload(self) -> None:
        if self._file is None or is_local(self._path) or self._size == self._there:
            return
        with self._tolerant():
            files, path = open_storage(self._path)
            self._file.seek(0)
            files.pipe_file(path, self._file.read())
            self._there = self._size
