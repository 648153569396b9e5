"""Validation beside training: an epoch's network is scored on free slots while the next epoch is trained."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strombus.callbacks import EpochRecord
from strombus.executors.base import Executor
from strombus.executors.local import LocalExecutor
from strombus.networks import Network
from strombus.types import NetworkState

__all__ = ["Aside", "Pending", "set_aside"]

logger = logging.getLogger(__name__)

Validate = Callable[[Network, Executor], Mapping[str, float]]


@dataclass
class Pending:
    """An epoch that has ended and whose validation runs.

    Parameters
    ----------
    epoch : int
        From zero.
    state : NetworkState or None
        The epoch's.
    record : EpochRecord
        All but the figures.
    began : float
        When the epoch did, in seconds since 1970.
    """

    epoch: int
    state: NetworkState | None
    record: EpochRecord
    began: float
    started: float = field(default_factory=time.time)
    seconds: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)
    _figures: Mapping[str, float] = field(default_factory=dict)
    _error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the figures are there, or an error is."""
        return self._done.is_set()

    def run(self, validate: Validate, network: Network, executor: Executor) -> None:
        """Compute the figures."""
        clock = time.perf_counter()
        try:
            self._figures = validate(network, executor)
        except BaseException as error:
            self._error = error
        self.seconds = time.perf_counter() - clock
        self._done.set()

    def figures(self) -> Mapping[str, float]:
        """Wait for the figures, as long as the executor does."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._figures


class Aside:
    """Validates copies of a network in a thread, on slots that training leaves free.

    Parameters
    ----------
    validate : callable
    spare : Executor
        On the free slots.
    stand_in : Executor
        What is used where none of them is left.
    """

    def __init__(self, validate: Validate, spare: Executor, stand_in: Executor) -> None:
        self._validate, self._spare, self._stand_in = validate, spare, stand_in

    def start(self, pending: Pending, network: Network) -> None:
        """Begin to validate `network` as it is now."""
        executor = self._spare
        if executor.capacity().slots == 0:
            logger.warning("no slot is free any more for validation beside training: it waits for this epoch's")
            executor = self._stand_in
        arguments: tuple[Any, ...] = (self._validate, copy.deepcopy(network), executor)
        if executor is self._stand_in:
            pending.run(*arguments)
        else:
            # A daemon, so that a program whose fit was stopped does not wait for it.
            threading.Thread(target=pending.run, args=arguments, name="strombus-validation", daemon=True).start()


def set_aside(executor: Executor, workers: int, validate: Validate, busy: bool) -> tuple[Executor, Aside | None]:
    """Return the executor for `workers` that train, and what validates beside them; None where no slot is free.

    `busy` says that no worker can validate between two epochs, either.
    """
    training, spare = executor.split(workers)
    if spare is None:
        logger.warning(
            "validation_mode='async' needs slots that are free: %d workers train, and %s has %s slots; epochs are "
            "validated before the next one begins. Give the master fewer workers, or the backend more",
            workers,
            executor.name,
            executor.capacity().slots or "an unknown number of",
        )
        return executor, None
    return training, Aside(validate, spare, LocalExecutor(1) if busy else executor)
