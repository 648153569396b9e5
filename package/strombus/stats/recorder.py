"""Take the time of phases."""

from __future__ import annotations

import os
import socket
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from strombus.stats.training import TrainingStats
from strombus.types import ClockBounds

__all__ = ["Recorder", "where"]


def where() -> str:
    """Return ``"host:pid"`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Recorder:
    """Time the phases of one place; does nothing when not `enabled`.

    Parameters
    ----------
    enabled : bool
    rank : int or None
        The worker, None for the driver.
    stats : TrainingStats, optional
        Where events go; by default to statistics of its own, which `take` hands out.
    """

    def __init__(self, enabled: bool, rank: int | None = None, stats: TrainingStats | None = None) -> None:
        self.enabled = enabled
        self.rank = rank
        self.stats = TrainingStats() if stats is None else stats
        self._host = where() if enabled else ""

    def phase(self, name: str, **values: Any) -> AbstractContextManager[dict[str, Any]]:
        """Time the block as one event called `name`; figures may be added to the dictionary it gives."""
        return _Phase(self, name, values) if self.enabled else nullcontext(values)

    def note(self, name: str, started: float, seconds: float, values: dict[str, Any]) -> None:
        """Record what was timed elsewhere."""
        if self.enabled:
            self.stats.record(name, self.rank, self._host, started, seconds, values)

    def note_clock(self, bounds: ClockBounds) -> None:
        """Record how far this process's clock is from the driver's."""
        if self.enabled:
            self.stats.note_clock(self._host, bounds)

    def take(self) -> TrainingStats:
        """Return what was recorded since the last call."""
        found, self.stats = self.stats, TrainingStats()
        return found


class _Phase:
    """One block that is timed; an error in it ends the event too."""

    __slots__ = ("_clock", "_name", "_recorder", "_started", "_values")

    def __init__(self, recorder: Recorder, name: str, values: dict[str, Any]) -> None:
        self._recorder, self._name, self._values = recorder, name, values

    def __enter__(self) -> dict[str, Any]:
        self._started, self._clock = time.time(), time.perf_counter()
        return self._values

    def __exit__(self, *_: object) -> None:
        self._recorder.note(self._name, self._started, time.perf_counter() - self._clock, self._values)
