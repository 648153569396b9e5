"""The state of a network as plain NumPy arrays: what travels between driver and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NetworkState", "UpdaterState"]


@dataclass(frozen=True)
class UpdaterState:
    """State of an optimizer (DL4J's "updater") and of its learning-rate schedule.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        ``"<parameter index>.<name>"`` to the optimizer's array of that name (``"0.exp_avg"``).
        Arrays of one or more dimensions are averaged; 0-d arrays (step counts) are taken from
        the worker that did the most steps.
    groups : tuple of mapping
        Hyper-parameters of each parameter group, without the parameters (``lr``, ``momentum``, ...).
    schedule : mapping or None
        ``state_dict()`` of the learning-rate schedule.
    """

    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()
    schedule: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class NetworkState:
    """Everything of a network that training changes.

    Parameters
    ----------
    parameters : ndarray, shape (n,), the network's dtype
        The trainable parameters as one flat vector, in the order of ``module.parameters()``.
    buffers : mapping of str to ndarray
        The module's buffers by name; floating ones are averaged, others take the maximum.
    updater : UpdaterState or None
        None before the first step.
    iteration : int
        Minibatches on the longest worker's path since the network was made.
    """

    parameters: NDArray[Any]
    buffers: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    updater: UpdaterState | None = None
    iteration: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        tensors = self.updater.tensors if self.updater else {}
        arrays = [self.parameters, *self.buffers.values(), *tensors.values()]
        return sum(np.asarray(array).nbytes for array in arrays)
