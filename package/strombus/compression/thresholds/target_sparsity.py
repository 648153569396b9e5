"""A threshold that aims at one share of sent elements."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from strombus.compression.thresholds.base import (
    DECAY,
    ESTIMATES,
    START_SHARE,
    ThresholdAlgorithm,
    ThresholdState,
    thinning,
)

__all__ = ["TargetSparsityThresholdAlgorithm"]


class TargetSparsityThresholdAlgorithm(ThresholdAlgorithm):
    """Aim at one share of sent elements (DL4J: ``TargetSparsityThresholdAlgorithm``).

    Parameters
    ----------
    initial_threshold : float, optional
        With a number the threshold starts there and changes by `decay_rate` in every step, as DL4J's. By
        default it is found from the residual and then steered; see `AdaptiveThresholdAlgorithm`.
    sparsity_target : float
        Share of the elements, above 0 and below 1/16.
    decay_rate : float
        Factor of one step, at least 0.5 and below 1.
    minimum_threshold, maximum_threshold : float
        Bounds.
    """

    name: ClassVar[str] = "target_sparsity"

    initial_threshold: float | None = Field(default=None, gt=0)
    sparsity_target: float = Field(default=1e-3, gt=0, lt=1 / 16)
    decay_rate: float = Field(default=DECAY, ge=0.5, lt=1)

    def next(self, state: ThresholdState) -> float | None:
        """Return the next threshold; see `ThresholdAlgorithm.next`."""
        if self.initial_threshold is None and state.steps < ESTIMATES:
            return None
        if state.threshold is None or state.share is None:
            return state.threshold or self.initial_threshold
        if self.initial_threshold is None:
            return self.steer(state, thinning(state.steps, START_SHARE, self.sparsity_target))
        if state.share < self.sparsity_target:
            return self.bound(state.threshold * self.decay_rate)
        if state.share > self.sparsity_target:
            return self.bound(state.threshold / self.decay_rate)
        return state.threshold
