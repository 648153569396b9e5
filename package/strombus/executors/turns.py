"""Whose turn it is in a process: torch has one CPU generator and one thread count for all that trains in it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

__all__ = ["Turns"]

logger = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks at whether a holder has been given up."""
_SAY = 3.0
"""Seconds of waiting after which the log says so."""
_GRACE = 3.0
"""Seconds after which a holder that was told to end, and hangs, is waited for no longer."""


class _Turn:
    """One holder's time: the members of a gang in one process share it, and so do nested calls of a thread."""

    def __init__(self, holder: Hashable, left: Callable[[], bool]) -> None:
        self.holder, self.threads = holder, Counter[int]()
        self._left, self._since = left, float("inf")

    def is_given_up(self) -> bool:
        """Say whether the holder was told to end some time ago."""
        now = time.monotonic()
        self._since = min(self._since, now) if self._left() else float("inf")
        return now - self._since > _GRACE


class Turns:
    """Lets one task that trains, or the members of one gang, work in a process at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._now: _Turn | None = None

    @contextmanager
    def take(
        self, holder: Hashable = None, left: Callable[[], bool] = lambda: False, timeout: float | None = None
    ) -> Iterator[None]:
        """Wait for a turn, and hold it for a ``with`` block; within one, a thread has it at once.

        Parameters
        ----------
        holder : hashable, optional
            Who shares the turn; by default nobody.
        left : callable
            Says that the holder was told to end: if it does not within seconds, it has lost its turn.
        timeout : float, optional
            Seconds to wait.

        Raises
        ------
        TimeoutError
            When the turn did not come in time.
        """
        me, turn = threading.get_ident(), self._wait(object() if holder is None else holder, left, timeout)
        try:
            yield
        finally:
            with self._changed:
                turn.threads[me] -= 1
                turn.threads += Counter()  # without zeros
                if not turn.threads and self._now is turn:
                    self._now = None
                    self._changed.notify_all()

    def _wait(self, holder: Hashable, left: Callable[[], bool], timeout: float | None) -> _Turn:
        started, said = time.monotonic(), False
        with self._changed:
            while (now := self._now) is not None and now.holder != holder and not now.threads[threading.get_ident()]:
                waited = time.monotonic() - started
                if now.is_given_up():
                    logger.warning("training goes on beside a fit that was told to end in this process, and hangs")
                    self._now = None
                    break
                if waited > _SAY and not said:
                    said = True
                    logger.warning("waiting for another fit in this process, which has torch's random numbers")
                if timeout is not None and waited > timeout:
                    raise TimeoutError(f"waited {timeout:g} s for another fit in this process to end")
                self._changed.wait(_LOOK if timeout is None else min(_LOOK, max(0.01, timeout - waited)))
            if self._now is None:
                self._now = _Turn(holder, left)
            self._now.threads[threading.get_ident()] += 1
            return self._now
