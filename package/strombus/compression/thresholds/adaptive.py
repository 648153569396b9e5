"""The default threshold: whatever keeps the share of sent elements in a band."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from strombus.compression.thresholds.base import DECAY, ESTIMATES, ThresholdAlgorithm, ThresholdState, thinning

__all__ = ["AdaptiveThresholdAlgorithm"]

CHEAP = 10_000
"""Elements that cost next to nothing to send."""
LOST = 0.5
"""Share that tells a threshold from before, as where a schedule starts anew: it is found again."""
SMALL_SHARE = 0.05
"""Share that is enough however small a network is; where more is sent, the threshold holds large elements back."""


class AdaptiveThresholdAlgorithm(ThresholdAlgorithm):
    """Keep the share of sent elements in a band (DL4J: ``AdaptiveThresholdAlgorithm``).

    Parameters
    ----------
    initial_threshold : float, optional
        With a number the threshold starts there and moves as DL4J's: it stays while the share lies in the band, and
        else changes by `decay_rate` a step. By default it is found from the residual: a quantile for the first steps,
        which then stays while between a half and the whole of `max_target_sparsity` is sent, or up to four times that
        in the first steps, where a delay costs most. Small networks send more of their elements, up to 5 to 10 %:
        10,000 elements in a step cost next to nothing.
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
        if self.initial_threshold is None and (state.steps < ESTIMATES or (state.share or 0.0) > LOST):
            return None
        if state.threshold is None or state.share is None:
            return state.threshold or self.initial_threshold
        if self.initial_threshold is None:
            low, high = self._band_of(state)
            inside = low <= state.share <= high
            return state.threshold if inside else self.steer(state, low if state.share < low else high)
        if state.share < self.min_target_sparsity:
            return self.bound(state.threshold * self.decay_rate)
        if state.share > self.max_target_sparsity:
            return self.bound(state.threshold / self.decay_rate)
        return state.threshold

    def share_to_estimate(self, state: ThresholdState) -> float:
        """Return the share that a threshold taken from the residual should let through: the band's upper edge."""
        return self._band_of(state)[1]

    def _band_of(self, state: ThresholdState) -> tuple[float, float]:
        """Return the shares between which a threshold stays that was found from the residual."""
        small = min(SMALL_SHARE, CHEAP / state.elements) if state.elements else 0.0
        low = max(self.max_target_sparsity / 2, small)
        return low, min(thinning(state.steps, 8 * low, 2 * low), max(low, 2 * SMALL_SHARE))
