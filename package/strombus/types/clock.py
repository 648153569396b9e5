"""How far a worker's clock is from the driver's, as far as that can be known."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ClockBounds"]


@dataclass(frozen=True, slots=True)
class ClockBounds:
    """Between which values lies what must be added to a worker's time to get the driver's.

    A message bounds it from one side: it was sent before it came. A round trip bounds it from both.

    Parameters
    ----------
    least, most : float
        Seconds; infinite where nothing is known.
    """

    least: float = -math.inf
    most: float = math.inf

    @classmethod
    def of_round_trip(cls, sent: float, there: float, back: float) -> ClockBounds:
        """Return what follows from `there`, by the worker's clock, lying between `sent` and `back` by the driver's."""
        return cls(sent - there, back - there)

    def narrowed(self, other: ClockBounds) -> ClockBounds:
        """Return what follows from both."""
        return ClockBounds(max(self.least, other.least), min(self.most, other.most))

    @property
    def offset(self) -> float:
        """Seconds to add: none where the clocks may agree, otherwise the midpoint.

        Hosts that keep their clocks by NTP agree better than a round trip through a busy engine can tell.
        """
        if self.least <= 0 <= self.most:
            return 0.0
        if math.isinf(self.least) or math.isinf(self.most):
            return self.most if math.isinf(self.least) else self.least
        return (self.least + self.most) / 2

    @property
    def error(self) -> float:
        """Seconds by which `offset` may be wrong."""
        return max(self.most - self.offset, self.offset - self.least)
