"""One optimizer step on its way into the residual, as an encoder sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from strombus.compression.stepping import Stepper
from strombus.compression.thresholds import ThresholdAlgorithm, ThresholdState
from strombus.compression.torch_ops import TorchStepper
from strombus.errors import ConfigurationError, NonFiniteError

__all__ = ["Intake", "Store"]

Array = NDArray[Any]

_SAMPLE = 1 << 16
"""Elements that a quantile of the residual is estimated from."""


@dataclass(frozen=True, slots=True)
class Store:
    """What a compressor's steps have in common.

    Parameters
    ----------
    pieces : sequence of Tensor
        The residual as thresholds see it: one view for each.
    codes : ndarray of uint32
        Where quanta go: ``2 * index + sign``, ascending.
    quantum_type : dtype
        What peers read a threshold as.
    """

    stepper: Stepper | TorchStepper
    residual: Tensor
    pieces: Sequence[Tensor]
    codes: Array
    algorithm: ThresholdAlgorithm
    quantum_type: np.dtype[Any]


class Intake:
    """A step of an optimizer that an `Encoder` takes into the residual, and what is sent out of it.

    The step is taken once, by whichever method comes first. An encoder that asks for no threshold sends without one:
    the residual is then not post-processed, and the threshold algorithm learns nothing.

    Parameters
    ----------
    states : sequence of ThresholdState
        Of each threshold.
    iteration : int
        Steps before this one.

    Attributes
    ----------
    used : list of float or None
        The thresholds that the encoder has asked for.
    """

    __slots__ = ("_iteration", "_optimizer", "_states", "_store", "_taken", "used")

    def __init__(self, store: Store, optimizer: Optimizer, states: Sequence[ThresholdState], iteration: int) -> None:
        self._store, self._optimizer, self._states, self._iteration = store, optimizer, states, iteration
        self._taken = False
        self.used: list[float] | None = None

    @property
    def length(self) -> int:
        """Elements of the residual."""
        return len(self._store.residual)

    def residual(self) -> Tensor:
        """Return the residual with the step in it, shape (n,), on the parameters' device; take out what is sent.

        Raises
        ------
        NonFiniteError
            When it became infinite or NaN.
        """
        if not self._taken:
            never = [float(torch.finfo(self._store.residual.dtype).max)]
            self._take(never)
        return self._store.residual

    def thresholds(self) -> list[float]:
        """Return the step's thresholds: one, or one for each parameter tensor.

        Raises
        ------
        NonFiniteError
            See `residual`.
        ConfigurationError
            For a threshold that the type of what is sent cannot hold.
        """
        if self.used is None:
            self.used = self._checked(self._planned() or self._estimates())
        return self.used

    def quanta(self) -> tuple[Array, int, Array]:
        """Take plus or minus a threshold out of each element that has reached it.

        Where the thresholds are known before the step, both are one pass over memory.

        Returns
        -------
        codes : ndarray of uint32
            ``2 * index + sign``, ascending; valid up to `count`, and until the next step.
        count : int
        thresholds : ndarray, shape (tensors,), in the residual's type
        """
        planned = None if self._taken else self._planned()
        if planned is None:
            count = self._store.stepper.select(self.thresholds())
        else:
            self.used = self._checked(planned)
            count = self._take(self.used)
        return self._store.codes, count, np.array(self.used, self._store.quantum_type)

    def check(self, finite: bool) -> None:
        """Raise NonFiniteError unless what is to be sent is `finite`."""
        if not finite:
            raise NonFiniteError(
                f"the update became infinite or NaN in step {self._iteration}, its loss is finite; lower the learning "
                "rate, clip gradients (the network's clip_grad_norm), or see on_nonfinite",
                "update",
            )

    def _take(self, thresholds: Sequence[float]) -> int:
        count = self._store.stepper.step(self._optimizer, thresholds)
        self._taken = True
        self.check(count >= 0)
        return count

    def _planned(self) -> list[float] | None:
        """Return the thresholds; None when they are to be estimated from the residual."""
        found = [self._store.algorithm.next(state) for state in self._states]
        return None if any(one is None for one in found) else [float(one) for one in found if one is not None]

    def _estimates(self) -> list[float]:
        self.residual()
        algorithm = self._store.algorithm
        return [
            algorithm.bound(_quantile(piece, algorithm.share_to_estimate(state)))
            for piece, state in zip(self._store.pieces, self._states, strict=True)
        ]

    def _checked(self, thresholds: list[float]) -> list[float]:
        known = np.finfo(self._store.quantum_type)
        for one in thresholds:
            if not float(known.smallest_subnormal) <= one <= float(known.max):
                raise ConfigurationError(
                    f"the threshold {one:g} is outside the range of {known.dtype}: bound it with the threshold "
                    "algorithm's minimum_threshold and maximum_threshold"
                )
        return thresholds


def _quantile(residual: Tensor, share: float) -> float:
    """Return the threshold that about `share` of the elements reach; of those that are not zero, if few are."""
    sample = residual[:: _prime(len(residual) // _SAMPLE)].abs().cpu().numpy()
    if not sample.any():
        sample = residual.abs().cpu().numpy()
    found = float(np.quantile(sample, 1 - share)) if len(sample) else 0.0
    if found:
        return found
    rest = sample[sample > 0]
    return float(np.median(rest)) if len(rest) else 1.0


def _prime(number: int) -> int:
    """Return the first prime from `number` on, or 1: every so many elements are of no row's or image's one column."""
    while number > 1 and any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return max(1, number)
