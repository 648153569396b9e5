"""Threshold algorithms, residual post-processors and repartitioners with DL4J's constructors and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from strombus import compression, partitioning
from strombus.compat.dl4j.beans import checked
from strombus.compression.thresholds import ThresholdState
from strombus.compression.thresholds.base import DECAY

__all__ = [
    "AdaptiveThresholdAlgorithm",
    "DefaultRepartitioner",
    "EqualRepartitioner",
    "FixedThresholdAlgorithm",
    "NoOpRepartitioner",
    "NoOpResidualPostProcessor",
    "ResidualClippingPostProcessor",
    "TargetSparsityThresholdAlgorithm",
    "with_dl4j_names",
]

_DENSE_SPARSITY = 1 / 16
"""What DL4J takes a bitmap message for: 2 bits of 32 for each element."""

if TYPE_CHECKING:
    _Threshold = compression.ThresholdAlgorithm
    _Residual = compression.ResidualPostProcessor
else:  # a second model among the bases would bring fields that the first one has changed
    _Threshold = _Residual = object


class _ThresholdMethods(_Threshold):
    def calculateThreshold(
        self,
        iteration: int,
        epoch: int,
        lastThreshold: float | None = None,
        lastWasDense: bool | None = None,
        lastSparsity: float | None = None,
        updatesPlusResidual: Any = None,
    ) -> float | None:
        """Return the next step's threshold; None where it is to be found from the residual.

        Everything that decides comes with the call, since an algorithm keeps no state.
        """
        share = _DENSE_SPARSITY if lastSparsity is None and lastWasDense else lastSparsity
        return self.next(ThresholdState(lastThreshold, share, iteration))

    def clone(self) -> Self:
        """Return an equal algorithm."""
        return self.model_copy()


class _ResidualMethods(_Residual):
    def processResidual(self, iteration: int, epoch: int, lastThreshold: float, residualVector: Any) -> None:
        """Change the residual in place, after an update was taken out of it."""
        self.process_(residualVector, lastThreshold, iteration)

    def clone(self) -> Self:
        """Return an equal post-processor."""
        return self.model_copy()


class AdaptiveThresholdAlgorithm(_ThresholdMethods, compression.AdaptiveThresholdAlgorithm):
    """Keep the share of sent elements in a band, starting at DL4J's threshold.

    `strombus.AdaptiveThresholdAlgorithm` without a first threshold finds one by itself, and is better at it.
    """

    def __init__(
        self,
        initialThreshold: float | None = 1e-4,
        minTargetSparsity: float = 1e-4,
        maxTargetSparsity: float = 1e-2,
        decayRate: float = DECAY,
        **bounds: float,
    ) -> None:
        with checked(type(self)):
            super().__init__(
                initial_threshold=initialThreshold,
                min_target_sparsity=minTargetSparsity,
                max_target_sparsity=maxTargetSparsity,
                decay_rate=decayRate,
                **bounds,
            )


class FixedThresholdAlgorithm(_ThresholdMethods, compression.FixedThresholdAlgorithm):
    """Keep one threshold."""

    def __init__(self, threshold: float, **bounds: float) -> None:
        with checked(type(self)):
            super().__init__(threshold=threshold, **bounds)

    def getThreshold(self) -> float:
        """Return the threshold."""
        return self.threshold


class TargetSparsityThresholdAlgorithm(_ThresholdMethods, compression.TargetSparsityThresholdAlgorithm):
    """Aim at one share of sent elements, starting at DL4J's threshold."""

    def __init__(
        self,
        initialThreshold: float | None = 1e-4,
        sparsityTarget: float = 1e-3,
        decayRate: float = DECAY,
        **bounds: float,
    ) -> None:
        with checked(type(self)):
            super().__init__(
                initial_threshold=initialThreshold, sparsity_target=sparsityTarget, decay_rate=decayRate, **bounds
            )


class ResidualClippingPostProcessor(_ResidualMethods, compression.ResidualClippingPostProcessor):
    """Clip residuals to a multiple of the threshold, every few iterations."""

    def __init__(self, thresholdMultipleClipValue: float = 5.0, frequency: int = 5) -> None:
        with checked(type(self)):
            super().__init__(threshold_multiple_value=thresholdMultipleClipValue, frequency=frequency)


class NoOpResidualPostProcessor(_ResidualMethods, compression.NoOpResidualPostProcessor):
    """Leave the residual as it is."""


class DefaultRepartitioner(partitioning.DefaultRepartitioner):
    """Cut the rows into partitions of about one minibatch, 5000 of them at most unless told otherwise."""

    def __init__(self, maxPartitions: int = 5000) -> None:
        with checked(type(self)):
            super().__init__(max_partitions=maxPartitions)


class EqualRepartitioner(partitioning.EqualRepartitioner):
    """Give every worker one partition; sizes differ by at most one row."""


class NoOpRepartitioner(partitioning.NoOpRepartitioner):
    """Keep the parts the data came in."""


_WITH_NAMES: dict[type[BaseModel], type[BaseModel]] = {
    compression.AdaptiveThresholdAlgorithm: AdaptiveThresholdAlgorithm,
    compression.FixedThresholdAlgorithm: FixedThresholdAlgorithm,
    compression.TargetSparsityThresholdAlgorithm: TargetSparsityThresholdAlgorithm,
    compression.ResidualClippingPostProcessor: ResidualClippingPostProcessor,
    compression.NoOpResidualPostProcessor: NoOpResidualPostProcessor,
    partitioning.DefaultRepartitioner: DefaultRepartitioner,
    partitioning.EqualRepartitioner: EqualRepartitioner,
    partitioning.NoOpRepartitioner: NoOpRepartitioner,
}


def with_dl4j_names(value: Any) -> Any:
    """Return an instance of the core's as that of the class here; anything else comes back as it is."""
    kind = _WITH_NAMES.get(type(value))
    return value if kind is None else kind(**value.model_dump(by_alias=True))
