"""Ranges that values are brought to."""

from __future__ import annotations

import math
from typing import Any

from strombus.errors import ConfigurationError

__all__ = ["check_range"]


def check_range(low: Any, high: Any) -> tuple[float, float]:
    """Accept two finite numbers, the first below the second."""
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (low, high))
    if not numbers or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigurationError(f"min_range must be a finite number below max_range, got {low!r} and {high!r}")
    return float(low), float(high)
