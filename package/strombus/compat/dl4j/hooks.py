"""User code around each update, under DL4J's method names."""

from __future__ import annotations

from strombus.networks import Replica
from strombus.types import DataSet, MultiDataSet
from strombus.worker.hooks import TrainingHook as CoreHook

__all__ = ["TrainingHook"]


class TrainingHook(CoreHook):
    """Called on the workers before and after each update.

    Other than in DL4J, what a hook has gathered comes back: see `state` and `collect` of `strombus.TrainingHook`.
    """

    def preUpdate(self, minibatch: DataSet | MultiDataSet, model: Replica) -> None:
        """Run before `minibatch` is fitted; `model.module` is the worker's module."""

    def postUpdate(self, minibatch: DataSet | MultiDataSet, model: Replica) -> None:
        """Run after `minibatch` was fitted."""

    def pre_update(self, batch: DataSet | MultiDataSet, replica: Replica) -> None:
        """Call `preUpdate`."""
        self.preUpdate(batch, replica)

    def post_update(self, batch: DataSet | MultiDataSet, replica: Replica) -> None:
        """Call `postUpdate`."""
        self.postUpdate(batch, replica)
