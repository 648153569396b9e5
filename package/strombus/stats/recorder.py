"""Take the time of phases."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strombus.types import Event

__all__ = ["Recorder", "where"]


def where() -> str:
    """Return ``"host:pid"`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Recorder:
    """Collect events of one place; does nothing when not `enabled`.

    Parameters
    ----------
    enabled : bool
    rank : int or None
        The worker, None for the driver.
    """

    def __init__(self, enabled: bool, rank: int | None = None) -> None:
        self.enabled = enabled
        self.rank = rank
        self.events: list[Event] = []
        self._host = where() if enabled else ""

    @contextmanager
    def phase(self, name: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Time the block as one event called `name`; figures may be added to the dictionary it gives."""
        started, clock = time.time(), time.perf_counter()
        try:
            yield values
        finally:
            if self.enabled:
                seconds = time.perf_counter() - clock
                self.events.append(Event(name, self.rank, started, seconds, self._host, values))
