"""One threshold for the whole run, as in Strom 2015."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from strombus.compression.thresholds.base import ThresholdAlgorithm, ThresholdState

__all__ = ["FixedThresholdAlgorithm"]


class FixedThresholdAlgorithm(ThresholdAlgorithm):
    """Keep one threshold (Strom 2015; DL4J: ``FixedThresholdAlgorithm``).

    Parameters
    ----------
    threshold : float
        In the units of the parameters: the most that an element moves in one step.
    """

    name: ClassVar[str] = "fixed"

    threshold: float = Field(gt=0)

    def next(self, state: ThresholdState) -> float | None:
        """Return the threshold, whatever came before."""
        return self.threshold
