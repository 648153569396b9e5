"""User code around each update, on the worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from strombus.networks import Replica
from strombus.stats import Recorder
from strombus.types import DataSet, MultiDataSet

__all__ = ["TrainingHook", "call_hooks"]


class TrainingHook:
    """Called on the workers before and after each update (DL4J: ``TrainingHook``).

    Every round works on a fresh copy of the hook. What it has gathered goes back to the driver
    through `state` and `collect`; a round that an engine runs twice is collected once.
    """

    def pre_update(self, batch: DataSet | MultiDataSet, replica: Replica) -> None:
        """Run before the minibatch is fitted; `replica.module` is the worker's module."""

    def post_update(self, batch: DataSet | MultiDataSet, replica: Replica) -> None:
        """Run after the minibatch was fitted."""

    def state(self) -> Any:
        """Return what the driver should get from this worker's round; None for nothing."""
        return None

    def collect(self, rank: int, state: Any) -> None:
        """Take what `state` returned on worker `rank`; called on the driver, in order of round and rank."""


def call_hooks(
    hooks: Sequence[TrainingHook],
    method: Literal["pre_update", "post_update"],
    batch: DataSet | MultiDataSet,
    replica: Replica,
    recorder: Recorder,
) -> None:
    """Call `method` of all hooks in their order, as one timed phase; of none there is nothing to time."""
    if hooks:
        with recorder.phase("hook"):
            for hook in hooks:
                getattr(hook, method)(batch, replica)
