"""The copies of a network that one process lends to scoring and inference."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from strombus.errors import ExecutorError
from strombus.networks import Network, Replica

__all__ = ["Models"]

PATIENCE = 600.0
"""Seconds to wait for a copy."""


class Models:
    """Up to `copies` working copies of one network, which share its parameters.

    A copy is lent for one pass, never for a whole partition, so that a task that fails or that an engine
    abandons half way keeps none. It travels empty: every process fills its own. DL4J's ``EvaluationRunner``
    is one for the whole process instead, and hands one caller's data to another caller's model.

    Parameters
    ----------
    network : Network
    copies : int
        How many work at the same time in one process (DL4J: ``defaultEvaluationWorkers``).
    """

    def __init__(self, network: Network, copies: int = 1) -> None:
        self.network = network
        self.copies = copies
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._free = threading.Semaphore(self.copies)
        self._first: Replica | None = None
        self._idle: list[Replica] = []

    def __getstate__(self) -> tuple[Network, int]:
        return self.network, self.copies

    def __setstate__(self, state: tuple[Network, int]) -> None:
        self.network, self.copies = state
        self._start_empty()

    @contextmanager
    def lend(self) -> Iterator[Replica]:
        """Lend a copy to the calling thread; it must not be trained.

        Raises
        ------
        ExecutorError
            When none comes back within ten minutes.
        """
        if not self._free.acquire(timeout=PATIENCE):
            raise ExecutorError(
                f"none of the {self.copies} copies of the network came free within {PATIENCE:g} s: a pass through "
                "it takes longer than that; give a smaller batch_size"
            )
        try:
            replica = self._take()
            try:
                yield replica
            finally:
                with self._lock:
                    self._idle.append(replica)
        finally:
            self._free.release()

    def _take(self) -> Replica:
        """Return an idle copy, or make one: the first has the parameters, the others share them."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._first is None:
                self._first = self.network.replica()
                return self._first
            return self._first.twin()
