"""What both ways to Spark do with the barrier job of a gang: start it, wait for it, end it."""

from __future__ import annotations

import threading
import time
import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Self

from strombus.errors import ConfigurationError, GangError
from strombus.executors.board import Board

__all__ = ["POLL", "BarrierJob", "refuse_to_survive"]

POLL = 0.25
"""Seconds between two looks at how the job's tasks are."""
LAST_WORDS = 3.0
"""Seconds that members who have stopped get to hand in how they failed."""
CANCEL = 10.0
"""Seconds that Spark gets to end a cancelled job."""


def refuse_to_survive(survive: bool) -> None:
    """Raise ConfigurationError where the others are to go on without a lost member."""
    if survive:
        raise ConfigurationError(
            "Spark ends a barrier stage whole when it loses one of its tasks: the other members cannot go on"
        )


class BarrierJob(ABC):
    """A barrier job in a thread of its own; leaving the context ends what still runs.

    Parameters
    ----------
    thread : type of thread
        PySpark's own, where the job's name and tags are those of the thread.
    """

    def __init__(self, thread: type[threading.Thread] = threading.Thread) -> None:
        self._tag = f"strombus-gang-{uuid.uuid4().hex}"
        self._results: list[Any] | None = None
        self._error: Exception | None = None
        self._thread = thread(target=self._keep, name=self._tag, daemon=True)

    @abstractmethod
    def _run(self) -> list[Any]:
        """Run the job and return what its members gave, by rank."""

    @abstractmethod
    def _cancel(self) -> None:
        """Have Spark end the job."""

    @abstractmethod
    def check(self, board: Board) -> bool:
        """Tell `board` whom Spark has lost, and say whether anybody; raise when the job failed for another reason."""

    def _unfinished(self) -> int:
        """Return a rank whose result is still to come."""
        return 0

    def _keep(self) -> None:
        try:
            self._results = self._run()
        except Exception as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            with suppress(Exception):  # Spark may be gone, and the thread with it
                self._cancel()
            self._thread.join(CANCEL)

    def results(self, board: Board) -> list[Any]:
        """Wait for the results of members who have all finished."""
        deadline = time.monotonic() + board.timeout
        while self._results is None:
            self._thread.join(POLL)
            if self.check(board):
                raise board.error()
            if self._error is not None:
                raise self._error
            if time.monotonic() > deadline:
                raise board.overdue(self._unfinished())
        return [board.accept(rank, result) for rank, result in enumerate(self._results)]

    def with_cause(self, board: Board, error: GangError) -> GangError:
        """Return `error` with the exception that caused it, where that comes in with the results."""
        if not error.traceback:  # a lost member has none, and hands in nothing
            return error
        self._thread.join(LAST_WORDS)
        return board.with_cause(error, self._results or ())
