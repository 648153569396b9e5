"""What becomes of a minibatch whose numbers are not finite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from typing import Literal

from strombus.errors import NonFiniteError
from strombus.networks import Replica, StepResult

__all__ = ["Guard", "OnNonfinite", "Place"]

logger = logging.getLogger(__name__)

OnNonfinite = Literal["raise", "skip", "rollback"]
Place = tuple[int, int, int, int]
"""Epoch and worker, both from zero, the round (or cell, or step) of the epoch, and the minibatch in it."""


class Guard:
    """Takes the steps of one replica, or leaves them out.

    Parameters
    ----------
    replica : Replica
    policy : {"raise", "skip", "rollback"}
        With "skip" a loss or gradient that is not finite leaves its minibatch out: the optimizer does not see it, and
        the module's buffers are as before. Otherwise it raises, with its place.
    left_out : set of tuple
        The places of minibatches that are left out in any case.
    """

    def __init__(self, replica: Replica, policy: OnNonfinite, left_out: Set[Place] = frozenset()) -> None:
        self._replica, self._left_out = replica, left_out
        self.skips = policy == "skip"
        self._last: Place | None = None

    def leaves_out(self, place: Place) -> bool:
        """Say whether a minibatch is to be left out without a look at it; it is counted then."""
        if place not in self._left_out:
            return False
        self._replica.leave_out({})
        return True

    def attempt(self, place: Place, step: Callable[[bool], StepResult]) -> StepResult | None:
        """Take a step, which is told whether to check the gradient; return None where the minibatch was left out.

        Raises
        ------
        NonFiniteError
            When the loss, or the gradient where it is checked, is not finite, and such minibatches are not left out;
            when the parameters are not.
        """
        before = self._replica.buffers() if self.skips else {}
        try:
            result = step(self.skips)
        except NonFiniteError as error:
            if error.what == "parameters":
                raise self._after_last(error, place) from error
            if not self.skips:
                raise error.at(place) from error
            logger.warning("a minibatch is left out: %s", error.at(place))
            self._replica.leave_out(before)
            return None
        self._last = place
        return result

    def check_parameters(self, place: Place) -> None:
        """Raise NonFiniteError unless the parameters are finite after the last step; `place` is where that is known."""
        try:
            self._replica.check_parameters()
        except NonFiniteError as error:
            raise self._after_last(error, place) from error

    def _after_last(self, error: NonFiniteError, place: Place) -> NonFiniteError:
        """Blame the step that was taken last: before it the parameters were finite, or its loss would not have been."""
        return error.at(place, blames=False) if self._last is None else error.at(self._last)
