"""The interface of a threshold algorithm: pure, with its state handed in and returned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["DECAY", "ESTIMATES", "START_SHARE", "ThresholdAlgorithm", "ThresholdState", "mean_state"]

DECAY = 0.5 ** (1 / 20)
"""DL4J's factor of one step: 20 steps double or halve a threshold."""
ESTIMATES = 10
"""Steps at the start whose thresholds are quantiles of the residual: an optimizer's first steps are unlike the rest."""
START_SHARE = 0.04
"""Share of the elements that such a quantile lets through: a delay costs most early in a run."""
THINNING = 50.0
"""Steps in which the share halves from there, until it has reached the algorithm's own."""
GAIN = 0.2
"""Exponent with which a threshold follows the ratio of the share that was sent to the share that was wanted."""

LARGEST_STEP = 1.1
"""Most that a steered threshold changes in one step: where a step sends a handful of elements, or none, its share says
little."""


@dataclass(frozen=True, slots=True)
class ThresholdState:
    """What an algorithm knows of the steps so far.

    Parameters
    ----------
    threshold : float or None
        The last step's; None before the first.
    share : float or None
        Share of the elements that the last step sent, 0 to 1. DL4J's "sparsity" is this with its message's
        header counted in.
    steps : int
    elements : int
        How many the threshold is for, 0 where that is not known.
    """

    threshold: float | None = None
    share: float | None = None
    steps: int = 0
    elements: int = 0


class ThresholdAlgorithm(BaseModel, ABC):
    """How large a quantum is, step by step (DL4J: ``ThresholdAlgorithm``).

    Parameters
    ----------
    minimum_threshold, maximum_threshold : float
        Bounds; DL4J has none, and its thresholds can fall to zero.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    name: ClassVar[str]

    minimum_threshold: float = Field(default=1e-30, gt=0)
    maximum_threshold: float = Field(default=1e30, gt=0)

    @abstractmethod
    def next(self, state: ThresholdState) -> float | None:
        """Return the next step's threshold; None for the residual's own quantile at `share_to_estimate`."""

    def share_to_estimate(self, state: ThresholdState) -> float:
        """Return the share of elements that a threshold taken from the residual should let through."""
        return START_SHARE

    def bound(self, threshold: float) -> float:
        """Return `threshold`, or the bound that it passes."""
        return min(max(threshold, self.minimum_threshold), self.maximum_threshold)

    def steer(self, state: ThresholdState, wanted: float) -> float:
        """Return the last threshold, moved so that the share comes closer to `wanted`."""
        assert state.threshold is not None
        assert state.share is not None
        factor = (state.share / wanted) ** GAIN if state.share else 0.0
        return self.bound(state.threshold * min(max(factor, 1 / LARGEST_STEP), LARGEST_STEP))


def thinning(steps: int, start: float, final: float) -> float:
    """Return the share wanted in step `steps` of a run that begins at `start` and ends at `final`."""
    return float(max(final, start * math.pow(0.5, max(0, steps - ESTIMATES) / THINNING)))


def mean_state(states: Sequence[ThresholdState]) -> ThresholdState:
    """Return the mean of several members' states (DL4J: ``ThresholdAlgorithmReducer``).

    States that have seen no step are left out, of the thresholds as of the shares; DL4J divides the shares by
    the number of thresholds.
    """
    used = [state for state in states if state.threshold is not None]
    if not used:
        return ThresholdState()
    shares = [state.share for state in used if state.share is not None]
    return ThresholdState(
        math.fsum(state.threshold or 0.0 for state in used) / len(used),
        math.fsum(shares) / len(shares) if shares else None,
        max(state.steps for state in used),
        max(state.elements for state in used),
    )
