"""Listeners to training, under DL4J's method names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from strombus.callbacks import Callback, EpochRecord, FitPlan
from strombus.errors import ConfigurationError
from strombus.masters.job import Progress
from strombus.networks import Network

__all__ = ["TrainingListener", "read_listeners"]


class TrainingListener(Callback):
    """Called on the driver, once a round, where DL4J calls copies on the workers; override what you need.

    Attributes
    ----------
    model : Network or None
        What is being trained. It has an epoch's parameters when that has ended, and a round's score after it.
    """

    model: Network | None = None

    def onEpochStart(self, model: Network | None) -> None:
        """Run before an epoch."""

    def onEpochEnd(self, model: Network | None) -> None:
        """Run after an epoch."""

    def iterationDone(self, model: Network | None, iteration: int, epoch: int) -> None:
        """Run after a round; `iteration` counts minibatches on the longest worker's path."""

    def on_fit_start(self, plan: FitPlan) -> None:
        """Call `onEpochStart`."""
        self.onEpochStart(self.model)

    def on_round(self, progress: Progress) -> None:
        """Call `iterationDone`."""
        self.iterationDone(self.model, progress.iteration, progress.epoch)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Call `onEpochEnd`."""
        self.onEpochEnd(self.model)


def read_listeners(values: tuple[Any, ...]) -> list[Callback]:
    """Return the listeners of one of DL4J's four signatures, which have their router if one is given.

    Raises
    ------
    ConfigurationError
        When one is no listener, or there is a router and none takes it.
    """
    router = values[0] if values and hasattr(values[0], "putUpdate") else None
    found: list[Callback] = []
    for one in values if router is None else values[1:]:
        found.extend(one if isinstance(one, Iterable) else [] if one is None else [one])
    if wrong := [type(one).__name__ for one in found if not isinstance(one, Callback)]:
        raise ConfigurationError(f"a listener is a TrainingListener or a strombus callback, got {', '.join(wrong)}")
    takers = [one for one in found if hasattr(one, "setStorageRouter")]
    if router is not None and not takers:
        raise ConfigurationError("a router needs a listener that takes it: one with a method setStorageRouter(router)")
    for one in takers:
        if router is not None:
            one.setStorageRouter(router)
    return found
