"""After which failures a fit goes on from its last checkpoint: with whom, and without which minibatches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from strombus.errors import ConfigurationError, GangUnavailable, MemberLost, nonfinite_of
from strombus.executors.base import Executor
from strombus.masters.job import Recovery

__all__ = ["Attempts"]

logger = logging.getLogger(__name__)

_COMING_BACK = 5.0
"""Seconds in which an engine may have started a lost worker again; then those left go on without it."""
_LOOK = 0.2
"""Seconds between two looks at how many are there."""


class Attempts:
    """The attempts of one fit.

    Parameters
    ----------
    recovery : Recovery
    executor : Executor
    keeps : bool
        Whether there are checkpoints to go on from.

    Attributes
    ----------
    failures : list of str
        Why attempts were given up.
    left_out : frozenset of tuple
        The places of minibatches that the next one does not train.

    Raises
    ------
    ConfigurationError
        For attempts that need checkpoints, where there are none.
    """

    def __init__(self, recovery: Recovery, executor: Executor, keeps: bool) -> None:
        if recovery.survives and not executor.survives:
            raise ConfigurationError(
                f"on_peer_lost='continue' is not for the backend {executor.name}, which ends all members when one is "
                "lost (on Spark they are one barrier stage); on_peer_lost='restart' goes on from the last checkpoint"
            )
        if not keeps and ((recovery.max_failures and not recovery.survives) or recovery.max_rollbacks):
            what = 'on_nonfinite="rollback"' if recovery.max_rollbacks else "max_failures"
            raise ConfigurationError(f"{what} needs checkpoints to go on from: give the fit a name")
        self._recovery, self._executor, self._keeps = recovery, executor, keeps
        self._lost = self._broken = 0
        self.failures: list[str] = []
        self.left_out: frozenset[tuple[int, int, int, int]] = frozenset()

    @property
    def survives(self) -> bool:
        """Whether the others carry on when the next worker is lost."""
        return self._recovery.survives and self._lost < self._recovery.max_failures

    def regroup(self, there: Callable[[], int] | None, lost: Exception | None, why: str) -> int:
        """Return how many workers carry on: those that are there, at least `min_workers` where one was `lost`.

        `there` counts them; None where nothing is left to do.
        """
        workers = 0 if there is None else self._wait(there, 1 if lost is None else self._recovery.min_workers, lost)
        if lost is not None:
            self._lost += 1
            self.failures.append(why)
            logger.warning("going on with %d workers: %s", workers, why)
        return workers

    def goes_on(self, error: Exception) -> bool:
        """Say whether another attempt is made after `error`."""
        if not self._keeps:
            return False
        if isinstance(error, MemberLost):
            return self._lost < self._recovery.max_failures
        broken = nonfinite_of(error)
        if broken is None or not self._recovery.max_rollbacks:
            return False
        if broken.place is None:
            error.add_note("the fit does not go back to its last checkpoint, since no minibatch is at fault")
        elif self._broken >= self._recovery.max_rollbacks:
            error.add_note(f"the fit went back to its last checkpoint {self._broken} times (option `max_rollbacks`)")
        else:
            return True
        return False

    def begin(self, workers: int, error: Exception) -> int:
        """Return how many workers the attempt after `error` has, of which the one before had `workers`."""
        self.failures.append(str(error))
        broken = nonfinite_of(error)
        if broken is None or broken.place is None:
            self._lost += 1
            there = self._workers_left(workers, error)
            if there != workers:
                self.left_out = frozenset()  # the rows are dealt otherwise now: what breaks again is found again
            logger.warning("attempt %d goes on with %d workers: %s", len(self.failures) + 1, there, error)
            return there
        self._broken += 1
        self.left_out |= {broken.place}
        logger.warning("attempt %d goes on without the minibatch that broke: %s", len(self.failures) + 1, error)
        return workers

    def _workers_left(self, wanted: int, lost: Exception) -> int:
        """Return as many workers as before where they come back soon, or those left.

        Raises the error again when fewer than `min_workers` are there in time.
        """
        started = time.monotonic()

        def there() -> int:
            slots = self._executor.capacity().slots
            return wanted if slots is None else min(wanted, slots)

        while there() < wanted and time.monotonic() - started < _COMING_BACK:
            time.sleep(_LOOK)
        return self._wait(there, min(wanted, self._recovery.min_workers), lost)

    def _wait(self, there: Callable[[], int], least: int, lost: Exception | None) -> int:
        """Wait until as many as `least` are there; raise the error again when they are not in time."""
        started = time.monotonic()
        while (found := there()) < least:
            waited = time.monotonic() - started
            if waited > self._recovery.timeout:
                error = lost or GangUnavailable("no worker is left")
                error.add_note(
                    f"no other attempt was made: {found} workers are there after {waited:.0f} s (option `timeout`), "
                    f"wanted {least} (option `min_workers`)"
                )
                raise error
            time.sleep(_LOOK)
        return found
