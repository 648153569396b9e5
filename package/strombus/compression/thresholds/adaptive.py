"""The default threshold: whatever keeps the share of sent elements in a band."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from strombus.compression.thresholds.base import DECAY, ESTIMATES, ThresholdAlgorithm, ThresholdState, thinning

__all__ = ["AdaptiveThresholdAlgorithm"]


class AdaptiveThresholdAlgorithm(ThresholdAlgorithm):
    """Keep the share of sent elements in a band (DL4J: ``AdaptiveThresholdAlgorithm``).

    Parameters
    ----------
    initial_threshold : float, optional
        With a number the threshold starts there and moves as DL4J's: it stays while the share lies in the band, and
        else changes by `decay_rate` a step. By default it is found from the residual: a quantile for the
        first steps, and then steered towards 4 % of the elements, thinning out to `max_target_sparsity`.
    min_target_sparsity, max_target_sparsity : float
        The band, as shares of the elements.
    decay_rate : float
        Factor of one step, at least 0.5 and below 1.
    minimum_threshold, maximum_threshold : float
        Bounds.
    """

    name: ClassVar[str] = "adaptive"

    initial_threshold: float | None = Field(default=None, gt=0)
    min_target_sparsity: float = Field(default=1e-4, gt=0)
    max_target_sparsity: float = Field(default=1e-2, gt=0)
    decay_rate: float = Field(default=DECAY, ge=0.5, lt=1)

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.min_target_sparsity > self.max_target_sparsity:
            raise ValueError(
                f"min_target_sparsity ({self.min_target_sparsity}) must not be above max_target_sparsity "
                f"({self.max_target_sparsity})"
            )
        return self

    def next(self, state: ThresholdState) -> float | None:
        """Return the next threshold; see `ThresholdAlgorithm.next`."""
        if self.initial_threshold is None and state.steps < ESTIMATES:
            return None
        if state.threshold is None or state.share is None:
            return state.threshold or self.initial_threshold
        if self.initial_threshold is None:
            return self.steer(state, thinning(state.steps, self.max_target_sparsity))
        if state.share < self.min_target_sparsity:
            return self.bound(state.threshold * self.decay_rate)
        if state.share > self.max_target_sparsity:
            return self.bound(state.threshold / self.decay_rate)
        return state.threshold
